"""Does the model know which colour is where?

## What it measures

Groups of two pictures and two captions: the same two things, once with the colours this way round, once the other way,
and each caption true of one of the pictures ("a red mug to the left of a green mug"). The relations are left and right,
on and under a table, above and below, higher and lower, in front and behind; every caption comes in four wordings, two
of which name either thing first, and a picture's score is the mean over them. interaction is the share of the groups in
which s(I,T) - s(I,T') - s(I',T) + s(I',T') is above 0: what a model prefers whatever the picture, or whatever the
caption, cancels. left, on, above, higher and front are the same of one relation's groups. group is the share in which
both pictures have their own caption scored higher, and both captions their own picture. Level scores are wrong. Beside
them: what the captions decide alone, scored with a grey picture, and what the pictures do, with a caption that says
nothing; every caption is true once and false once, so that neither is ever right in more than half. Of drawn groups the
wordings are looked at one by one, which costs no further forward: of "red left of green" the side swap is "red right of
green", the colour swap "green left of red", both wordings of the other caption. Two tables say how many of either kind
are told apart, and how far; and keep apart the binding, the position prior (one relation preferred to its opposite,
whatever the picture) and the colour prior (one colour named first preferred to the other).

## Why it matters

A model that is asked "is the child on the left of the car" and answers by what is in the picture answers yes to both.
Accuracy on captions of real photographs does not show it, where the things named are rarely in any other place.

## Known limits

Without `--data` the pictures are drawn, of few things, in plain rooms, half of the groups shaded as in photographs and
half as cartoons; a model may bind in photographs and not here, and the other way round. A score of chance shows that
these captions are not told apart, not why. Half of the groups are right by luck in interaction, a sixth in group.
Groups of one relation are alike: who does not bind may lean the same way in most of them, by however little, and
interaction counts that as right or wrong in most; of a network trained on true captions without hard negatives it was
0.69, with 0.08 of the groups right. group, and the tables of swaps and of what is preferred by how much, tell. Side and
colour swaps of a group have the same sum, that of the interaction: how many are told apart is what differs. Pictures
are drawn at the model's own size, so that nothing is cut away; photographs of your own (Winoground, pairs of What'sUp,
a table: docs/data.md) are squashed into it, and a model that would be shown a part of them is refused. A group with a
caption that is longer than the model reads counts as the worst case; if more than one in twenty are, the claim is an
ERROR. Captions that are one to the model, in case alone or in the order of their words, are level, and so wrong.

## Caught by

clip-bag-of-words, clip-colour-only, clip-position-only, clip-caption-only, clip-constant, clip-mirrored,
clip-front-to-back, clip-trained-any-place, clip-trained-no-negatives

## References

Thrush et al. 2022 (Winoground, arXiv:2204.03162); Kamath et al. 2023 (What'sUp, arXiv:2310.19785); Yuksekgonul et al.
2023 (ARO, arXiv:2210.01936) for bags of words; Hsieh et al. 2023 (SugarCrepe, arXiv:2306.14610) for captions that are
told apart without the picture.
"""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from audits import captions_read
from audits.ask import Ask
from audits.binding_shown import NEUTRAL, pictures_of, show
from audits.binding_swaps import swapped
from audits.question import Question
from camcore.errors import Undefined
from camcore.images import Batch, Dataset, Images, only
from camcore.metrics.binding import decided_alone, in_double, interaction, priors, right
from camcore.subject import ImageText
from fixtures.datasets.captions import Captions, Item

VERSION = "2"

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
SAID = {  # relation -> how its claim names it
    "left": "left and right",
    "on": "on and under a table",
    "above": "above and below",
    "higher": "higher and lower",
    "front": "in front and behind",
}
RELATED = {
    relation: Question(
        name=f"binding/{relation}",
        sentence=f"captions that say what is {said} go with their own pictures",
        kind="MFT",
        measure=f"{INTERACTION.measure}, of captions that say what is {said}",
        unit="of the groups",
        bounds=(0.0, 1.0),
        needs="captions",
    )
    for relation, said in SAID.items()
}
QUESTIONS = (INTERACTION, GROUP, *RELATED.values())
GREY = 0.5  # of a picture that shows nothing


@torch.no_grad()
def worded(
    subject: ImageText, groups: Sequence[Item], pictures: Float[Tensor, "groups 3 3 h w"]
) -> list[list[Float[Tensor, "3 wordings"]]]:
    """The scores of each group's two pictures and a grey one with its two captions and one that says nothing.

    One tensor per caption, with a column for each of its wordings. All pictures are asked about all captions in one
    call: a model of two towers embeds each of either once.
    """
    said = [[*group.captions, (NEUTRAL,)] for group in groups]
    captions = list(dict.fromkeys(one for kinds in said for wordings in kinds for one in wordings))
    try:
        asked = subject.similarity(pictures.flatten(0, 1), captions)
    except ValueError:
        if len(groups) == 1:
            raise
        # captions of different words and groups, which are never compared, may be the same to the model
        pairs = zip(groups, pictures.split(1), strict=True)
        return [one for group, its_own in pairs for one in worded(subject, [group], its_own)]
    found, column = in_double(asked).unflatten(0, (-1, 3)), {caption: index for index, caption in enumerate(captions)}
    return [
        [of[:, [column[one] for one in wordings]] for wordings in kinds] for of, kinds in zip(found, said, strict=True)
    ]


