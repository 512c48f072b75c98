"""Is the map zero where the model cannot see?

## What it measures

Three walls, each certified before anything is judged behind it: noise in what it hides, and in the pixels that reach
nothing else, moves the logits by not one bit, and the gradient there is exactly zero. (a) wall/leakage: right behind
the target layer the lower 9/14 of the feature rows are zeroed before the rest of the network sees them. The leakage is
the share of the map's norm in the dead pixel rows; where the receptive field leaves no dead pixel (ResNets, attention)
it is the share in the hidden feature rows. (b) wall/convolution: the same band is zeroed at an earlier layer, the last
one with a larger map that everything passes. (c) wall/input: the lower 9/14 of the picture are covered with grey.
Behind (b) and (c) the network goes on computing, so what is judged there is how much of the map changes with the
picture: the norm of its difference from the map of an empty picture, behind the same wall and for the same class, as a
share of the map's norm. It is judged in the cells that see nothing before the wall, or if there are none, in those
centred on dead pixels.

## Why it matters

A method that highlights what the model provably ignores will highlight other things that the model ignores.

## Known limits

It judges the method on this network, not the network: methods that weigh whole channels (Grad-CAM, Grad-CAM++,
XGrad-CAM, Eigen-CAM) leak at (a) by construction, HiResCAM and Layer-CAM cannot. With a wall up the model is crippled,
and its predictions mean little. HiResCAM also blanks rows whose pixels do matter (over-blanking), which is reported and
not held against it. A map in pixels (gradients, RISE) is judged at (a) only where some pixels are dead, and CAM, whose
head must treat all places alike, nowhere: there is nothing to judge, which is an ERROR. At (b) and (c) a map may mark
constant features that carry constant weight: a contribution without information, reported beside. Where every cell sees
past the wall (ResNets, transformers), what (c) finds is the network's doing as much as the method's. (b) does not apply
to a network without such a layer.

## Caught by

global_weights_gradcam, global_weights_gradcam_plus_plus, global_weights_xgradcam, edge_map, uniform_map,
label_blind_map, upside_down_map, wall_with_a_hole

## References

Taimeskhanov, Sicre and Garreau 2024 (arXiv:2404.01964). The walls' numbers, method by method: docs/walls.md.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from audits.ask import Ask
from audits.question import Question
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import Row, column_of, rank
from camcore.errors import Undefined
from camcore.images import Batch, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.metrics import leakage, over_blanking, variation, zero_share
from camcore.recording import Recording, ZeroGradient, record
from camcore.subject import Classifier
from camcore.verdict import Evidence, Overlay, Table
from camcore.wall import Wall, build_wall
from camcore.wall_cover import Cover, cover_input, cover_layer
from camcore.wall_zone import Zone

VERSION = "3"

LEAKAGE = Question(
    name="wall/leakage",
    sentence="{cam} marks nothing behind a wall that the model cannot see through",
    kind="INV",
    measure="share of the map's norm behind the wall",
    unit="of the L2 norm",
    bounds=(0.0, 1.0),
    direction="within",
)
CONVOLUTION = Question(
    name="wall/convolution",
    sentence="what {cam} marks behind a wall at an earlier layer does not change with the picture",
    kind="INV",
    measure="share of the map's norm that is behind the wall and changes with the picture",
    unit="of the L2 norm",
    bounds=(0.0, 1.0),
    direction="within",
)
INPUT = Question(
    name="wall/input",
    sentence="what {cam} marks where the picture is covered does not change with the rest of the picture",
    kind="INV",
    measure="share of the map's norm that is on the cover and changes with the picture",
    unit="of the L2 norm",
    bounds=(0.0, 1.0),
    direction="within",
)
QUESTIONS = (LEAKAGE, CONVOLUTION, INPUT)


def wall_leakage(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], wall: Wall) -> dict[str, Tensor]:
    """The leakage of every method from one recording behind the head wall.

    Returns:
        `<cam>:leakage`, judged where the wall says; `<cam>:cells`, on the feature rows whatever the pixels;
        `<cam>:paper`, as in the paper's notebook (scaled to [0, 1] before and after upsampling, which hides
        the least salient cell); `<cam>:blank`, the share of the cells that is exactly zero, and `<cam>:zero`, that of
        the pixels; `<cam>:over`, the pixel rows left blank on the wall's account although they matter, as a share of
        all; `<cam>:degenerate`. NaN for an empty map; a constant one is judged, it leaks as much as its line.
    """
    rec = record(subject, batch.images, behind=wall.hide, chunk=batch.chunk)
    size = batch.images.shape[2:]
    columns = {}
    for name, saliency in _maps(cams, rec):
        pixels = wall.turned(upsample(saliency, size, rec.placement))
        paper = wall.turned(unit_range(upsample(unit_range(saliency), size)))
        of_cells = saliency.shape[1:] == rec.activations.shape[2:]
        cells = wall.turned(saliency if of_cells else adaptive_avg_pool2d(saliency, rec.activations.shape[2:]))
        columns[f"{name}:cells"] = leakage(cells, wall.kept_rows)
        if wall.dead_from is not None:
            columns[f"{name}:leakage"] = leakage(pixels, wall.judged_from)
            columns[f"{name}:over"] = over_blanking(pixels, wall.dead_from)
        else:  # a pixel behind hidden cells matters through cells that are seen: a map in pixels cannot be judged
            columns[f"{name}:leakage"] = columns[f"{name}:cells"] * (1 if of_cells else torch.nan)
        columns[f"{name}:paper"] = leakage(paper, wall.drawn_from)
        columns[f"{name}:blank"] = zero_share(cells)
        columns[f"{name}:zero"] = zero_share(pixels)
        columns[f"{name}:degenerate"] = degeneracy(rec, saliency).double()
    return columns


def behind_cover(
    subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], cover: Cover
) -> dict[str, Tensor]:
    """What every method marks behind a wall before the target layer, and how much of it changes with the picture.

    Returns:
        `<cam>:behind`, the share of the norm behind the wall (μ), and `<cam>:varies`, what of it changes (ν, see
        `camcore.metrics.variation`), judged where the cover says; `<cam>:dead` and `<cam>:dead_varies`, the same on all
        dead pixels, the seam of the upsampling included; `<cam>:zero`, the share of the pixels that is exactly zero;
        `<cam>:degenerate`. NaN for an empty map.
    """
    size = batch.images.shape[2:]
    columns = {}
    with cover.on(subject) as covered:
        rec = record(covered, batch.images, chunk=batch.chunk)
        empty = _empty_picture(covered, rec, cover, batch.chunk)
        for name, saliency in _maps(cams, rec):
            nothing = torch.zeros_like(saliency) if empty is None else rectify(cams[name](empty))
            shown, reference = (cover.turned(upsample(one, size, rec.placement)) for one in (saliency, nothing))
            judged = ("behind", "varies", cover.judged_from)
            for suffix, varying, first in (judged, ("dead", "dead_varies", cover.dead_from or 0)):
                columns[f"{name}:{suffix}"] = leakage(shown, first)
                columns[f"{name}:{varying}"] = variation(shown, reference, first)
            columns[f"{name}:zero"] = zero_share(shown)
            columns[f"{name}:degenerate"] = degeneracy(rec, saliency).double()
    return columns


def _maps(cams: Mapping[str, CamMethod], rec: Recording) -> Iterable[tuple[str, Tensor]]:
    for name, cam in cams.items():
        try:
            yield name, rectify(cam(rec))
        except Undefined:  # behind the wall, that is: what the model lacks altogether was found out before
            continue


def _empty_picture(covered: Classifier, rec: Recording, cover: Cover, chunk: int) -> Recording | None:
    """The cover's grey all over, explained for the class of each image; None if no score depends on the layer there.

    Once per image, though images of one class share it: what an image costs must not depend on its company.
    """
    try:
        return record(covered, torch.full_like(rec.images, cover.fill), rec.target, chunk=chunk)
    except ZeroGradient:
        return None


def show(
    subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, wall: Wall
) -> Iterable[Evidence]:
    """The maps behind the wall, and the leakage beside the line of a constant map."""
    rec = record(subject, batch.images, behind=wall.hide, chunk=batch.chunk)
    yield from _overlays(subject, batch, rows, f"{name}:leakage", rec, cam, wall, batch.images)
    seen = column_of(rows, f"{name}:leakage")
    finite = seen[seen.isfinite()]
    mean = {key: column_of(rows, f"{name}:{key}").nanmean() for key in ("cells", "paper", "blank", "zero", "over")}
    where = "feature rows (no pixel is dead)" if wall.dead_from is None else f"pixel rows from {wall.judged_from}"
    dead = 0 if wall.dead_from is None else 1 - wall.dead_from / wall.pixels
    yield Table(
        title=f"Leakage of {name}, judged on {where}; the wall hides feature rows {wall.kept_rows} to {wall.rows - 1}",
        columns=("quantity", "value"),
        rows=(
            *_spread("leakage", finite),
            ("maps with exactly nothing behind the wall", f"{int((finite == 0).sum())} of {len(seen)}"),
            ("empty maps", f"{len(seen) - len(finite)} of {len(seen)}"),
            ("line of a constant map", _rounded(wall.constant_line)),
            ("leakage in the hidden feature rows, mean", _rounded(mean["cells"])),
            ("leakage as in the paper's notebook, mean", _rounded(mean["paper"])),
            (
                "share of the map's cells that is exactly zero, mean (the wall hides "
                f"{1 - wall.kept_rows / wall.rows:.2f} of them)",
                _rounded(mean["blank"]),
            ),
            (f"share of the pixels that is exactly zero, mean (dead: {dead:.2f})", _rounded(mean["zero"])),
            ("of it, over-blanking: whole pixel rows next to the dead ones that do matter", _rounded(mean["over"])),
        ),
    )


def show_cover(
    subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, cover: Cover
) -> Iterable[Evidence]:
    """The maps behind the cover, what they mark there, and how much of that changes with the picture."""
    with cover.on(subject) as covered:
        rec = record(covered, batch.images, chunk=batch.chunk)
        shown = cover.hide(batch.images) if cover.layer is None else batch.images
        yield from _overlays(subject, batch, rows, f"{name}:varies", rec, cam, cover, shown)
    found = {key: column_of(rows, f"{name}:{key}") for key in ("behind", "varies", "dead", "dead_varies", "zero")}
    varies = found["varies"][found["varies"].isfinite()]
    where = "on the covered picture" if cover.layer is None else f"behind a wall at {cover.layer}"
    cells = "that see nothing before it" if cover.sealed else "centred on dead pixels (all see something before it)"
    yield Table(
        title=f"What {name} marks {where}, judged on pixel rows from {cover.judged_from}, of cells {cells}",
        columns=("quantity", "value"),
        rows=(
            ("marked there, share of the norm, mean", _rounded(found["behind"].nanmean())),
            *_spread("of it changes with the picture", varies),
            ("maps that do not change there (by 0.000001)", f"{int((varies <= 1e-6).sum())} of {len(rows)}"),
            ("line of a constant map", _rounded(cover.constant_line)),
            (f"marked on all dead pixel rows, from {cover.dead_from}, mean", _rounded(found["dead"].nanmean())),
            ("of it changes with the picture, mean", _rounded(found["dead_varies"].nanmean())),
            ("share of the pixels that is exactly zero, mean", _rounded(found["zero"].nanmean())),
        ),
    )


def _overlays(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    column: str,
    rec: Recording,
    cam: CamMethod,
    zone: Zone,
    images: Images,
) -> Iterable[Overlay]:
    saliency = unit_range(upsample(rectify(cam(rec)), images.shape[2:], rec.placement))
    for index, image_id in enumerate(batch.ids):
        yield Overlay(
            unit=image_id,
            role=rank(index, len(batch)),
            value=rows[image_id].get(column, torch.nan),
            caption=f"with the wall up: {subject.classes[int(rec.target[index])]}",
            image=images[index],
            saliency=saliency[index],
            dead_from_row=zone.drawn_from if zone.side == "bottom" else None,
        )


def _spread(what: str, finite: Tensor) -> tuple[tuple[str, float], ...]:
    return (
        (f"{what}, mean", _rounded(finite.mean())),
        (f"{what}, standard deviation", _rounded(finite.std() if len(finite) > 1 else None)),
        (f"{what}, largest", _rounded(finite.max() if len(finite) else None)),
    )


def _rounded(value: Tensor | float | None) -> float:
    return torch.nan if value is None else round(float(value), 4)


@pytest.mark.audit("wall")
def test_nothing_leaks_through_the_wall(ask: Ask, cam: str) -> None:
    _ask_behind(ask, LEAKAGE, cam, build_wall, "wall", wall_leakage, "leakage", show)


@pytest.mark.audit("wall")
def test_nothing_behind_a_wall_at_a_convolution_changes_with_the_picture(ask: Ask, cam: str) -> None:
    _ask_behind(ask, CONVOLUTION, cam, cover_layer, "cover", behind_cover, "varies", show_cover)


@pytest.mark.audit("wall")
def test_nothing_on_a_covered_picture_changes_with_the_rest_of_it(ask: Ask, cam: str) -> None:
    _ask_behind(ask, INPUT, cam, cover_input, "cover", behind_cover, "varies", show_cover)


def _ask_behind(
    ask: Ask,
    question: Question,
    cam: str,
    build: Callable[..., Zone],
    noun: str,
    measure: Callable[..., Mapping[str, Tensor]],
    column: str,
    shown: Callable[..., Any],
) -> None:
    """Put a claim about one of the walls: one that cannot be put up must not keep the others from standing."""
    ask(
        question,
        cam,
        premise=lambda images: {noun: build(ask.subject, images, seed=ask.terms.seed)},
        measure=partial(measure, cams=ask.defined),
        column=f"{cam}:{column}",
        show=partial(shown, name=cam, cam=ask.cams[cam]),
        version=VERSION,
        apart=question.name,
    )
