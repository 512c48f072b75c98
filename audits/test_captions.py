"""Does the caption that is true of a picture score above those that are not?

## What it measures

Pictures with a caption that is true of them and foils: What'sUp, ARO, Winoground, SugarCrepe, VSR or a table of your
own (`--data`), or else drawn scenes with the colours in either order. A picture is right if its caption scores above
every foil; a level score is wrong. choice is how far the share that is right lies beyond luck, (r - 1/k) / (1 - 1/k)
for k captions, so that two captions and four are on one scale. needs_picture is that share less what the same captions
give with an even grey in the picture's place, where levels are broken by lot. Pictures that share their captions are
asked together, and count once. The tables give each benchmark's own score, every relation's, and luck.

## Why it matters

It is the question that benchmarks put, and its answer is quoted as understanding. Foils that read worse than the
captions are told apart without the picture: what a model gains by looking is the part that it sees.

## Known limits

One picture and its captions do not take out which caption the model prefers anyway; binding does, where there are
groups of two pictures and two captions. An even grey is like no photograph, so the preference that it shows is one
estimate of what the text alone decides. Published scores are of the whole benchmark: of a folder all items that the
profile's budget allows are asked, and the tables say of how many they are. The formulas are as published; pictures are
not fed as published where that would cut their sides, but squashed whole into the model's square. VSR's captions are
asked as "... (True)" against "... (False)", as others did for CLIP; a model that never read such words says little by
it. An item with a caption that is longer than the model reads counts as the worst case, and is in no table; if more
than one in twenty are, the claim is an ERROR. A foil that is its caption to the tokeniser, which may read no case, is
level, and so wrong.

## Caught by

clip-caption-only, clip-bag-of-words, clip-constant

## References

Kamath et al. 2023 (What'sUp, arXiv:2310.19785); Yuksekgonul et al. 2023 (ARO, arXiv:2210.01936); Thrush et al. 2022
(Winoground, arXiv:2204.03162); Hsieh et al. 2023 (SugarCrepe, arXiv:2306.14610), also for models that never see the
picture; Liu et al. 2023 (VSR, arXiv:2205.00363).
"""

from collections.abc import Iterable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

from audits import captions_read
from audits.ask import Ask
from audits.captions_scores import by_relation, published
from audits.question import Question
from camcore.engine import Row, rank
from camcore.errors import Undefined
from camcore.images import Batch, Images
from camcore.metrics import binding
from camcore.metrics.choice import beyond_luck, by_luck, chosen, scored
from camcore.subject import ImageText
from camcore.verdict import Evidence, Overlay
from fixtures.datasets.captions import Captions, Item

VERSION = "1"
GREY = 0.5

CHOICE = Question(
    name="captions/choice",
    sentence="the true caption scores above its foils more often than by luck",
    kind="MFT",
    measure="(r - 1/k) / (1 - 1/k): share of pictures whose caption scores above its k - 1 foils, 0 by luck, 1 always",
    unit="beyond luck",
    bounds=(-1.0, 1.0),
    needs="captions",
)
NEEDS_PICTURE = Question(
    name="captions/needs_picture",
    sentence="the true caption is found more often with the picture than with an even grey in its place",
    kind="DIR",
    measure="share of pictures whose caption scores above its foils, less the same with an even grey (levels by lot)",
    unit="of the pictures",
    bounds=(-1.0, 1.0),
    needs="captions",
)
QUESTIONS = (CHOICE, NEEDS_PICTURE)


@torch.no_grad()
def choice(subject: ImageText, batch: Batch, *, captions: Captions) -> dict[str, Tensor]:
    """What the model chooses for each item; one forward per picture, and one for the grey.

    Returns:
        `choice` and `needs_picture`, what is judged, means over the item's pictures; counts of pictures: `pictures`,
        `right`, `level` (the best foil scores the same), `blind` (right with the grey), `luck`; `pairs` and
        `pairs_right`, `whole` (1: all of them right); `groups` of two and two, and of those `text`, `image`, `group`.
    """
    found = [_item(subject, captions.by_id[one], captions, batch.images) for one in batch.ids]
    return {name: torch.tensor([each[name] for each in found], dtype=torch.float64) for name in found[0]}


def _item(subject: ImageText, item: Item, captions: Captions, like: Images) -> dict[str, float]:
    pictures = captions.pictures(item, subject.geometry).to(like)
    grey = torch.full_like(pictures[:1], GREY)
    *_, last = scores = scored(subject, torch.cat([pictures, grey]), item.captions)
    scores, blind = scores[:-1], last.expand(len(pictures), -1)
    right, lot = chosen(scores, item.offered), by_luck(blind, item.offered)
    groups = [scores[[a, b]][:, [item.offered[a][0], item.offered[b][0]]] for a, b in item.pairs]
    found = binding.right(torch.stack(groups)) if groups else None
    return {
        "choice": float(beyond_luck(right, item.offered).mean()),
        "needs_picture": float((right - lot).mean()),
        "pictures": float(len(right)),
        "right": float(right.sum()),
        "level": float((by_luck(scores, item.offered) % 1 > 0).sum()),
        "blind": float(lot.sum()),
        "luck": float(sum(1 / len(options) for options in item.offered)),
        "pairs": float(len(item.pairs)),
        "pairs_right": float(sum(right[a] * right[b] for a, b in item.pairs)),
        "whole": float(right.min()),
        "groups": float(len(groups)),
        "text": 0.0 if found is None else float(found.text.sum()),
        "image": 0.0 if found is None else float(found.image.sum()),
        "group": 0.0 if found is None else float(found.group.sum()),
    }


@torch.no_grad()
def show(
    subject: ImageText,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    column: str,
    captions: Captions,
) -> Iterable[Evidence]:
    """Of each item the first picture that is wrong, else the first, with its caption and the best foil; the scores."""
    for index, item_id in enumerate(batch.ids):
        item = captions.by_id[item_id]
        pictures = captions.pictures(item, subject.geometry).to(batch.images)
        scores = scored(subject, pictures, item.captions)
        which = int(chosen(scores, item.offered).argmin())
        true, *foils = item.offered[which]
        foil = max(foils, key=lambda other: float(scores[which, other]))
        own, best = (float(scores[which, caption]) for caption in (true, foil))
        yield Overlay(
            unit=item_id,
            role=rank(index, len(batch)),
            value=rows[item_id][column],
            caption=f"true: {item.captions[true][0]}: {own:.2f}; foil: {item.captions[foil][0]}: {best:.2f}"
            + (" (level)" if own == best else ""),
            image=pictures[which],
            saliency=None,
        )
    yield published(subject, captions, rows)
    yield by_relation(captions, rows)


@pytest.mark.audit("captions")
def test_captions_are_chosen_beyond_luck(ask: Ask) -> None:
    ask_about(ask, CHOICE, "choice")


@pytest.mark.audit("captions")
def test_captions_need_the_picture(ask: Ask) -> None:
    ask_about(ask, NEEDS_PICTURE, "needs_picture")


def ask_about(ask: Ask, question: Question, column: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""

    def premise(_images: Images) -> dict[str, Captions]:
        if ask.captions is None:
            raise Undefined(f"there are no pictures with captions to ask {ask.subject.name} about")
        return {"captions": ask.captions}

    ask(
        question,
        measure=partial(captions_read.measured, measure=choice),
        column=column,
        show=partial(captions_read.shown, column=column, show=show),
        version=VERSION,
        premise=premise,
        early=ask.bindings is not None,  # of a benchmark's folder the scores are those of all that the budget allows
        among=lambda _dataset, given: given["captions"].dataset,
    )
