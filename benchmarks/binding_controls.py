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
from audits.exact import exact_share
from torch import Tensor

from audits.test_binding import binding
from camcore.images import Batch, load
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
AT_ONCE = 50  # groups


def measured(score: scorers.Score, scenes: Bindings, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """The audit's columns, of all groups."""
    subject, captions = scorers.scorer("x", score), drawn_captions(scenes)
    found = [binding(subject, batch, captions=captions) for batch in batches]
    return {name: torch.cat([columns[name] for columns in found]) for name in found[0]}


def batches_of(scenes: Bindings, size: int = AT_ONCE) -> list[Batch]:
    """The groups as the audit is given them."""
    data, geometry = scenes.first, scorers.scorer("x", scorers.constant).geometry
    parts = [data.ids[start : start + size] for start in range(0, len(data), size)]
    return [load(data, part, geometry, seed=0, device=torch.device("cpu")) for part in parts]


def first_of_each(scenes: Bindings) -> list[int]:
    """One group for each pair of captions, whichever is true of the first picture."""
    first: dict[frozenset[tuple[str, ...]], int] = {}
    for index, group in enumerate(scenes.groups):
        first.setdefault(frozenset(group.captions), index)
    return list(first.values())


def lines(n: int, seed: int) -> list[str]:
    """The table, and what it rests on."""
    scenes = binding_scenes(n, seed=seed, size=scorers.SIDE)
    batches, chosen = batches_of(scenes), first_of_each(scenes)
    found = [
        f"| scorer | interaction above 0 | the same of one group for each of {len(chosen)} pairs of captions "
        "| groups wholly right |",
        "|---|---|---|---|",
    ]
    for score in SCORES:
        columns = measured(score, scenes, batches)
        above, group = columns["interaction"], columns["group"]
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
