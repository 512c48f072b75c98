"""Does the model know which colour is where?

## What it measures

Groups of two pictures and two captions: the same two things, once with the colours this way round, once the other way,
and each caption true of one of the pictures ("a red mug to the left of a green mug"). The relations are left and right,
on and under a table, above and below, higher and lower, in front and behind; every caption comes in four wordings, two
of which name either thing first, and a picture's score is the mean over them. interaction is the share of the groups in
which s(I,T) - s(I,T') - s(I',T) + s(I',T') is above 0: what a model prefers whatever the picture, or whatever the
caption, cancels. group is the share in which both pictures have their own caption scored higher, and both captions
their own picture. Level scores are wrong.

## Why it matters

A model that is asked "is the child on the left of the car" and answers by what is in the picture answers yes to both.
Accuracy on captions of real photographs does not show it, where the things named are rarely in any other place.

## Known limits

Without `--data` the pictures are drawn, of few things, in plain rooms; a model may bind in photographs and not here,
and the other way round. A score of chance shows that these captions are not told apart, not why. Half of the groups
are right by luck in interaction, a sixth in group. Pictures are drawn at the model's own size, so that nothing is cut
away; photographs of your own (Winoground, pairs of What'sUp, a table: docs/data.md) are squashed into it.

## Caught by

clip-bag-of-words, clip-colour-only, clip-position-only, clip-caption-only, clip-constant

## References

Thrush et al. 2022 (Winoground, arXiv:2204.03162); Kamath et al. 2023 (What'sUp, arXiv:2310.19785); Yuksekgonul et al.
2023 (ARO, arXiv:2210.01936) for bags of words; Hsieh et al. 2023 (SugarCrepe, arXiv:2306.14610) for captions that are
told apart without the picture.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.exact import exact_share
from audits.question import Question
from camcore.engine import WORST, Row
from camcore.errors import Undefined
from camcore.images import Batch, Images
from camcore.metrics import choice
from camcore.metrics.binding import Scores, interaction, priors, right
from camcore.subject import ImageText
from camcore.verdict import Evidence, Overlay, Table
from fixtures.datasets.captions import Captions, Item

VERSION = "1"

INTERACTION = Question(
    name="binding/interaction",
    sentence="captions that say which colour is where go with their own pictures",
    kind="MFT",
    measure="1 where s(I,T) - s(I,T') - s(I',T) + s(I',T') > 0",
    unit="of the groups",
    bounds=(0.0, 1.0),
    needs="captions",
)
GROUP = Question(
    name="binding/group",
    sentence="more groups of two pictures and two captions are wholly right than by luck",
    kind="MFT",
    measure="1 where every picture has its own caption, and every caption its own picture, scored higher",
    unit="of the groups",
    bounds=(0.0, 1.0),
    needs="captions",
)
QUESTIONS = (INTERACTION, GROUP)


@torch.no_grad()
def scored(subject: ImageText, group: Item, pictures: Images) -> Scores:
    """A group's scores, the mean over its wordings, in the shape of one group."""
    return choice.scored(subject, pictures, group.captions)[None]


def binding(subject: ImageText, batch: Batch, *, captions: Captions) -> dict[str, Tensor]:
    """What the model makes of each group.

    Returns:
        `interaction` and `group`, what is judged; `text`, `image`, `one` (of the two pictures), `margin` (the
        interaction itself), `caption_prior`, `picture_prior`, and `level`, 1 where two of the scores that are compared
        are the same.
    """
    groups = captions.by_id
    scores = torch.cat(
        [scored(subject, groups[one], _pictures(subject, captions, groups[one], batch)) for one in batch.ids]
    )
    found, (caption_prior, picture_prior) = right(scores), priors(scores)
    pairs = (scores[:, 0] - scores[:, 1], scores[..., 0] - scores[..., 1])
    return {
        "interaction": (interaction(scores) > 0).double(),
        "group": found.group.double(),
        "text": found.text.double(),
        "image": found.image.double(),
        "one": found.one,
        "margin": interaction(scores),
        "caption_prior": caption_prior,
        "picture_prior": picture_prior,
        "level": (torch.cat(pairs, 1) == 0).any(1).double(),
        **{f"score:{i}{j}": scores[:, i, j] for i in (0, 1) for j in (0, 1)},
    }


def _pictures(subject: ImageText, captions: Captions, group: Item, batch: Batch) -> Images:
    return captions.pictures(group, subject.geometry).to(batch.images)


def show(
    subject: ImageText,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    column: str,
    captions: Captions,
) -> Iterable[Evidence]:
    """Both pictures of each group with the scores of both captions; every relation's rates."""
    for index, image_id in enumerate(batch.ids):
        group, row = captions.by_id[image_id], rows[image_id]
        for picture, image in enumerate(_pictures(subject, captions, group, batch)):
            own, other = (row[f"score:{picture}{caption}"] for caption in (picture, 1 - picture))
            said = [group.captions[caption][0] for caption in (picture, 1 - picture)]
            yield Overlay(
                unit=image_id,
                role="worst" if index < WORST else "typical",
                value=row[column],
                caption=f"{said[0]}: {own:.2f}; {said[1]}: {other:.2f}" + (" (level)" if own == other else ""),
                image=image,
                saliency=None,
            )
    yield _table(rows, captions.by_id)


def _table(rows: Mapping[str, Row], groups: Mapping[str, Item]) -> Table:
    relations = dict.fromkeys(group.relation for group in groups.values())
    lines = [("all", list(rows.values()))]
    lines += [(name, [row for one, row in rows.items() if groups[one].relation == name]) for name in relations]
    return Table(
        title="How many groups are right, by relation (share with its exact 95 % interval; by luck 0.5 of the "
        "interactions, 0.25, 0.25 and 0.17 of the others; preferences: mean of what one caption, or one picture, "
        "scores more than the other, whatever it is paired with)",
        columns=(
            "relation",
            "groups",
            "interaction",
            "text",
            "picture",
            "group",
            "level",
            "caption preferred by",
            "picture preferred by",
        ),
        rows=tuple(_line(name, part) for name, part in lines if part),
    )


def _line(name: str, rows: Sequence[Row]) -> tuple[str | int | float, ...]:
    preferred = [round(sum(abs(row[key]) for row in rows) / len(rows), 4) for key in ("caption_prior", "picture_prior")]
    level = int(sum(row["level"] for row in rows))
    asked = ("interaction", "text", "image", "group")
    shares = (exact_share(torch.tensor([row[key] for row in rows])) for key in asked)
    return (name, len(rows), *shares, level, *preferred)


@pytest.mark.audit("binding")
def test_binding_goes_with_the_picture(ask: Ask) -> None:
    ask_about(ask, INTERACTION, "interaction")


@pytest.mark.audit("binding")
def test_binding_of_whole_groups(ask: Ask) -> None:
    ask_about(ask, GROUP, "group")


def ask_about(ask: Ask, question: Question, column: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""

    def premise(_images: Images) -> dict[str, Captions]:
        if ask.captions is None or not ask.captions.groups:
            raise Undefined(f"there are no groups of two pictures and two captions to ask {ask.subject.name} about")
        return {"captions": ask.captions}

    ask(
        question,
        measure=binding,
        column=column,
        show=partial(show, column=column),
        version=VERSION,
        premise=premise,
        early=ask.bindings is not None,  # of a benchmark's folder the scores are those of all that the budget allows
        among=lambda _dataset, given: given["captions"].grouped,
    )
