"""What scorers that leave something out make of binding scenes: a Markdown table, in docs/reproductions.md.

    python -m benchmarks.binding_controls

A scorer that gives every caption weights of its own does the same in all groups with the same captions, so that groups
are not independent. Of one group for each pair of captions the signs are: that is the column whose exact interval says
whether it is luck.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from audits.shares import exact_share
from audits.test_binding import GREY, averaged, worded
from camcore.metrics.binding import interaction, right
from fixtures.controls import binding_scorers as scorers
from fixtures.datasets.binding_scenes import Bindings, binding_scenes
from fixtures.datasets.captions import drawn_captions

SCORES = (
    scorers.oracle,
    scorers.colour_only,
    scorers.position_only,
    scorers.caption_only,
    scorers.bag_of_words,
    scorers.constant,
)
Pictures = Float[Tensor, "groups 2 3 h w"]


def drawn(scenes: Bindings) -> Pictures:
    """Both pictures of each group."""
    return torch.stack([torch.stack(scenes.draw(group)[0]) for group in scenes.groups])


def measured(score: scorers.Score, scenes: Bindings, pictures: Pictures) -> Float[Tensor, "groups 2 2"]:
    """What the audit compares: each group's pictures with its captions, the mean over wordings."""
    grey = torch.full_like(pictures[:, :1], GREY)
    groups = drawn_captions(scenes).groups
    return averaged(worded(scorers.scorer("x", score), groups, torch.cat([pictures, grey], 1)))[:, :2, :2]


def first_of_each(scenes: Bindings) -> list[int]:
    """One group for each pair of captions, whichever is true of the first picture."""
    first: dict[frozenset[tuple[str, ...]], int] = {}
    for index, group in enumerate(scenes.groups):
        first.setdefault(frozenset(group.captions), index)
    return list(first.values())


def lines(n: int, seed: int) -> list[str]:
    """The table, and what it rests on."""
    scenes = binding_scenes(n, seed=seed, size=scorers.SIDE)
    pictures, chosen = drawn(scenes), first_of_each(scenes)
    found = [
        f"| scorer | interaction above 0 | the same of one group for each of {len(chosen)} pairs of captions "
        "| groups wholly right |",
        "|---|---|---|---|",
    ]
    for score in SCORES:
        scores = measured(score, scenes, pictures)
        above, group = (interaction(scores) > 0).double(), right(scores).group.double()
        shares = " | ".join(exact_share(one) for one in (above, above[chosen], group))
        found.append(f"| {score.__name__.replace('_', ' ')} | {shares} |")
    return [*found, "", f"{n} groups, {scorers.SIDE} pixels, seed {seed}; exact 95 % intervals."]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.binding_controls", description=__doc__)
    parser.add_argument("--groups", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print("\n".join(lines(options.groups, options.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
