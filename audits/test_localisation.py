"""Does the map lie on the object?

## What it measures

Where masks or boxes say which pixels are the object's, the map of the labelled class is laid over them: what share of
its sum lies on the object (energy), and whether its highest pixel does (pointing). A map that knows nothing of the
picture reaches the object's share of the area on average, and one that only knows how pictures are taken is a blob in
the middle: both are subtracted, image by image. The last claim (offset) is about registration: how many cells the map
has to be moved sideways for its centre of mass, within a cell of the object, to be in the middle. It is measured on
the picture and on its mirror image, and the mean is taken: if the model prefers one side of an object, that is the
other side in the mirror, and cancels; how a map is laid does not. Beside the claims stand the relevance rank accuracy
and the pointing game with its usual tolerance.

## Why it matters

A map is read as "the model looked there". If it misses the object more than need be, either the model uses something
else, or the map is wrong: both have to be known before a release.

## Known limits

Masks are what people marked. A model may rightly use the road to recognise a car, and it fails here with a map that is
right; deletion tells the two apart. Boxes count the background in their corners as object. The label's class is
explained whatever was predicted. The offset is asked sideways only: photographs that are upside down are none. Images
whose object covers more than 80 % or less than 0.1 % of the crop can hardly tell maps apart: they are left out before
anything is measured, and counted in the table.

## Caught by

uniform_map, centre_map, inverted_map, evenly_laid_map, one_cell_off, two_cells_off

## References

Zhang et al. 2016 (arXiv:1608.00507, pointing game); Wang et al. 2020 (Score-CAM, arXiv:1910.01279, energy-based
pointing game); Arras et al. 2022 (CLEVR-XAI, arXiv:2003.07258, relevance mass and rank accuracy); Xia et al. 2021
(Receptive Field Misalignment in CAM) for maps that are laid beside.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from camcore import chance
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import Row, column_of, rank
from camcore.errors import Undefined
from camcore.images import Batch, Images, only
from camcore.maps import rectify, unit_range, upsample
from camcore.metrics.localisation import cells_right, energy_inside, grown, pointing_hit, precision_at, rank_accuracy
from camcore.placement import even_placement
from camcore.recording import record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table
from fixtures.datasets.objects import judgeable

VERSION = "1"
TOLERANCE = 0.03  # of the longer side: Zhang et al. allow 15 pixels on photographs of 500
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the pixels, the highest first

ENERGY = Question(
    name="localisation/energy",
    sentence="{cam} lies on the object more than a map that ignores the picture would",
    kind="DIR",
    measure="share of the map's sum on the object minus the object's share of the area",
    unit="of the map's sum",
    bounds=(-1.0, 1.0),
)
BEATS_CENTRE = Question(
    name="localisation/beats_centre",
    sentence="{cam} lies on the object more than a blob in the middle of the picture does",
    kind="DIR",
    measure="share of the map's sum on the object minus that of a blob in the middle",
    unit="of the map's sum",
    bounds=(-1.0, 1.0),
)
POINTING = Question(
    name="localisation/pointing",
    sentence="the highest point of {cam} hits the object more often than a random point would",
    kind="DIR",
    measure="1 for a hit, 0 for a miss, minus the object's share of the area",
    unit="hits per image",
    bounds=(-1.0, 1.0),
)
OFFSET = Question(
    name="localisation/offset",
    sentence="{cam} is laid neither to the left nor to the right of the object",
    kind="INV",
    measure="how far right of where it belongs the map is laid, mean over the picture and its mirror image",
    unit="cells of the map",
    bounds=(-1.0, 1.0),
    direction="within",
)
QUESTIONS = (ENERGY, BEATS_CENTRE, POINTING, OFFSET)


def localisation(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod]) -> dict[str, Tensor]:
    """How much of every map lies on the object, from one recording of the images and one of their mirror images.

    Explained is the labelled class.

    Returns:
        `<map>:energy`, `<map>:rank`, `<map>:pointing`, `<map>:pointing:near` (with tolerance) and
        `<map>:precision:<share>`, where <map> is a CAM or "centre"; of CAMs also `<cam>:over_area`,
        `<cam>:over_centre`, `<cam>:hit_over_area`, `<cam>:offset` (cells to the right by which the map is laid),
        `<cam>:prefers` (those that turn with the mirror) and `<cam>:degenerate`; `object:area` (share of the crop),
        `object:seen` (1 where the label was predicted). NaN where a map cannot be judged.
    """
    mask = _masks(batch)
    size = batch.images.shape[2:]
    area, near = mask.mean((1, 2)), grown(mask, round(TOLERANCE * max(size)))
    rec = record(subject, batch.images, batch.labels, chunk=batch.chunk)
    mirrored = record(subject, batch.images.flip(-1), batch.labels, chunk=batch.chunk)
    step = (rec.placement or even_placement(_extent(rec.activations), _extent(batch.images))).step
    centre = _judged(upsample(chance.centre(rec), size), mask, near)
    columns = {f"centre:{what}": column for what, column in centre.items()}
    columns |= {"object:area": area, "object:seen": (rec.logits.argmax(1) == batch.labels).double()}
    for name, cam in cams.items():
        saliency, mirror = rectify(cam(rec)), rectify(cam(mirrored))
        code, other_code = degeneracy(rec, saliency), degeneracy(mirrored, mirror)
        pixels = upsample(saliency, size, rec.placement)
        found = _judged(pixels, mask, near)
        found["over_area"] = found["energy"] - area
        found["over_centre"] = found["energy"] - centre["energy"]
        found["hit_over_area"] = found["pointing"] - area
        plain = cells_right(pixels, mask, step=step)
        other = cells_right(upsample(mirror, size, rec.placement), mask.flip(-1), step=step)
        other = other.masked_fill(other_code != 0, torch.nan)
        found["offset"], found["prefers"] = (plain + other) / 2, (plain - other) / 2
        columns |= {f"{name}:{what}": column.masked_fill(code != 0, torch.nan) for what, column in found.items()}
        columns[f"{name}:degenerate"] = code.double()
    return columns


def _judged(saliency: Tensor, mask: Tensor, near: Tensor) -> dict[str, Tensor]:
    counts = torch.tensor([[max(1, round(share * mask[0].numel())) for share in SHARES]], device=mask.device)
    precision = precision_at(saliency, mask, counts.expand(len(mask), -1))
    return {
        "energy": energy_inside(saliency, mask),
        "rank": rank_accuracy(saliency, mask),
        "pointing": pointing_hit(saliency, mask),
        "pointing:near": pointing_hit(saliency, near),
        **{f"precision:{share:g}": precision[:, index] for index, share in enumerate(SHARES)},
    }


def _extent(planes: Tensor) -> tuple[int, int]:
    return planes.shape[-2], planes.shape[-1]


def _masks(batch: Batch) -> Tensor:
    if batch.masks is None:
        raise ValueError("localisation needs masks, and the data set has none; give a data set with `mask`")
    return batch.masks


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    name: str,
    cam: CamMethod,
    column: str,
    left_out: Mapping[str, int],
) -> Iterable[Evidence]:
    """The maps with the object's outline, how much of their strongest pixels is the object, all numbers beside."""
    rec = record(subject, batch.images, batch.labels, chunk=batch.chunk)
    saliency = unit_range(upsample(rectify(cam(rec)), batch.images.shape[2:], rec.placement))
    mask = _masks(batch)
    for index, image_id in enumerate(batch.ids):
        row = rows[image_id]
        label = int(batch.labels[index])
        yield Overlay(
            unit=image_id,
            role=rank(index, len(batch)),
            value=row.get(column, torch.nan),
            caption=f"{subject.classes[label]} ({rec.logits[index].softmax(0)[label]:.2f}), "
            f"{row[f'{name}:energy']:.0%} of the map on {row['object:area']:.0%} of the picture",
            image=batch.images[index],
            saliency=saliency[index],
            outline=mask[index],
        )

    def mean(key: str) -> float:
        return float(column_of(rows, key).nanmean())

    area = mean("object:area")
    maps = ("centre", name)
    yield Curve(
        title=f"How much of what {name} marks is the object",
        x_label="share of the pixels, the strongest first",
        y_label="of which on the object (mean over images)",
        x=SHARES,
        series={
            "any map that ignores the picture": (area,) * len(SHARES),
            **{key: tuple(mean(f"{key}:precision:{share:g}") for share in SHARES) for key in maps},
        },
    )
    yield Table(
        title="On the object (mean over images)",
        columns=("quantity", name, "blob in the middle", "chance"),
        rows=(
            ("energy inside (relevance mass accuracy)", *_three(mean, "energy", maps, area)),
            ("relevance rank accuracy", *_three(mean, "rank", maps, area)),
            ("pointing game", *_three(mean, "pointing", maps, area)),
            (f"pointing game, within {TOLERANCE:.0%} of the side", *_three(mean, "pointing:near", maps, torch.nan)),
        ),
    )
    seen = column_of(rows, "object:seen") == 1
    energy = column_of(rows, f"{name}:energy")
    yield Table(
        title="What was asked",
        columns=("quantity", "value"),
        rows=(
            ("images", len(rows)),
            ("of them with the label predicted", int(seen.sum())),
            ("energy inside where the label was predicted", round(float(energy[seen].nanmean()), 4)),
            ("energy inside where it was not", round(float(energy[~seen].nanmean()), 4)),
            ("cells to the right by which the map is laid", round(mean(f"{name}:offset"), 4)),
            ("cells to the right that turn with the mirror: the model's own", round(mean(f"{name}:prefers"), 4)),
            *((f"left out: {reason}", count) for reason, count in sorted(left_out.items())),
        ),
    )


