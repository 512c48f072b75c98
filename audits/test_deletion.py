"""Does the map point at what the model uses?

## What it measures

The pixels that the map marks are replaced by a blurred copy of the image, the most salient first, and the probability
of the predicted class is followed. The same number of pixels is removed in the order of maps that know nothing of the
model: a random one of the same resolution (of a map in pixels, the same map moved about at random), the image's own
edges, a blob in the middle. A claim is about the difference, image by image: at 20 % of the pixels against random
(beats_random), the edges (beats_edges) and the middle (beats_centre), and at 10 % against random (sharp_drop).
inpainted is beats_random with removed pixels filled in from their neighbours; how it comes out with mean colour, black
and noise stands beside as evidence, and so do the areas under the deletion and insertion curves, in probability and in
logit.

## Why it matters

A map that does no better than chance explains nothing, however plausible it looks. Edges are the harder line: blurring
removes most where there are edges, so that an edge detector, which never saw the model, beats random deletion.

## Known limits

Patches of one pixel: the curve is pixel flipping (Bach et al. 2015), in the steps of the table. Insertion is evidence
and no claim. Deletion leaves the data distribution; blurring rather than blackening keeps closer to it, and removes
less. Black and noise can erase the class in whatever order they come, and then they tell no map from another. Deletion
says nothing about what is shown, only about where. The map is ranked as it is shown: negative saliency counts as none,
and ties fall in random order. A model whose evidence is spread over the picture loses little wherever one deletes.
Where the probability stays at 1 to rounding whatever is deleted, there is nothing to judge, and that is said.

## Caught by

label_blind_map, uniform_map, edge_map, random_map, inverted_map, centre_map, broken_map

## References

Petsiuk et al. 2018 (RISE, arXiv:1806.07421, deletion and insertion); Samek et al. 2017 (arXiv:1509.06321, perturbation
against a random order); Adebayo et al. 2018 (arXiv:1810.03292) for the edge detector; Rong et al. 2022 (ROAD,
arXiv:2202.00449) for inpainting; Hooker et al. 2019 (ROAR, arXiv:1806.10758) for the objection.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from math import isfinite

import pytest
import torch

from audits.ask import Ask
from audits.deletion_curves import ELSE, ENDS, INPAINTING, JUDGED, KINDS, MOVED, SHARP, deletion
from audits.question import Question
from camcore.cam import CamMethod
from camcore.engine import Row, column_of, rank
from camcore.images import Batch
from camcore.maps import rectify, unit_range, upsample
from camcore.recording import record
from camcore.statistics import confidence_sequence
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

VERSION = "3"

CHANCE = {  # maps that know nothing of the model, and what deleting in their order is called
    "random": "at random",
    "edges": "the edges",
    "centre": "the middle",
}
BEATS_RANDOM, BEATS_EDGES, BEATS_CENTRE = (
    Question(
        name=f"deletion/beats_{other}",
        sentence=f"deleting the 20 % of the pixels that {{cam}} marks costs more probability than deleting {what}",
        kind="DIR",
        measure=f"probability left by deleting {what} minus probability left by the map's, at 20 % of the pixels",
        unit="class probability",
        bounds=(-1.0, 1.0),
    )
    for other, what in CHANCE.items()
)
SHARP_DROP = Question(
    name="deletion/sharp_drop",
    sentence="the class probability falls sharply with the first 10 % of the pixels that {cam} marks",
    kind="DIR",
    measure="probability left by random deletion minus probability left by the map's, at 10 % of the pixels",
    unit="class probability",
    bounds=(-1.0, 1.0),
)
INPAINTED = Question(
    name="deletion/inpainted",
    sentence="the 20 % of the pixels that {cam} marks matter more than random ones when inpainted, not blurred",
    kind="DIR",
    measure="probability left by random deletion minus the map's, at 20 % of the pixels, removed pixels inpainted",
    unit="class probability",
    bounds=(-1.0, 1.0),
)
QUESTIONS = (BEATS_RANDOM, BEATS_EDGES, BEATS_CENTRE, SHARP_DROP, INPAINTED)


def show(
    subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, column: str
) -> Iterable[Evidence]:
    """The maps of the worst and the typical images, the mean curves, the areas, and the other baselines."""
    rec = record(subject, batch.images, chunk=batch.chunk)
    saliency = unit_range(upsample(rectify(cam(rec)), batch.images.shape[2:], rec.placement))
    for index, image_id in enumerate(batch.ids):
        predicted = int(rec.target[index])
        yield Overlay(
            unit=image_id,
            role=rank(index, len(batch)),
            value=rows[image_id].get(column, torch.nan),
            caption=f"{subject.classes[predicted]} ({rec.logits[index].softmax(0)[predicted]:.2f})",
            image=batch.images[index],
            saliency=saliency[index],
        )
    in_pixels = all(f"{name} {MOVED}:{KINDS[0]}" in row for row in rows.values())
    others = [f"{name} {MOVED}" if in_pixels and key == "random" else key for key in CHANCE]
    for kind in KINDS[:3]:
        what, _, logit = kind.partition(" ")
        yield Curve(
            title=f"{what.capitalize()} of the pixels that {name} marks{', in logits' if logit else ''}",
            x_label=f"share of the pixels {'removed' if what == 'deletion' else 'shown'}",
            y_label=f"class {logit or 'probability'} (mean over images)",
            x=ENDS,
            series={key: tuple(_mean(rows, f"{key}:{kind}:{share:g}") for share in ENDS) for key in (*others, name)},
        )
    yield Table(
        title="Area under the curve, mean over images; in brackets how much better the map is, image by image, with a "
        "95 % interval",
        columns=(
            "map",
            "deletion (lower is better)",
            "insertion (higher is better)",
            *(f"{kind}" for kind in KINDS[2:]),
        ),
        rows=tuple((key, *(_area(rows, key, name, kind) for kind in KINDS)) for key in (name, *others)),
    )
    yield Table(
        title=f"What deleting what {name} marks costs more, by how much goes and what a removed pixel becomes (class "
        "probability, mean and 95 % interval)",
        columns=("deleted", *(f"than {what}" for what in CHANCE.values())),
        rows=tuple(
            (words, *(_signed(rows, f"{name}:over_{other}:{key}") for other in CHANCE))
            for words, key in (
                (f"{SHARP:.0%}, blurred (judged beside random)", f"{SHARP:g}"),
                (f"{JUDGED:.0%}, blurred (judged)", f"{JUDGED:g}"),
                *((f"{JUDGED:.0%}, {key}", key) for key in ELSE),
            )
        ),
    )


def _mean(rows: Mapping[str, Row], key: str) -> float:
    return float(column_of(rows, key).nanmean())


def _area(rows: Mapping[str, Row], key: str, name: str, kind: str) -> str:
    area = f"{_mean(rows, f'{key}:{kind}'):.3f}"
    if key == name:
        return area
    sign = 1 if kind.startswith("insertion") else -1
    better = sign * (column_of(rows, f"{name}:{kind}") - column_of(rows, f"{key}:{kind}"))
    return f"{area} ({better.nanmean():+.2f})" if kind.endswith("logit") else f"{area} ({_interval(better.tolist())})"


def _signed(rows: Mapping[str, Row], key: str) -> str:
    return _interval(column_of(rows, key).tolist())


def _interval(values: list[float]) -> str:
    """Mean and 95 % interval of differences of probabilities: a reader sees whether 0 is inside."""
    seen = [value for value in values if isfinite(value)]
    estimate = confidence_sequence(seen, level=0.95, bounds=(-1.0, 1.0))
    return f"{estimate.point:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]" if seen else "nothing to judge"


@pytest.mark.audit("deletion")
def test_deletion_beats_random(ask: Ask, cam: str) -> None:
    ask_about(ask, BEATS_RANDOM, cam, column=f"{cam}:over_random:{JUDGED:g}")


@pytest.mark.audit("deletion")
def test_deletion_beats_edges(ask: Ask, cam: str) -> None:
    ask_about(ask, BEATS_EDGES, cam, column=f"{cam}:over_edges:{JUDGED:g}")


@pytest.mark.audit("deletion")
def test_deletion_beats_centre(ask: Ask, cam: str) -> None:
    ask_about(ask, BEATS_CENTRE, cam, column=f"{cam}:over_centre:{JUDGED:g}")


@pytest.mark.audit("deletion")
def test_deletion_drops_sharply(ask: Ask, cam: str) -> None:
    ask_about(ask, SHARP_DROP, cam, column=f"{cam}:over_random:{SHARP:g}")


@pytest.mark.audit("deletion")
def test_deletion_beats_random_when_inpainted(ask: Ask, cam: str) -> None:
    ask_about(ask, INPAINTED, cam, column=f"{cam}:over_random:{INPAINTING}")


def ask_about(ask: Ask, question: Question, cam: str, *, column: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    ask(
        question,
        cam,
        measure=partial(deletion, cams=ask.defined, draws=ask.policy.chance_draws),
        column=column,
        show=partial(show, name=cam, cam=ask.cams[cam], column=column),
        version=VERSION,
        apart="maps in pixels beside themselves, moved",  # what was measured before was beside others
    )
