"""Two captions of one picture: query, logit and confidence, and beside them how the model does on many drawn scenes.

    python -m benchmarks.caption_table photo.jpg "the red apple is on the left of the photo" \
        "the green apple is on the left of the photo" --model open_clip:RN50-quickgelu@openai

One picture cannot tell whether a model reads where a colour is or prefers a caption anyway. So the same two captions
are put to drawn pairs of pictures, of which each caption is true of one: captions that differ in a colour or a side
are put to scenes of those colours, that thing and that relation, and in the same words to other colours; of other
captions the model is asked what scenes of left and right say themselves. The observation that this grew from: CLIP's
ResNet-50 gave the true caption of a picture 24.42 (28.15 %) and the false one 25.36 (71.88 %).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from audits.shares import LEVEL, exact_share
from camcore.errors import BadInput, one_line
from camcore.images import Images
from camcore.imagetext import TwoTowers
from camcore.metrics.binding import interaction, right
from camcore.seeds import derive
from camcore.statistics import cluster_means, confidence_sequence
from fixtures.datasets.binding_scenes import Bindings, Group, binding_scenes
from fixtures.datasets.binding_things import COLOURS, THINGS
from fixtures.datasets.folder import decode
from fixtures.subjects.spec import find_image_text

MARKS = ".,;:!"
# a word of a caption -> the relation of binding scenes, and which of the two places it names
PLACES = {
    "left": ("left", 0),
    "right": ("left", 1),
    "above": ("above", 0),
    "top": ("above", 0),
    "below": ("above", 1),
    "bottom": ("above", 1),
    "higher": ("higher", 0),
    "lower": ("higher", 1),
    "front": ("front", 0),
    "nearer": ("front", 0),
    "behind": ("front", 1),
    "farther": ("front", 1),
    "under": ("on", 1),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What two captions say: the first is true where `colours[0]` is in the relation's first place."""

    relation: str
    colours: tuple[str, str]
    thing: str | None  # None: any


def read(first: str, second: str) -> Asked | None:
    """What the captions say of drawn scenes, if they differ in colours or in a side alone; else None."""
    one, other = (tuple(word.strip(MARKS).lower() for word in caption.split()) for caption in (first, second))
    apart = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
    placed = [PLACES[word] for word in one if word in PLACES]
    if len(one) != len(other) or not apart or not placed:
        return None
    relation, place = placed[0]
    named = [word for word in one if word in COLOURS]
    thing = next((word for word in one if word in THINGS), None)
    if all(a in COLOURS and b in COLOURS for a, b in apart) and apart[-1] in (apart[0], apart[0][::-1]):
        colours = apart[0]
    elif len(apart) == 1 and PLACES.get(apart[0][1]) == (relation, 1 - place) and apart[0][0] in PLACES and named:
        offered = THINGS[thing][2] if thing else tuple(COLOURS)
        colours = (named[0], next(colour for colour in (*named[1:], *offered) if colour != named[0]))
    else:
        return None
    return Asked(relation=relation, colours=colours if place == 0 else colours[::-1], thing=thing)


def own_scenes(asked: Asked, captions: Sequence[str], n: int, *, seed: int, size: int) -> Bindings:
    """Drawn pairs of pictures of the captions' own colours: the first caption is true of the first picture."""
    pairs = [(asked.colours, (captions[0], captions[1]))] * n
    return _bindings("own", asked, pairs, seed=seed, size=size)


def other_scenes(asked: Asked, captions: Sequence[str], n: int, *, seed: int, size: int) -> Bindings:
    """The same in other colours, two drawn for each pair of pictures, and exchanged in the captions' words.

    One pair of captions is one draw of luck, however many scenes it is put to: a network of random weights prefers one
    of its two differences everywhere. Over pairs of colours luck is a half.
    """
    pairs = []
    for index in range(n):
        draws = np.random.default_rng(derive(seed, "caption table", str(index)))
        drawn = tuple(str(colour) for colour in draws.choice(list(COLOURS), 2, replace=False))
        swap = dict(zip(asked.colours, drawn, strict=True))
        said = tuple(" ".join(_swapped(word, swap) for word in caption.split()) for caption in captions)
        pairs.append(((drawn[0], drawn[1]), (said[0], said[1])))
    return _bindings("other", asked, pairs, seed=seed, size=size)


def _swapped(word: str, swap: dict[str, str]) -> str:
    bare = word.strip(MARKS).lower()
    return word.lower().replace(bare, swap[bare]) if bare in swap else word


def _bindings(
    name: str, asked: Asked, pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]], *, seed: int, size: int
) -> Bindings:
    things = ["balloon"] if asked.relation == "higher" else [asked.thing] if asked.thing else list(THINGS)
    groups = tuple(
        Group(
            id=f"captions-{name}-{seed}-{index:05d}",
            relation=asked.relation,
            thing=things[index % len(things)],
            colours=colours,
            captions=((said[0],), (said[1],)),
        )
        for index, (colours, said) in enumerate(pairs)
    )
    return Bindings(spec="binding scenes", groups=groups, size=size, seed=seed)


