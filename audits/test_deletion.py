"""Does the map point at what the model uses?

## What it measures

The pixels that the map marks are replaced by a blurred copy of the image, the most salient first, and the probability
of the predicted class is followed. The same number of pixels is removed in the order of a random map of the same
resolution, and in the order of the image's own edges, on the same image. A claim is about the difference, image by
image: at 20 % of the pixels against random (beats_random) and against the edges (beats_edges), and at 10 % against
random (sharp_drop). The areas under the deletion and insertion curves stand beside as evidence.

## Why it matters

A map that does no better than chance explains nothing, however plausible it looks. Edges are the harder line: blurring
removes most where there are edges, so that an edge detector, which never saw the model, beats random deletion.

## Known limits

Deletion leaves the data distribution; blurring rather than blackening keeps closer to it, and removes less. It says
nothing about what is shown, only about where. The map is ranked as it is shown: negative saliency counts as none, and
ties fall in random order. A model whose evidence is spread over the picture loses little wherever one deletes.

## Caught by

label_blind_map, uniform_map, edge_map

## References

Petsiuk et al. 2018 (RISE, arXiv:1806.07421, deletion and insertion); Samek et al. 2017 (arXiv:1509.06321, perturbation
against a random order); Adebayo et al. 2018 (arXiv:1810.03292) for the edge detector; Hooker et al. 2019 (ROAR,
arXiv:1806.10758) for the objection.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from camcore import chance
from camcore.cam import CamMethod
from camcore.engine import WORST, Row, column_of
from camcore.grid import Placement
from camcore.images import Batch
from camcore.maps import is_constant, is_empty, rectify, unit_range, upsample
from camcore.metrics import area_under, deletion_curve, insertion_curve
from camcore.perturbations import blur, rank_pixels
from camcore.record import Recording, record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

VERSION = "2"
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)  # of the pixels; the intact and the fully blurred image are the ends of every curve
CURVES = {"deletion": deletion_curve, "insertion": insertion_curve}

BEATS_RANDOM = Question(
    name="deletion/beats_random",
    sentence="deleting the 20 % of the pixels that {cam} marks costs more class probability than deleting at random",
    kind="DIR",
    measure="probability left by random deletion minus probability left by the map's, at 20 % of the pixels",
    unit="class probability",
    bounds=(-1.0, 1.0),
)
BEATS_EDGES = Question(
    name="deletion/beats_edges",
    sentence="deleting the 20 % of the pixels that {cam} marks costs more class probability than deleting the edges",
    kind="DIR",
    measure="probability left by deleting edges minus probability left by the map's deletion, at 20 % of the pixels",
    unit="class probability",
    bounds=(-1.0, 1.0),
)
SHARP_DROP = Question(
    name="deletion/sharp_drop",
    sentence="the class probability falls sharply with the first 10 % of the pixels that {cam} marks",
    kind="DIR",
    measure="probability left by random deletion minus probability left by the map's, at 10 % of the pixels",
    unit="class probability",
    bounds=(-1.0, 1.0),
)
QUESTIONS = (BEATS_RANDOM, BEATS_EDGES, SHARP_DROP)
CHANCE = ("random", "edges")  # maps that know nothing of the model


def deletion(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], draws: int) -> dict[str, Tensor]:
    """Deletion and insertion curves of every method and of chance, and the differences between them.

    One recording serves all methods, and the random maps are drawn once.

    Returns:
        `<map>:deletion:<share>` and `<map>:insertion:<share>` (probabilities; <map> is a CAM, "random" or "edges"),
        `<cam>:over_<chance>:<share>`, and the areas `<map>:deletion` and `<map>:insertion`. NaN where a map
        ranks nothing.
    """
    rec = record(subject, batch.images, chunk=batch.chunk)
    baseline = blur(batch.images)
    intact = rec.logits.softmax(1).gather(1, rec.target[:, None])
    with torch.no_grad():
        empty = subject.logits(baseline).softmax(1).gather(1, rec.target[:, None])

    def curves(saliency: Tensor, purpose: str, placement: Placement | None = None) -> dict[str, Tensor]:
        rank = rank_pixels(
            upsample(saliency, batch.images.shape[2:], placement),
            generators=batch.generators(f"deletion ties {purpose}"),
        )
        ask = partial(_probabilities, subject, batch, rec, rank, baseline)
        return {
            "deletion": torch.cat([intact, ask(deletion_curve), empty], 1),
            "insertion": torch.cat([empty, ask(insertion_curve), intact], 1),
        }

    found: dict[str, dict[str, Tensor]] = {}
    for name, cam in cams.items():
        saliency = rectify(cam(rec))
        nothing = is_empty(saliency) | is_constant(saliency)
        found[name] = {
            kind: curve.masked_fill(nothing[:, None], torch.nan)
            for kind, curve in curves(saliency, "", rec.placement).items()
        }
    drawn = []
    for draw in range(draws):
        maps = chance.random(rec, generators=batch.generators(f"deletion chance {draw}"))
        drawn.append(curves(maps, str(draw)))
    found["random"] = {kind: torch.stack([curve[kind] for curve in drawn]).mean(0) for kind in CURVES}
    found["edges"] = curves(chance.edges(rec), "edges")
    return _columns(found)


def _probabilities(
    subject: Classifier, batch: Batch, rec: Recording, rank: Tensor, baseline: Tensor, curve: Callable[..., Tensor]
) -> Tensor:
    return curve(subject, batch.images, rec.target, rank, baseline=baseline, fractions=SHARES, chunk=batch.chunk)


def _columns(found: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    columns = {}
    for name, curves in found.items():
        for kind, curve in curves.items():
            columns[f"{name}:{kind}"] = area_under(curve, (0, *SHARES, 1))
            for index, share in enumerate((0, *SHARES, 1)):
                columns[f"{name}:{kind}:{share:g}"] = curve[:, index]
    for name, other, share in product(found, CHANCE, SHARES):
        if name not in CHANCE:
            key = f"deletion:{share:g}"
            columns[f"{name}:over_{other}:{share:g}"] = columns[f"{other}:{key}"] - columns[f"{name}:{key}"]
    return columns


def show(
    subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, column: str
) -> Iterable[Evidence]:
    """The maps of the worst and the typical images, the mean curves, the areas under them."""
    rec = record(subject, batch.images, chunk=batch.chunk)
    saliency = unit_range(upsample(rectify(cam(rec)), batch.images.shape[2:], rec.placement))
    for index, image_id in enumerate(batch.ids):
        value = rows[image_id].get(column, torch.nan)
        predicted = int(rec.target[index])
        yield Overlay(
            unit=image_id,
            role="worst" if index < WORST else "typical",
            value=value,
            caption=f"{subject.classes[predicted]} ({rec.logits[index].softmax(0)[predicted]:.2f})",
            image=batch.images[index],
            saliency=saliency[index],
        )

    def mean(key: str) -> float:
        return float(column_of(rows, key).nanmean())

    for kind in CURVES:
        yield Curve(
            title=f"{kind.capitalize()} of the pixels that {name} marks",
            x_label=f"share of the pixels {'removed' if kind == 'deletion' else 'shown'}",
            y_label="class probability (mean over images)",
            x=(0, *SHARES, 1),
            series={
                key: tuple(mean(f"{key}:{kind}:{share:g}") for share in (0, *SHARES, 1)) for key in (*CHANCE, name)
            },
        )
    yield Table(
        title="Area under the curve (mean over images)",
        columns=("map", "deletion (lower is better)", "insertion (higher is better)"),
        rows=tuple((key, *(round(mean(f"{key}:{kind}"), 4) for kind in CURVES)) for key in (name, *CHANCE)),
    )


@pytest.mark.audit("deletion")
def test_deletion_beats_random(ask: Ask, cam: str) -> None:
    ask_about(ask, BEATS_RANDOM, cam, column=f"{cam}:over_random:0.2")


@pytest.mark.audit("deletion")
def test_deletion_beats_edges(ask: Ask, cam: str) -> None:
    ask_about(ask, BEATS_EDGES, cam, column=f"{cam}:over_edges:0.2")


@pytest.mark.audit("deletion")
def test_deletion_drops_sharply(ask: Ask, cam: str) -> None:
    ask_about(ask, SHARP_DROP, cam, column=f"{cam}:over_random:0.1")


def ask_about(ask: Ask, question: Question, cam: str, *, column: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    ask(
        question,
        cam,
        measure=partial(deletion, cams=ask.defined, draws=ask.policy.chance_draws),
        column=column,
        show=partial(show, name=cam, cam=ask.cams[cam], column=column),
        version=VERSION,
    )
