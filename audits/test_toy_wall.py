"""Does the method see through a wall, on a network that is all arithmetic?

## What it measures

The method, not the audited model, whose weights are ignored. The simple network for which the wall theorem is proved
(one convolution of 256 filters, ReLU, a 2 x 2 maximum, one linear layer, all weights N(0, 1)) is drawn anew for every
image, with zeros where the linear layer would read the lower half of the 28 x 28 map. It is shown the run's own images,
made grey and 29 pixels a side. That the lower 14 pixel rows cannot matter is certified for every network: noise there
moves the logits by not one bit, and the gradient there is exactly zero. The leakage is the share of the map's norm in
those rows.

## Why it matters

It needs no weights and no data of its own, and the theorem says what must happen: Grad-CAM marks rows that the network
is blind to, on average by at least a known amount (docs/wall_theorem.md). A method that leaks here leaks by what it is.

## Known limits

The verdict on a method is about the same whatever model is audited. The network is not trained: maps follow brightness,
and its scores are so far apart that softmax is 0 or 1. Half of the map is hidden, more than in a trained network with a
wall. Nothing is held against a method for blanking rows that do matter. Methods that this network has no map of (CAM,
attention) do not apply.

## Caught by

global_weights_gradcam, global_weights_gradcam_plus_plus, global_weights_xgradcam, edge_map, uniform_map,
label_blind_map, smeared_map

## References

Taimeskhanov et al. 2024 (arXiv:2404.01964, theorem 1, and the experiment on MNIST in the authors' notebook).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from audits.roles import undefined_methods
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import Row, column_of, rank
from camcore.images import Batch
from camcore.maps import rectify, unit_range, upsample
from camcore.metrics import leakage
from camcore.recording import Recording, record
from camcore.seeds import derive
from camcore.subject import Classifier
from camcore.toy_wall import SIDE, TOY_WALL, certify_toy, toy_images, toy_subject
from camcore.verdict import Evidence, Overlay, Table

VERSION = "1"

LEAKAGE = Question(
    name="toy_wall/leakage",
    sentence="{cam} marks nothing behind the wall of an untrained network that is blind to its lower half",
    kind="INV",
    measure="share of the map's norm behind the wall of the toy network",
    unit="of the L2 norm",
    bounds=(0.0, 1.0),
    direction="within",
)
QUESTIONS = (LEAKAGE,)


def toy_leakage(_subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod]) -> dict[str, Tensor]:
    """The leakage of every method on one certified network per image; the audited subject is not asked.

    Returns:
        `<cam>:leakage`, in pixel rows; `<cam>:blank`, the share of the map that is exactly zero; `<cam>:degenerate`. An
        empty map has NaN for leakage; a constant one leaks as much as its line.
    """
    columns: dict[str, list[Tensor]] = {}
    for rec in recordings(batch):
        for name, cam in cams.items():
            saliency = rectify(cam(rec))
            pixels = upsample(saliency, (SIDE, SIDE), rec.placement)
            code = degeneracy(rec, saliency)
            columns.setdefault(f"{name}:leakage", []).append(leakage(pixels, TOY_WALL.judged_from))
            columns.setdefault(f"{name}:blank", []).append((saliency == 0).double().mean((1, 2)))
            columns.setdefault(f"{name}:degenerate", []).append(code.double())
    return {name: torch.cat(values) for name, values in columns.items()}


def recordings(batch: Batch) -> Iterable[Recording]:
    """Each image on a network of its own, drawn from the run's seed and the image's id, and certified first."""
    for image_id, image in zip(batch.ids, toy_images(batch.images).split(1), strict=True):
        toy = toy_subject(derive(batch.seed, "toy wall", image_id))
        certify_toy(toy, image, seed=derive(batch.seed, "toy wall noise", image_id))
        yield record(toy, image, chunk=batch.chunk)


def show(
    _subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod
) -> Iterable[Evidence]:
    """The maps on the shrunk images, and the leakage beside the line of a constant map."""
    for index, rec in enumerate(recordings(batch)):
        yield Overlay(
            unit=batch.ids[index],
            role=rank(index, len(batch)),
            value=rows[batch.ids[index]].get(f"{name}:leakage", torch.nan),
            caption="an untrained network that cannot see below the line",
            image=rec.images[0],
            saliency=unit_range(upsample(rectify(cam(rec)), (SIDE, SIDE), rec.placement))[0],
            dead_from_row=TOY_WALL.drawn_from,
        )
    seen = column_of(rows, f"{name}:leakage")
    finite = seen[seen.isfinite()]
    blank = column_of(rows, f"{name}:blank").nanmean()
    yield Table(
        title=f"Leakage of {name} on untrained networks, judged on pixel rows {TOY_WALL.judged_from} to {SIDE - 1}",
        columns=("quantity", "value"),
        rows=(
            ("leakage, mean", _rounded(finite.mean())),
            ("leakage, standard deviation", _rounded(finite.std() if len(finite) > 1 else None)),
            ("leakage, largest", _rounded(finite.max() if len(finite) else None)),
            ("maps with exactly nothing behind the wall", f"{int((finite == 0).sum())} of {len(seen)}"),
            ("empty maps", f"{len(seen) - len(finite)} of {len(seen)}"),
            ("line of a constant map", _rounded(TOY_WALL.constant_line)),
            ("share of the map that is exactly zero, mean (the wall hides 0.50 of it)", _rounded(blank)),
        ),
    )


def _rounded(value: Tensor | float | None) -> float:
    return torch.nan if value is None else round(float(value), 4)


@pytest.mark.audit("toy_wall")
def test_nothing_leaks_through_the_wall_of_the_toy(ask: Ask, cam: str) -> None:
    undefined = undefined_methods(toy_subject(0), ask.cams)
    asked = replace(ask, undefined={**ask.undefined, **undefined})
    asked(
        LEAKAGE,
        cam,
        measure=partial(toy_leakage, cams=asked.defined),
        column=f"{cam}:leakage",
        show=partial(show, name=cam, cam=ask.cams[cam]),
        version=VERSION,
    )
