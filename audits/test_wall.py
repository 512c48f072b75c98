"""Is the map zero where the model cannot see?

## What it measures

A wall is put right behind the target layer: the layer's features are recorded, then the lower 9/14 of their rows are
zeroed before the rest of the network sees them. What lies behind the wall cannot matter, and that is certified first:
noise in the hidden rows, and in the pixels that reach only them, moves the logits by not one bit, and the gradient
there is exactly zero. The leakage is the share of the map's norm in those pixel rows; where the receptive field leaves
no dead pixel (ResNets, attention) it is the share in the hidden feature rows.

## Why it matters

A method that highlights what the model provably ignores will highlight other things that the model ignores.

## Known limits

It judges the method on this network, not the network: methods that weigh whole channels (Grad-CAM, Grad-CAM++,
XGrad-CAM, Eigen-CAM) leak by construction, HiResCAM and Layer-CAM cannot. With the wall up the model is crippled, and
its predictions mean little. HiResCAM also blanks rows whose pixels do matter (over-blanking), which is not held against
it. A map in pixels (gradients, RISE) is judged only where some pixels are dead, and CAM, whose head must treat all
places alike, nowhere: there is nothing to judge, which is an ERROR.

## Caught by

global_weights_gradcam, global_weights_gradcam_plus_plus, global_weights_xgradcam, edge_map, uniform_map,
label_blind_map

## References

Taimeskhanov, Sicre and Garreau 2024 (arXiv:2404.01964).
"""

from collections.abc import Iterable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from audits.ask import Ask
from audits.question import Question
from camcore.cam import CamMethod
from camcore.engine import WORST, Row, column_of
from camcore.errors import Undefined
from camcore.images import Batch
from camcore.maps import is_empty, rectify, unit_range, upsample
from camcore.metrics import leakage
from camcore.record import record
from camcore.subject import Classifier
from camcore.verdict import Evidence, Overlay, Table
from camcore.wall import Wall, build_wall

VERSION = "2"

LEAKAGE = Question(
    name="wall/leakage",
    sentence="{cam} marks nothing behind a wall that the model cannot see through",
    kind="INV",
    measure="share of the map's norm behind the wall",
    unit="of the L2 norm",
    bounds=(0.0, 1.0),
    direction="within",
)
QUESTIONS = (LEAKAGE,)


def wall_leakage(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], wall: Wall) -> dict[str, Tensor]:
    """The leakage of every method from one recording behind the wall.

    Returns:
        `<cam>:leakage`, judged where the wall says; `<cam>:cells`, on the feature rows whatever the pixels;
        `<cam>:paper`, as in the paper's notebook (scaled to [0, 1] before and after upsampling, which hides
        the least salient cell);
        `<cam>:blank`, the share of the map that is exactly zero. NaN for an empty map.
    """
    rec = record(subject, batch.images, behind=wall.hide, chunk=batch.chunk)
    size = batch.images.shape[2:]
    columns = {}
    for name, cam in cams.items():
        try:
            saliency = rectify(cam(rec))
        except Undefined:  # behind the wall, that is: what the model lacks altogether was found out before
            continue
        pixels = upsample(saliency, size, rec.placement)
        paper = unit_range(upsample(unit_range(saliency), size))
        of_cells = saliency.shape[1:] == rec.activations.shape[2:]
        cells = saliency if of_cells else adaptive_avg_pool2d(saliency, rec.activations.shape[2:])
        columns[f"{name}:cells"] = leakage(cells, wall.kept_rows)
        if wall.dead_from is not None:
            columns[f"{name}:leakage"] = leakage(pixels, wall.judged_from)
        else:  # a pixel behind hidden cells matters through cells that are seen: a map in pixels cannot be judged
            columns[f"{name}:leakage"] = columns[f"{name}:cells"] * (1 if of_cells else torch.nan)
        columns[f"{name}:paper"] = leakage(paper, wall.drawn_from)
        columns[f"{name}:blank"] = (cells == 0).float().mean((1, 2)).masked_fill(is_empty(cells), torch.nan)
    return columns


def show(
    subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, wall: Wall
) -> Iterable[Evidence]:
    """The maps behind the wall, and the leakage beside the line of a constant map."""
    rec = record(subject, batch.images, behind=wall.hide, chunk=batch.chunk)
    saliency = unit_range(upsample(rectify(cam(rec)), batch.images.shape[2:], rec.placement))
    for index, image_id in enumerate(batch.ids):
        yield Overlay(
            unit=image_id,
            role="worst" if index < WORST else "typical",
            value=rows[image_id].get(f"{name}:leakage", torch.nan),
            caption=f"with the wall up: {subject.classes[int(rec.target[index])]}",
            image=batch.images[index],
            saliency=saliency[index],
            dead_from_row=wall.drawn_from,
        )
    seen = column_of(rows, f"{name}:leakage")
    finite = seen[seen.isfinite()]
    mean = {key: column_of(rows, f"{name}:{key}").nanmean() for key in ("cells", "paper", "blank")}
    where = "feature rows (no pixel is dead)" if wall.dead_from is None else f"pixel rows from {wall.judged_from}"
    yield Table(
        title=f"Leakage of {name}, judged on {where}; the wall hides feature rows {wall.kept_rows} to {wall.rows - 1}",
        columns=("quantity", "value"),
        rows=(
            ("leakage, mean", _rounded(finite.mean())),
            ("leakage, standard deviation", _rounded(finite.std() if len(finite) > 1 else None)),
            ("leakage, largest", _rounded(finite.max() if len(finite) else None)),
            ("maps with exactly nothing behind the wall", f"{int((finite == 0).sum())} of {len(seen)}"),
            ("empty maps", f"{len(seen) - len(finite)} of {len(seen)}"),
            ("line of a constant map", _rounded(wall.constant_line)),
            ("leakage in the hidden feature rows, mean", _rounded(mean["cells"])),
            ("leakage as in the paper's notebook, mean", _rounded(mean["paper"])),
            (
                "share of the map that is exactly zero, mean (the wall hides "
                f"{1 - wall.kept_rows / wall.rows:.2f} of it)",
                _rounded(mean["blank"]),
            ),
        ),
    )


def _rounded(value: Tensor | float | None) -> float:
    return torch.nan if value is None else round(float(value), 4)


@pytest.mark.audit("wall")
def test_nothing_leaks_through_the_wall(ask: Ask, cam: str) -> None:
    ask(
        LEAKAGE,
        cam,
        premise=lambda images: {"wall": build_wall(ask.subject, images, seed=ask.terms.seed)},
        measure=partial(wall_leakage, cams=ask.defined),
        column=f"{cam}:leakage",
        show=partial(show, name=cam, cam=ask.cams[cam]),
        version=VERSION,
    )