def _three(mean: Callable[[str], float], what: str, maps: tuple[str, ...], chance: float) -> tuple[float, ...]:
    return (*(round(mean(f"{key}:{what}"), 4) for key in reversed(maps)), round(chance, 4))


@pytest.mark.audit("localisation")
def test_energy_lies_on_the_object(ask: Ask, cam: str) -> None:
    ask_about(ask, ENERGY, cam, column=f"{cam}:over_area")


@pytest.mark.audit("localisation")
def test_energy_beats_the_centre(ask: Ask, cam: str) -> None:
    ask_about(ask, BEATS_CENTRE, cam, column=f"{cam}:over_centre")


@pytest.mark.audit("localisation")
def test_the_highest_point_hits_the_object(ask: Ask, cam: str) -> None:
    ask_about(ask, POINTING, cam, column=f"{cam}:hit_over_area")


@pytest.mark.audit("localisation")
def test_the_map_lies_beside_no_object(ask: Ask, cam: str) -> None:
    ask_about(ask, OFFSET, cam, column=f"{cam}:offset")


def ask_about(ask: Ask, question: Question, cam: str, *, column: str) -> None:
    """Put one of the claims, about the images whose object can be judged."""
    kept, left_out = judgeable(ask.dataset, ask.subject.geometry, seed=ask.terms.seed, budget=ask.terms.budget)

    def premise(_images: Images) -> dict[str, object]:
        """Raises `Undefined` where nobody can know what the map should lie on."""
        data, subject = ask.dataset, ask.subject
        if data.mask is None:
            raise Undefined(
                f"where the object is has to be known, and {data.spec} does not say; give a folder with masks/ or "
                "boxes.csv beside the images (docs/data.md), or --data scenes"
            )
        if len(data.classes) != len(subject.classes):
            raise Undefined(
                f"the labels of {data.spec} must be classes of the model, whose maps are to lie on the object, but it "
                f"has {len(data.classes)} classes and {subject.name} {len(subject.classes)}; give a folder with labels"
            )
        if not kept:
            reasons = ", ".join(f"{count} times: {reason}" for reason, count in left_out.items())
            raise Undefined(f"no image of {data.spec} has an object that maps can be judged by ({reasons})")
        return {}

    ask_those = replace(ask, dataset=only(ask.dataset, kept)) if 0 < len(kept) < len(ask.dataset) else ask
    ask_those(
        question,
        cam,
        premise=premise,
        measure=partial(localisation, cams=ask.defined),
        column=column,
        show=partial(show, name=cam, cam=ask.cams[cam], column=column, left_out=left_out),
        version=VERSION,
    )
