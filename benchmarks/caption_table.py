"""Two captions of one picture: query, logit and confidence, and beside them how the model does on many drawn scenes.

    python -m benchmarks.caption_table photo.jpg "the red apple is on the left of the photo" \
        "the green apple is on the left of the photo" --model open_clip:RN50-quickgelu@openai

One picture cannot tell whether a model reads where a colour is or prefers a caption anyway. So the same two captions
are put to drawn pairs of pictures, of which each caption is true of one: captions of which one denies the other
(`benchmarks/caption_words.py` says which are understood) are put to scenes of those colours, that thing and that
relation, and in the same words to other colours; of other captions the model is asked what scenes of left and right say
themselves. The observation that this grew from: CLIP's ResNet-50 gave the true caption of a picture 24.42 (28.15 %) and
the false one 25.36 (71.88 %).

A CLIP's confidence is a share among the captions given and no more, so it is called that; a SigLIP has a probability
for each caption by itself, the sigmoid of its logit; a function that scores captions has none.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from audits.shares import LEVEL, exact_share
from benchmarks.caption_words import MARKS, Asked, read
from camcore.errors import BadInput, one_line
from camcore.images import Images
from camcore.imagetext import REWORD, TwoTowers
from camcore.metrics.binding import interaction, right
from camcore.seeds import derive
from camcore.statistics import cluster_means, confidence_sequence
from fixtures.datasets.binding_scenes import Bindings, Group, binding_scenes
from fixtures.datasets.binding_things import COLOURS, THINGS
from fixtures.datasets.folder import decode
from fixtures.subjects.spec import find_image_text


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
        said = tuple(_swapped(caption, swap) for caption in captions)
        pairs.append(((drawn[0], drawn[1]), (said[0], said[1])))
    return _bindings("other", asked, pairs, seed=seed, size=size)


def _swapped(caption: str, swap: dict[str, str]) -> str:
    """The caption with its colours exchanged, and with the articles that those take."""
    words = []
    for word in caption.split():
        bare = word.strip(MARKS).lower()
        words.append(word.lower().replace(bare, swap[bare]) if bare in swap else word)
    article = re.compile(rf"\b(a)n? (?=({'|'.join(COLOURS)})\b)", re.IGNORECASE)
    return article.sub(lambda found: f"{found[1]}{'n' if found[2][0] in 'aeiou' else ''} ", " ".join(words))


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


def confidences(subject: Any, found: Float[Tensor, " captions"]) -> tuple[str, list[str]]:
    """What a model's scores of one picture say of how sure it is, by its name and for each caption; "" and no more."""
    if not isinstance(subject, TwoTowers):
        return "", [""] * len(found)  # on no scale that is known
    if subject.bias is not None:  # Zhai et al. 2023, arXiv:2303.15343: trained pair by pair
        return "probability (sigmoid of the logit)", [f"{one:.3g}" for one in found.sigmoid().tolist()]
    return "share of the captions given (softmax)", [f"{one:.2%}" for one in found.softmax(0).tolist()]


def refuse_same_tokens(subject: Any, captions: Sequence[str]) -> None:
    """Captions that are the same to the tokeniser have one score, which says nothing of the model.

    Raises:
        BadInput: Two of them are.
    """
    if isinstance(subject, TwoTowers):
        for one, other in combinations(captions, 2):
            if subject.same_tokens(one, other):
                raise BadInput(f"the tokeniser of {subject.name} gives {one!r} and {other!r} the same tokens; {REWORD}")


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
    refuse_same_tokens(subject, captions)
    (found,) = logits(subject, image, captions)
    named, sure = confidences(subject, found)
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
        [caption.replace("|", " "), f"{logit:.2f}", *([confidence] if named else []), share]
        for caption, logit, confidence, share in zip(captions, found.tolist(), sure, said, strict=True)
    ]
    both, bound = (over_colours(hits, many.groups) for hits in (right(scores).text, interaction(scores) > 0))
    towers = isinstance(subject, TwoTowers)
    fed = f" ({subject.weights}), the picture {subject.fed or 'as the model takes it'}" if towers else ""
    head = ["query", "logit" if towers else "score", *([named] if named else [])]
    head += [f"wins on {n} drawn scenes that it is true of (95 %)"]
    return [
        *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)),
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
