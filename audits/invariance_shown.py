"""What the invariance audit shows: each image and its map before and after the change, and what every change does."""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from audits.invariance_changes import changed, noisy
from camcore.cam import CamMethod
from camcore.engine import Row, column_of, rank
from camcore.images import Batch, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.recording import Recording, record
from camcore.shift import record_shifted
from camcore.subject import Classifier
from camcore.verdict import Evidence, Overlay, Table

CHANCE = ("edges", "random")  # maps that know nothing of the model, compared in the same way


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    name: str,
    cam: CamMethod,
    column: str,
    twin: Classifier | None = None,
) -> Iterable[Evidence]:
    """Each image with its map, and after the change with the map that it has then; what every change does."""
    rec = record(subject, batch.images, chunk=batch.chunk)
    claim = column.partition(":")[2]
    pictures = _pictures(subject, batch, rec, rows, name, cam, claim, twin)
    saliency = unit_range(upsample(rectify(cam(rec)), batch.images.shape[2:], rec.placement))
    for index, image_id in enumerate(batch.ids):
        role = rank(index, len(batch))
        value = rows[image_id].get(column, torch.nan)
        predicted = subject.classes[int(rec.target[index])]
        after, image, moved = pictures[index]
        yield Overlay(
            unit=image_id,
            role=role,
            value=value,
            caption=f"as it is: {predicted}",
            image=batch.images[index],
            saliency=saliency[index],
        )
        yield Overlay(
            unit=image_id,
            role=role,
            value=value,
            caption=f"{after}: the map for {predicted}",
            image=image,
            saliency=moved,
        )
    yield _table(rows, name)


def _pictures(
    subject: Classifier,
    batch: Batch,
    rec: Recording,
    rows: Mapping[str, Row],
    name: str,
    cam: CamMethod,
    claim: str,
    twin: Classifier | None,
) -> list[tuple[str, Tensor, Tensor]]:
    """For each image what was done to it, what it looks like then, and its map then."""
    size = batch.images.shape[2:]

    def shown(images: Images, after: Recording) -> list[tuple[Tensor, Tensor]]:
        saliency = unit_range(upsample(rectify(cam(after)), size, after.placement))
        return list(zip(images, saliency, strict=True))

    if twin is not None:
        after = record_shifted(twin, batch.images, rec.target, chunk=batch.chunk)
        return [("in the shifted twin", *pair) for pair in shown(batch.images, after)]
    again = partial(record, subject, target=rec.target, chunk=batch.chunk)
    if claim == "max_sensitivity":
        images = next(noisy(batch, 1))
        return [("with the first noise drawn", *pair) for pair in shown(images, again(images))]
    words = {"flip": "mirrored", "translation": "moved", "jpeg": "saved as JPEG", "resize": "made smaller and enlarged"}
    made = {}
    for change in ("jpeg", "resize") if claim == "jitter" else (claim,):
        images = changed(batch)[change]()
        made[change] = shown(images, again(images))
    pictures = []
    for index, image_id in enumerate(batch.ids):
        worse = min(made, key=lambda change: rows[image_id].get(f"{name}:{change}", 0.0))
        pictures.append((words[worse], *made[worse][index]))
    return pictures


def _table(rows: Mapping[str, Row], name: str) -> Table:
    def mean(key: str) -> float:
        return round(float(column_of(rows, key).nanmean()), 4)

    what = (
        ("mirrored", "likeness", "flip", "flip"),
        ("moved", "likeness", "translation", "translation"),
        ("saved as JPEG of quality 75", "likeness", "jpeg", "jpeg"),
        ("made smaller by a quarter, enlarged", "likeness", "resize", "resize"),
        ("noise of 0.02, the farthest drawn", "distance", "max_sensitivity", "noise"),
        ("the same, over the map's own norm", "distance", "sensitivity", "noise"),
        ("first layer absorbs a constant", "distance", "shift", "shift"),
    )
    return Table(
        title=f"What each change does to {name}, to the image's edges, and to random maps (means over images; "
        "likeness 1 and distance 0: nothing moved)",
        columns=("change", "measured by", name, *CHANCE, "probability moves by", "class stays"),
        rows=tuple(
            (
                text,
                kind,
                *(mean(f"{key}:{measured}") for key in (name, *CHANCE)),
                mean(f"{change}:probability"),
                mean(f"{change}:same"),
            )
            for text, kind, measured, change in what
            if f"{change}:same" in next(iter(rows.values()))  # the twin is measured apart
        ),
    )
