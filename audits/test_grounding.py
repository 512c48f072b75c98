"""Does the model find the thing on the left when it is asked for the thing on the left?

## What it measures

A phrase of a caption is asked for in drawn pictures, and the box with the highest score is the answer; it is right if
it is around the thing meant (intersection over union of 0.5). sides: "the mug on the left", of two that differ in
colour alone, asked for both sides in both orders of the colours. relations: "the mug directly to the left of the green
mug", in a row of four mugs, asked to both sides of either inner one: the four right things are four. finds: "the red
mug", of four things in a row, of two kinds in two colours each. The number of a group of pictures is the mean over its
queries.

Each claim takes what it is about: in every group, whoever leaves out the side, or where the green mug stands, or its
colour, or the kind of thing that is asked for, gives one answer to questions that have two, and is right in half of
them at most. Beside them stand what a false caption does (does the box follow the colour or the side?), whether boxes
turn with a picture that is mirrored and a word that is swapped, and whether true captions score higher than false ones.

Photographs of your own (`--data`, a phrases.csv: docs/data.md) are asked for what their lines say: each line is about
one of the claims, and a claim that no line is about does not apply. The number of a picture, or of several that belong
together, is the mean over its phrases. A table is refused if more than half of a group can be right for whoever reads
no word (finds), no left and no right (sides, relations), or left and right alone (relations).

## Why it matters

A model that answers by what a phrase names and never by where is right in nearly every benchmark of photographs, in
which the things named are seldom there twice. Whoever asks it for the left one of two gets either.

## Known limits

Without `--data` the pictures are drawn, of few things, in plain rooms, and the words are few; how often the audit is
wrong was measured on those. Of photographs finds takes a phrase to be read, but not a colour and a kind both: things of
different kinds are found by whoever reads one word. They are squashed into the model's square. Left and right only.
relations asks for the next thing: the only one to the left of another is the leftmost of its like in the whole picture,
which takes no other. A model that looks to the right side and takes the farthest thing there fails it (0.5); one that
takes any is at the margin (0.75). No claim that gates needs a side, a colour and a kind for one phrase. An apple is
never set beside a ball, as both are round. Scores of grounders are no probabilities that a caption is true: most were
never shown a false one.

## Caught by

grounder-colour-only, grounder-sides-only, grounder-no-anchor, grounder-no-colours, grounder-no-kinds,
grounder-fixed-boxes, grounder-sides-swapped, grounder-first-box, grounder-anywhere

## References

Kamath et al. 2021 (MDETR, arXiv:2104.12763); Kazemzadeh et al. 2014 (ReferItGame) for referring expressions; Kamath et
al. 2023 (What'sUp, arXiv:2310.19785) for left and right; Rezatofighi et al. 2019 (arXiv:1902.09630) for the IoU.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from audits import grounding_photographs
from audits.ask import Ask
from audits.grounding_shown import show
from audits.question import Question
from camcore.errors import Undefined
from camcore.images import Batch, Images
from camcore.metrics import grounding as metrics
from camcore.subject import Grounder
from fixtures.datasets.grounding_scenes import FAMILIES, MIRROR, GroundingScenes, Query, View

VERSION = "2"

SIDES = Question(
    name="grounding/sides",
    sentence="of two things that differ in colour alone, it finds the one on the side that is asked for",
    kind="MFT",
    measure="share of the queries for a side whose box is around the thing there",
    unit="of a group's queries",
    bounds=(0.0, 1.0),
    needs="boxes",
)
RELATIONS = Question(
    name="grounding/relations",
    sentence="of the things in a row, it finds the one next to another on the side that is asked for",
    kind="MFT",
    measure="share of the queries for what is next to a named thing whose box is around its neighbour on that side",
    unit="of a group's queries",
    bounds=(0.0, 1.0),
    needs="boxes",
)
FINDS = Question(
    name="grounding/finds",
    sentence="of things of two kinds in two colours, it finds the one that is named by both",
    kind="MFT",
    measure="share of the queries for a colour and a kind whose box is around the thing of both",
    unit="of a group's queries",
    bounds=(0.0, 1.0),
    needs="boxes",
)
QUESTIONS = (SIDES, RELATIONS, FINDS)
BESIDE = {"sides": ("F3",), "relations": ("F4",), "finds": ("F0",)}  # the families that a claim is about


@torch.no_grad()
def grounding(subject: Grounder, batch: Batch, *, scenes: GroundingScenes) -> dict[str, Tensor]:
    """What the model finds in each group; one forward per query.

    Returns:
        `sides`, `relations`, `finds`: what is judged; the columns of `answers`; and `box:<query>:<edge>` and
        `score:<query>`, the box chosen for each of the group's queries.
    """
    groups = {group.id: group for group in scenes.groups}
    found: list[dict[str, Tensor]] = []
    for one in batch.ids:
        queries, views = scenes.queries(groups[one]), scenes.views(groups[one])
        chosen = [
            metrics.best(*subject.ground(views[query.picture].picture.to(batch.images), query.caption, query.phrase))
            for query in queries
        ]
        boxes = torch.stack([box.cpu().double() for box, _ in chosen])
        scores = torch.stack([score.cpu().double() for _, score in chosen])
        edges = {f"box:{query}:{edge}": boxes[query, edge] for query in range(len(queries)) for edge in range(4)}
        scored = {f"score:{query}": scores[query] for query in range(len(queries))}
        found.append({**answers(queries, views, boxes, scores), **edges, **scored})
    return {name: torch.stack([row[name] for row in found]) for name in found[0]}


def answers(
    queries: Sequence[Query], views: Sequence[View], boxes: Float[Tensor, "q 4"], scores: Float[Tensor, " q"]
) -> dict[str, Tensor]:
    """One group's shares, over the queries of each family.

    Returns:
        By family `F0` to `F4`: `<family>`, right; `:giou`, by the generalised IoU; `:side`, centred on the side of the
        thing meant; `:middle`, on neither; `:none`, around no thing. `F0:colour`, around a thing of the colour that is
        meant, and `F0:kind`, of the kind. `F2:other`, around the thing on the side that the false caption says.
        `F4:anchor`, around the thing that the one meant is next to, `F4:turned`, around its other neighbour, and
        `F4:far`, around what is not next to it.
        `verdict:true` and `verdict:false`, whether the box is where F1 says it is, and where F2 says it is not;
        `confidence`, F1 scored above F2; `mirror` and `mirror:error`, F3 in the mirror image.
    """
    width = float(views[0].picture.shape[2])
    truth = torch.stack([views[query.picture].boxes[query.meant].double() for query in queries])
    around = torch.stack(
        [metrics.matched(box, views[query.picture].boxes.to(box)) for query, box in zip(queries, boxes, strict=True)]
    )
    meant = torch.tensor([query.meant for query in queries])
    sides, hit = metrics.side(boxes, width), around == meant
    loose = metrics.generalised_iou(boxes, truth) >= metrics.HIT
    said = torch.tensor([{"left": -1, "right": 1, None: 0}[query.said] for query in queries])
    of = {name: _of(queries, name) for name in FAMILIES}
    turned = torch.tensor([index for index, query in enumerate(queries) if query.picture == MIRROR])
    first = of["F3"][: len(turned)]  # in the first picture, in the same order, with the sides turned

    shares: dict[str, Tensor] = {}
    for name, chosen in of.items():
        shares[name] = hit[chosen]
        shares[f"{name}:giou"] = loose[chosen]
        shares[f"{name}:side"] = (sides == metrics.side(truth, width))[chosen]
        shares[f"{name}:middle"] = (sides == 0)[chosen]
        shares[f"{name}:none"] = (around < 0)[chosen]
    for field in ("colour", "kind"):
        shares[f"F0:{field}"] = _alike(queries, views, around, field)[of["F0"]]
    beside = torch.tensor([-1 if query.beside is None else query.beside for query in queries])
    anchor, other = around == beside, around == 2 * beside - meant
    shares["F4:anchor"], shares["F4:turned"] = anchor[of["F4"]], other[of["F4"]]
    shares["F4:far"] = ((around >= 0) & ~(hit | anchor | other))[of["F4"]]
    shares["F2:other"] = ((around >= 0) & ~hit)[of["F2"]]
    shares["verdict:true"] = (sides == said)[of["F1"]]
    shares["verdict:false"] = ((sides != said) & (sides != 0))[of["F2"]]
    shares["confidence"] = scores[of["F1"]] > scores[of["F2"]]
    shares["mirror"] = metrics.flips(boxes[first], boxes[turned], width)
    shares["mirror:error"] = metrics.mirror_error(boxes[first], boxes[turned], width).clamp_max(1)  # off the picture
    for column, names in BESIDE.items():
        shares[column] = hit[torch.cat([of[name] for name in names])]
    return {name: share.double().mean() for name, share in shares.items()}


def _alike(queries: Sequence[Query], views: Sequence[View], around: Int[Tensor, " q"], field: str) -> Tensor:
    """Whether the thing that each box is around has the colour, or is of the kind, of the one that is meant."""
    things = [views[query.picture].things for query in queries]
    return torch.tensor(
        [
            found >= 0 and getattr(one[found], field) == getattr(one[query.meant], field)
            for one, query, found in zip(things, queries, around.tolist(), strict=True)
        ]
    )


def _of(queries: Sequence[Query], family: str) -> Tensor:
    """Where a family's queries stand; the mirror image's are a measure of their own."""
    found = [index for index, query in enumerate(queries) if query.family == family and query.picture != MIRROR]
    return torch.tensor(found)


@pytest.mark.audit("grounding")
def test_grounding_finds_the_side(ask: Ask) -> None:
    ask_about(ask, SIDES, "sides")


@pytest.mark.audit("grounding")
def test_grounding_finds_what_is_beside(ask: Ask) -> None:
    ask_about(ask, RELATIONS, "relations")


@pytest.mark.audit("grounding")
def test_grounding_finds_a_colour_and_a_kind(ask: Ask) -> None:
    ask_about(ask, FINDS, "finds")


def ask_about(ask: Ask, question: Question, column: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    if ask.phrases is not None:
        grounding_photographs.ask_about(ask, question, column, phrases=ask.phrases, version=VERSION)
        return

    def premise(_images: Images) -> Mapping[str, GroundingScenes]:
        if ask.scenes is None:
            raise Undefined(f"there are no pictures with phrases to ask {ask.subject.name} about")
        return {"scenes": ask.scenes}

    ask(
        question,
        measure=grounding,
        column=column,
        show=partial(show, column=column, families=BESIDE[column]),
        version=VERSION,
        premise=premise,
    )