def averaged(found: Sequence[Sequence[Float[Tensor, "3 wordings"]]]) -> Float[Tensor, "groups 3 3"]:
    """Of what `worded` gives, each caption's score: the mean over its wordings."""
    return torch.stack([torch.stack([each.mean(1) for each in kinds], 1) for kinds in found])


def binding(subject: ImageText, batch: Batch, *, captions: Captions) -> dict[str, Tensor]:
    """What the model makes of each group.

    Returns:
        `interaction` and `group`, what is judged; `text`, `image`, `one` (of the two pictures), `margin` (the
        interaction itself), `caption_prior`, `picture_prior`, and `level`, 1 where two of the scores that are compared
        are the same. `text_only`: of the two pictures, how many are right if the captions' scores with a grey picture
        decide; `by_caption`: 1 where they do. `picture_only` and `by_picture`: the same of the pictures' scores with a
        caption that says nothing. What `swapped` finds in the wordings, NaN where they do not come in pairs.
    """
    groups = [captions.by_id[one] for one in batch.ids]
    pictures = torch.stack([pictures_of(subject, captions, group, batch) for group in groups])
    grey = torch.full_like(pictures[:, :1], GREY)
    each = worded(subject, groups, torch.cat([pictures, grey], 1))
    found = averaged(each)
    scores, with_grey, with_nothing = found[:, :2, :2], found[:, 2, :2], found[:, :2, 2]
    rights, (captions_prior, pictures_prior) = right(scores), priors(scores)
    pairs = (scores[:, 0] - scores[:, 1], scores[..., 0] - scores[..., 1])
    return {
        "interaction": (interaction(scores) > 0).double(),
        "group": rights.group.double(),
        "text": rights.text.double(),
        "image": rights.image.double(),
        "one": rights.one,
        "margin": interaction(scores),
        "caption_prior": captions_prior,
        "picture_prior": pictures_prior,
        "level": (torch.cat(pairs, 1) == 0).any(1).double(),
        "text_only": right(with_grey[:, None].expand(-1, 2, -1)).one,
        "by_caption": decided_alone(scores, with_grey).double(),
        "picture_only": right(with_nothing[:, None].expand(-1, 2, -1)).one,
        "by_picture": decided_alone(scores.mT, with_nothing).double(),
        **{f"score:{i}{j}": scores[:, i, j] for i in (0, 1) for j in (0, 1)},
        **swapped(groups, each),
    }


@pytest.mark.audit("binding")
def test_binding_goes_with_the_picture(ask: Ask) -> None:
    ask_about(ask, INTERACTION, "interaction")


@pytest.mark.audit("binding")
def test_binding_of_whole_groups(ask: Ask) -> None:
    ask_about(ask, GROUP, "group")


@pytest.mark.audit("binding")
def test_binding_to_left_and_right(ask: Ask) -> None:
    ask_about(ask, RELATED["left"], "interaction")


@pytest.mark.audit("binding")
def test_binding_to_on_and_under(ask: Ask) -> None:
    ask_about(ask, RELATED["on"], "interaction")


@pytest.mark.audit("binding")
def test_binding_to_above_and_below(ask: Ask) -> None:
    ask_about(ask, RELATED["above"], "interaction")


@pytest.mark.audit("binding")
def test_binding_to_higher_and_lower(ask: Ask) -> None:
    ask_about(ask, RELATED["higher"], "interaction")


@pytest.mark.audit("binding")
def test_binding_to_in_front_and_behind(ask: Ask) -> None:
    ask_about(ask, RELATED["front"], "interaction")


def ask_about(ask: Ask, question: Question, column: str) -> None:
    """Put one of the claims: they read different columns, or different groups, of the same measurement."""

    def premise(_images: Images) -> dict[str, Captions]:
        if ask.captions is None or not ask.captions.groups:
            raise Undefined(f"there are no groups of two pictures and two captions to ask {ask.subject.name} about")
        return {"captions": ask.captions}

    ask(
        question,
        measure=partial(captions_read.measured, measure=binding),
        column=column,
        show=partial(captions_read.shown, column=column, show=partial(show, tables=question not in RELATED.values())),
        version=VERSION,
        premise=premise,
        early=ask.bindings is not None,  # of a benchmark's folder the scores are those of all that the budget allows
        among=lambda _dataset, given: about(given["captions"], question),
    )


def about(captions: Captions, question: Question) -> Dataset:
    """The groups that a question is about: all, or those of its relation."""
    relation = next((name for name, one in RELATED.items() if one is question), None)
    if relation is None:
        return captions.grouped
    held = [group.id for group in captions.groups if group.relation == relation]
    if not held:
        raise Undefined(f"none of the groups is about {SAID[relation]}")
    return only(captions.grouped, held)