@torch.no_grad()
def logits(subject: Any, images: Images, captions: Sequence[str]) -> Float[Tensor, "b captions"]:
    """The scale * cosine (+ bias) that a softmax over captions is taken of; a scorer without a temperature as it is."""
    found = subject.similarity(images, captions).double()
    return found * subject.scale / 100 if isinstance(subject, TwoTowers) and subject.bias is None else found


def group_scores(subject: Any, bindings: Bindings) -> Float[Tensor, "groups 2 2"]:
    found = []
    for group in bindings.groups:
        pictures = torch.stack([subject.geometry.fit(one) for one in bindings.draw(group)[0]]).to(subject.device)
        found.append(logits(subject, pictures, [wordings[0] for wordings in group.captions]).cpu())
    return torch.stack(found)


def over_colours(hits: Tensor, groups: Sequence[Group]) -> str:
    """The share of groups, every pair of colours counting once: scenes of the same two are not independent."""
    means = cluster_means(hits.double().tolist(), [tuple(sorted(group.colours)) for group in groups])
    found = confidence_sequence(means, level=LEVEL, bounds=(0.0, 1.0), counts=[len(means)])
    return f"{found.point:.2f} [{found.low:.2f}, {found.high:.2f}]"


def lines(subject: Any, image: Images, captions: Sequence[str], *, n: int, seed: int) -> list[str]:
    """The table, and what it rests on."""
    (found,) = logits(subject, image, captions)
    size = max(subject.geometry.crop)
    asked = read(captions[0], captions[1]) if len(captions) == 2 else None
    said, what = (
        ["-"] * len(captions),
        "drawn pairs of left and right with captions of their own, as none is known of yours",
    )
    many = binding_scenes(n, seed=seed, size=size, relations=("left",))
    if asked is not None:
        own = group_scores(subject, own_scenes(asked, captions, n, seed=seed, size=size))
        wins = (own[:, 0, 0] > own[:, 0, 1], own[:, 1, 1] > own[:, 1, 0])
        said = [exact_share(won.double()) for won in wins]
        many, what = (
            other_scenes(asked, captions, n, seed=seed, size=size),
            "drawn pairs in other colours, in the same words",
        )
    scores = group_scores(subject, many)
    rows = [
        f"| {caption.replace('|', ' ')} | {logit:.2f} | {confidence:.2%} | {share} |"
        for caption, logit, confidence, share in zip(
            captions, found.tolist(), found.softmax(0).tolist(), said, strict=True
        )
    ]
    both, bound = (over_colours(hits, many.groups) for hits in (right(scores).text, interaction(scores) > 0))
    towers = isinstance(subject, TwoTowers)
    fed = f" ({subject.weights}), the picture {subject.fed or 'as the model takes it'}" if towers else ""
    return [
        f"| query | logit | confidence | wins on {n} drawn scenes that it is true of (95 %) |",
        "|---|---|---|---|",
        *rows,
        "",
        f"{n} {what}: the true caption wins on both pictures of {both} (by luck 0.25), and captions go with their "
        f"pictures, whatever the model prefers anyway, in {bound} (by luck 0.50; 95 %, each pair of colours once).",
        f"{subject.spec}{fed}; seed {seed}.",
    ]


class Parser(argparse.ArgumentParser):
    """Errors of the user's go where all others go, on one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise BadInput(f"{message}; see python -m benchmarks.caption_table --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 2, and one line, for whatever the user can get wrong."""
    parser = Parser(prog="caption_table", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("captions", nargs="+", metavar="CAPTION", help="two or more; the scenes are put two")
    parser.add_argument("--model", required=True, metavar="SPEC", help="hf:DIR, open_clip:NAME@TAG, control:NAME")
    parser.add_argument("--weights", metavar="FILE|random:SEED")
    parser.add_argument("--scenes", type=int, default=60, metavar="N", help="drawn pairs of pictures; default: 60")
    parser.add_argument("--seed", type=int, default=0)
    try:
        options = parser.parse_args(argv)
        captions = list(dict.fromkeys(caption.strip() for caption in options.captions))
        if len(captions) < 2 or not all(captions):
            raise BadInput(f"expected two captions that differ, got {options.captions}")
        try:
            picture = decode(options.image.read_bytes())
        except Exception as problem:  # Pillow's decoders have exceptions of their own
            raise BadInput(f"cannot read the picture {str(options.image)!r} ({one_line(problem)})") from None
        subject = find_image_text(options.model, weights=options.weights)
        image = subject.geometry.fit(picture)[None]
        try:
            print("\n".join(lines(subject, image, captions, n=options.scenes, seed=options.seed)))
        except BadInput:
            raise
        except ValueError as problem:  # captions that the model cannot tell apart, or longer than it reads
            raise BadInput(" ".join(str(problem).split())) from None
    except BadInput as problem:
        print(f"caption_table: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
