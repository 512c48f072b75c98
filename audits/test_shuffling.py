"""Does the model care where the parts of a picture are?

## What it measures

The picture is cut into n x n patches, which are dealt out anew so that none stays where it was (n = 2, 4, 7, 8, 14;
several times, from seeds of the image). Shuffling costs layout, and it makes edges and cuts through what is local; so
the 4 x 4 patches are also shown with their sides fading into the picture's mean colour, in place and shuffled: two
pictures with the same local features, whose only difference is where they are. structure is what the probability of the
true class loses by shuffling, plain or faded, whichever is less, picture by picture: the plain loss is what shuffling
costs at all, the faded one what of it is no new edge. no_rise is by how much a shuffled picture is surer of the class
that was predicted from the whole one, where it is surer. map_follows lays the patches of the shuffled picture's map
back to where they came from, and compares it with the map of the whole picture (Spearman's rank correlation). Only 4 x
4 is judged; what the other grids do stands beside, as means and picture by picture, and with it the picture with the
cuts drawn in, lines of one pixel, and nothing moved.

## Why it matters

A model that gives a dog in sixteen pieces the same score counts textures: it knows neither where the legs belong nor
that there should be a body between them, and nothing in its score will say so when the parts are wrong. A model that is
surer of the pieces than of the dog takes cuts for evidence.

## Known limits

Layout matters where the classes differ by it; a task that textures solve (and ImageNet is nearly one) does not make a
model learn it, so that structure warns and does not gate. A FAIL of structure is an equivalence: the whole interval
lies below the margin, which is more than that no loss was found. Patches hold parts: at 2 x 2 a whole head may survive,
at 14 x 14 hardly a texture does, and what is judged is in between: a model that is surer of 7 x 7 pieces alone is seen
in the curve, and not judged. no_rise is a mean: a few pictures that rise much among many that do not pass it. An image
that the model had wrong before has little to lose, nor has one that it does not recognise with its sides faded: a FAIL
may be a model that is lost with faded pictures. A PASS shows that more than what lies within a patch is read, not how
far that reaches: a model whose view is wider than a patch may read no further than the next one. Across a cut two
patches show faintly through, so that local features about as wide as a patch lose a little too (the control
smoothed_bag, of 22 pixels in patches of 24: 0.02). A line drawn is no shuffled edge: fainter where a model smooths
first, and two edges for one where it does not; what is lost beyond the lines is not judged. Where a picture's sides
cannot be divided by n, the left over margin stays where it is.

## Caught by

patch_bag, smoothed_bag, texture_bag, surer_in_pieces, fixed_map

## References

Brendel and Bethge 2019 (BagNets, arXiv:1904.00760); Geirhos et al. 2019 (arXiv:1811.12231); Naseer et al. 2021
(arXiv:2105.10497) for shuffled grids; Zhang and Zhu 2019 (arXiv:1905.09797) for patch shuffling of adversarially
trained networks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from audits.seen import side_by_side
from audits.shares import share_so_far
from camcore import chance
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import Row, column_of
from camcore.images import Batch, Images
from camcore.maps import rectify
from camcore.metrics.invariance import likeness, shuffle_likeness
from camcore.perturbations import cut_lines, dealt, derangements, faded
from camcore.recording import Recording, record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Table

VERSION = "3"
SIZES = (2, 4, 7, 8, 14)  # patches along a side
JUDGED = 4  # that of the observation which the audit grew from
KINDS = {"shuffled": "shuffled", "lines": "cuts drawn, nothing moved"}
FADED = {"faded": "sides faded, nothing moved", "faded_shuffled": "sides faded, shuffled"}  # of the judged grid
SURER = 0.05  # of the probability: a picture that gains more counts as surer in the table

STRUCTURE = Question(
    name="shuffling/structure",
    sentence="the true class loses probability when 4 x 4 patches of the picture change places",
    kind="DIR",
    measure="probability of the true class that shuffling the patches costs, plain or with sides faded, the lesser",
    unit="class probability",
    bounds=(-1.0, 1.0),
)
NO_RISE = Question(
    name="shuffling/no_rise",
    sentence="the model is no surer of a picture in 4 x 4 shuffled pieces than of the whole one",
    kind="INV",
    measure="by how much the predicted class's probability rises when the patches are shuffled, 0 where it falls",
    unit="class probability",
    bounds=(0.0, 1.0),
    direction="within",
)
MAP_FOLLOWS = Question(
    name="shuffling/map_follows",
    sentence="the {cam} map goes where the patches go that it lay on",
    kind="INV",
    measure="Spearman's rank correlation of the map and the map of the shuffled picture, its patches put back",
    unit="rank correlation",
    bounds=(-1.0, 1.0),
)
QUESTIONS = (STRUCTURE, NO_RISE, MAP_FOLLOWS)


class Answers(NamedTuple):
    """What the model says of one version of the images."""

    true: Float[Tensor, " b"]  # probability of the label
    predicted: Float[Tensor, " b"]  # of the class predicted from the whole image
    right: Float[Tensor, " b"]  # 1 where the label has the highest score
    same: Float[Tensor, " b"]  # 1 where the class predicted from the whole image has


def answers(logits: Tensor, labels: Int[Tensor, " b"], predicted: Int[Tensor, " b"]) -> Answers:
    """Read off the scores of all classes."""
    probability, first = logits.softmax(1), logits.argmax(1)
    of = (probability.gather(1, classes[:, None])[:, 0] for classes in (labels, predicted))
    return Answers(*of, (first == labels).double(), (first == predicted).double())


def sizes_of(images: Images) -> list[int]:
    """The grids whose patches have 2 pixels a side at least."""
    return [cells for cells in SIZES if min(images.shape[2:]) >= 2 * cells]


def orders(batch: Batch, cells: int, draws: int) -> Iterator[Int[Tensor, "b patches"]]:
    """Which patch goes where, one draw after the other."""
    for draw in range(draws):
        yield derangements(cells**2, generators=batch.generators(f"shuffling {cells} {draw}"))


def shuffling(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], draws: int) -> dict[str, Tensor]:
    """What the model says of the whole image, of its pieces and of its cuts; and where the maps go.

    Returns:
        `whole:<answer>`, and for every grid `shuffled:<n>:<answer>`, the mean over the draws, and `lines:<n>:<answer>`
        of the first, <answer> being a field of `Answers`; for the judged grid `faded:<n>:<answer>` and
        `faded_shuffled:<n>:<answer>`, likewise. `structure` and `rise`, what is judged. Per CAM method and for "edges"
        `<map>:follows` and, for comparison, `<map>:stays`, the likeness with no patch put back; `<cam>:degenerate`.
    """
    rec = _recorded(subject, batch, batch.images, None) if cams else None
    logits = _logits(subject, batch.images) if rec is None else rec.logits
    first = logits.argmax(1)

    def ask(images: Images) -> Answers:
        return answers(_logits(subject, images), batch.labels, first)

    found = _columns("whole", [answers(logits, batch.labels, first)])
    follows: list[dict[str, Tensor]] = []
    for cells in sizes_of(batch.images):
        shuffled: list[Answers] = []
        drawn = list(orders(batch, cells, draws))
        for draw, order in enumerate(drawn):
            pieces = dealt(batch.images, order, cells)
            if draw == 0:  # evidence, and not judged: one draw shows it
                found |= _columns(f"lines:{cells}", [ask(cut_lines(batch.images, pieces, cells))])
            if rec is not None and cells == JUDGED:
                after = _recorded(subject, batch, pieces, first)
                follows.append(_followed(rec, after, order, cams))
                shuffled.append(answers(after.logits, batch.labels, first))
            else:
                shuffled.append(ask(pieces))
        found |= _columns(f"shuffled:{cells}", shuffled)
        if cells == JUDGED:
            in_place = faded(batch.images, cells)
            found |= _columns(f"faded:{cells}", [ask(in_place)])
            apart = [ask(dealt(in_place, order, cells)) for order in drawn]
            found |= _columns(f"faded_shuffled:{cells}", apart)
            found["structure"] = _lost(found)
            # draw by draw: one in which it falls does not make up for one in which it rises
            rises = [(one.predicted.double() - found["whole:predicted"]).relu() for one in shuffled]
            found["rise"] = torch.stack(rises).mean(0)
    if rec is None:
        return found
    found |= {key: torch.stack([one[key] for one in follows]).mean(0) for key in (follows or [{}])[0]}
    for name, cam in cams.items():
        code = degeneracy(rec, rectify(cam(rec)))
        found |= {
            key: found[key].masked_fill(code != 0, torch.nan)
            for key in (f"{name}:follows", f"{name}:stays")
            if key in found
        }
        found[f"{name}:degenerate"] = code.double()
    return found


def _lost(found: Mapping[str, Tensor]) -> Float[Tensor, " b"]:
    """What the places of the patches were worth: no more than shuffling costs, and no more than it costs without cuts.

    A loss that the faded pictures alone show is one of pictures that are hard to recognise; one that the plain
    pictures alone show may be all cuts, which a bag of local features minds as well.
    """
    plain = found["whole:true"] - found[f"shuffled:{JUDGED}:true"]
    return torch.minimum(plain, found[f"faded:{JUDGED}:true"] - found[f"faded_shuffled:{JUDGED}:true"])


@torch.no_grad()
def _logits(subject: Classifier, images: Images) -> Tensor:
    return subject.logits(images)


def _recorded(subject: Classifier, batch: Batch, images: Images, target: Tensor | None) -> Recording:
    return record(subject, images, target, chunk=batch.chunk)


def _columns(name: str, each: Sequence[Answers]) -> dict[str, Tensor]:
    """The mean of every answer over the draws."""
    means = (torch.stack(values).double().mean(0) for values in zip(*each, strict=True))
    return {f"{name}:{field}": mean for field, mean in zip(Answers._fields, means, strict=True)}


def _followed(
    rec: Recording, after: Recording, order: Int[Tensor, "b patches"], cams: Mapping[str, CamMethod]
) -> dict[str, Tensor]:
    size = (rec.images.shape[2], rec.images.shape[3])
    before = {**{name: rectify(cam(rec)) for name, cam in cams.items()}, "edges": chance.edges(rec)}
    now = {**{name: rectify(cam(after)) for name, cam in cams.items()}, "edges": chance.edges(after)}
    found = {}
    for name in before:
        placement = rec.placement if name in cams else None  # those of the edges lie evenly
        found[f"{name}:follows"] = shuffle_likeness(before[name], now[name], order, JUDGED, size, placement)
        found[f"{name}:stays"] = likeness(before[name], now[name])
    return found


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    cams: Mapping[str, CamMethod],
    column: str,
    name: str | None,
) -> Iterable[Evidence]:
    """Each image whole, in pieces, and both with faded sides, under the map `name` if there is one; curves; table."""
    order = next(orders(batch, JUDGED, 1))
    pieces = dealt(batch.images, order, JUDGED)
    in_place = faded(batch.images, JUDGED)
    versions = {
        "whole": batch.images,
        "in pieces": pieces,
        "sides faded": in_place,
        "faded, in pieces": dealt(in_place, order, JUDGED),
    }
    first = _logits(subject, batch.images).argmax(1)
    cam = cams.get(name or "")
    yield from side_by_side(subject, batch, rows, versions, cam=cam, target=first, column=column)
    sizes = sizes_of(batch.images)
    for field, label in (("true", "probability of the true class"), ("right", "accuracy")):
        whole = _mean(rows, f"whole:{field}")
        yield Curve(
            title=f"{label.capitalize()}, shuffled and with the cuts drawn",
            x_label="patches along a side (1: the whole picture)",
            y_label=f"{label} (mean over images)",
            x=(1, *sizes),
            series={
                text: (whole, *(_mean(rows, f"{kind}:{cells}:{field}") for cells in sizes))
                for kind, text in KINDS.items()
            },
        )
    yield Curve(
        title="Probability of the true class in pieces, picture by picture",
        x_label="patches along a side (1: the whole picture)",
        y_label="probability of the true class (mean over draws)",
        x=(1, *sizes),
        series={
            one: tuple(
                round(rows[one].get(key, torch.nan), 4)
                for key in ("whole:true", *(f"shuffled:{cells}:true" for cells in sizes))
            )
            for one in batch.ids
        },
    )
    yield _table(rows, sizes)
    if name is not None:
        yield Table(
            title=f"Where the map goes when {JUDGED} x {JUDGED} patches change places (rank correlation with the map "
            "of the whole picture, mean over images)",
            columns=("map", "patches put back", "as it is"),
            rows=tuple((one, _mean(rows, f"{one}:follows"), _mean(rows, f"{one}:stays")) for one in (name, "edges")),
        )


def _mean(rows: Mapping[str, Row], key: str) -> float:
    return round(float(column_of(rows, key).nanmean()), 4)


def _table(rows: Mapping[str, Row], sizes: Sequence[int]) -> Table:
    """Whole, cuts and pieces side by side, for every grid; for the judged one with faded sides too."""
    whole = column_of(rows, "whole:predicted")
    lines = [("whole", "", _mean(rows, "whole:true"), _mean(rows, "whole:right"), 1.0, "", 1.0)]
    for cells in sizes:
        for kind, text in (KINDS | FADED if cells == JUDGED else KINDS).items():
            predicted = column_of(rows, f"{kind}:{cells}:predicted")
            lines.append(
                (
                    f"{cells} x {cells}",
                    text,
                    _mean(rows, f"{kind}:{cells}:true"),
                    _mean(rows, f"{kind}:{cells}:right"),
                    _mean(rows, f"{kind}:{cells}:same"),
                    share_so_far(predicted - whole > SURER),
                    round(float((predicted / whole).clamp(max=1).nanmean()), 4),
                )
            )
    return Table(
        title=f"What the model says of the pieces (means over images; surer: by more than {SURER:g}, share with its "
        "95 % interval; texture score: the part of the predicted class's probability that is left, at most 1)",
        columns=("patches", "", "true class", "accuracy", "class stays", "surer", "texture score"),
        rows=tuple(lines),
    )


@pytest.mark.audit("shuffling")
def test_shuffling_costs_the_true_class(ask: Ask) -> None:
    ask_about(ask, STRUCTURE, "structure")


@pytest.mark.audit("shuffling")
def test_shuffling_makes_no_picture_surer(ask: Ask) -> None:
    ask_about(ask, NO_RISE, "rise")


@pytest.mark.audit("shuffling")
def test_shuffling_moves_the_map_with_the_patches(ask: Ask, cam: str) -> None:
    ask_about(ask, MAP_FOLLOWS, f"{cam}:follows", cam)


def ask_about(ask: Ask, question: Question, column: str, cam: str = "") -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    cams = ask.defined
    ask(
        question,
        cam,
        measure=partial(shuffling, cams=cams, draws=ask.policy.chance_draws),
        column=column,
        # claims about the model are shown with the first of the chosen maps
        show=partial(show, cams=cams, column=column, name=cam or next(iter(cams), None)),
        version=VERSION,
    )
