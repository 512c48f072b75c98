"""What the hijack audit shows: pictures as they were and as they were hijacked, the curve, and every rate."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from audits.hijack_attacks import AREA, JUDGED, RADII, WHERE, effort, masks, swept
from audits.hijack_checks import CALM, HUGE, Checks
from audits.hijack_signatures import blended, drawn_classes
from audits.shares import share_so_far
from camcore.cam import METHODS
from camcore.engine import WORST, Row, column_of
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.record import Recording, record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

LOUDER = 16  # times, in the picture of the change


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    draws: int,
    column: str,
    found: Checks,
    folder: Path,
) -> Iterable[Evidence]:
    """Each image with its map, hijacked and read back from a file, and the change; success over size; all attacks."""
    rec = record(subject, on_grid(batch.images), chunk=batch.chunk)
    where = masks(rec, batch)
    attacked = swept(subject, batch, where["top"], draws)[JUDGED][1]
    read = _through_files(attacked, [folder / f"{subject.name}-{index}.png" for index in range(len(batch))])
    maps = {
        "as it is": _map(rec),
        "from its PNG": _map(record(subject, read, rec.target, chunk=batch.chunk)),
    }
    with torch.no_grad():
        says = {"as it is": rec.logits.softmax(1), "from its PNG": subject.logits(read).softmax(1)}
    textured, pieces = _textured(subject, batch, where["top"], found)
    for index, image_id in enumerate(batch.ids):
        role = "worst" if index < WORST else "typical"
        value = rows[image_id].get(column, torch.nan)
        for what, images in (("as it is", rec.images), ("from its PNG", read)):
            guess = int(says[what][index].argmax())
            yield Overlay(
                unit=image_id,
                role=role,  # type: ignore[arg-type]  # mypy does not see that a conditional gives one of two words
                value=value,
                caption=f"{what}: {subject.classes[guess]} ({says[what][index, guess]:.2f})",
                image=images[index],
                saliency=maps[what][index],
                outline=where["top"][index],
            )
        for caption, image in (
            (f"the change, {LOUDER} times", 0.5 + LOUDER * (read[index] - rec.images[index])),
            (pieces[index], textured[index]),
        ):
            yield Overlay(
                unit=image_id,
                role=role,  # type: ignore[arg-type]
                value=value,
                caption=caption,
                image=image.clamp(0, 1),
                saliency=None,
            )
    yield Curve(
        title="Hijacked, by how much may be changed",
        x_label="largest change of a value, in steps of 1/255",
        y_label="share of the pictures that were right",
        x=(0, *RADII),
        series={
            WHERE[name]: (0.0, *(_mean(rows, f"{name}:{radius}") for radius in RADII)) for name in ("top", "random")
        },
    )
    yield _table(rows, found, draws)


def _textured(subject: Classifier, batch: Batch, mask: Tensor, found: Checks) -> tuple[Images, list[str]]:
    """Each image with a piece of another class as plain as it is tried, and what the model says of it."""
    target = drawn_classes(batch, found.signatures)
    images = blended(subject, batch, mask, target, found.signatures, radius=HUGE).images
    with torch.no_grad():
        says = subject.logits(images).softmax(1)
    captions = []
    for index, wanted in enumerate(target.tolist()):
        guess = int(says[index].argmax())
        piece = f"a piece of {subject.classes[wanted]}, {HUGE}/{LEVELS}" if wanted >= 0 else "no other class at hand"
        captions.append(f"{piece}: {subject.classes[guess]} ({says[index, guess]:.2f})")
    return images, captions


def _map(rec: Recording) -> Tensor:
    return unit_range(upsample(rectify(METHODS["gradcam"](rec)), rec.images.shape[2:], rec.placement))


def _through_files(images: Images, paths: list[Path]) -> Images:
    """Written as PNG and read again: what anybody else would load."""
    read = []
    for image, path in zip(images, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (image.permute(1, 2, 0) * LEVELS).round().to(torch.uint8).cpu().numpy()
        Pillow.fromarray(pixels).save(path)
        with Pillow.open(path) as picture:
            read.append(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / LEVELS)
    return torch.stack(read).to(images)


def _mean(rows: Mapping[str, Row], key: str) -> float:
    return round(float(column_of(rows, key).nanmean()), 4)


def half_at(rates: Mapping[int, float]) -> str:
    """The size of change at which half of the pictures are hijacked, between those that were tried by a line."""
    before, rate_before = 0, 0.0
    for radius, rate in rates.items():
        if rate >= 0.5:
            at = before + (radius - before) * (0.5 - rate_before) / (rate - rate_before)
            return f"{'at most ' if not before else ''}{radius if not before else round(at, 1)}/{LEVELS}"
        before, rate_before = radius, rate
    return f"more than {before}/{LEVELS}"


def _table(rows: Mapping[str, Row], found: Checks, draws: int) -> Table:
    def rate(key: str) -> str:
        return share_so_far(column_of(rows, key), digits=3)  # NaN: images without another class to be hijacked to

    steps, restarts, _ = effort(draws)
    half = half_at({radius: _mean(rows, f"top:{radius}") for radius in RADII})
    lines: list[tuple[str, str]] = [
        *((f"{WHERE['top']}, {radius}/{LEVELS}", rate(f"top:{radius}")) for radius in RADII),
        *((f"{WHERE['random']}, {radius}/{LEVELS}", rate(f"random:{radius}")) for radius in RADII),
        *((f"{WHERE[name]}, {JUDGED}/{LEVELS}", rate(f"{name}:{JUDGED}")) for name in ("anti", "all")),
        (f"{WHERE['top']}, {JUDGED}/{LEVELS}, to a class drawn beforehand", rate(f"target:{JUDGED}")),
        *(
            (f"{WHERE['top']}, {radius}/{LEVELS}, to that class by a piece of one of its pictures", rate(key))
            for radius, key in ((radius, f"signature:{radius}") for radius in (JUDGED, HUGE))
        ),
        (f"random noise everywhere, {JUDGED}/{LEVELS}", rate(f"noise:{JUDGED}")),
        ("half are hijacked at", half),
        (f"likeness of the hijacked to what they were at {JUDGED}/{LEVELS} (SSIM, mean)", f"{_mean(rows, 'ssim'):.4f}"),
        ("share of their values that changed, mean", f"{_mean(rows, 'changed'):.3f}"),
        ("the largest change of a value, in steps", f"{float(column_of(rows, 'largest').nan_to_num().max()):.0f}"),
        (f"check: everywhere, {HUGE}/{LEVELS}", f"{found.huge} of {found.checked}"),
        (
            f"check: everywhere, {CALM}/{LEVELS}, by gradient and by squares",
            f"{found.by_gradient} and {found.by_squares} of {found.checked}",
        ),
        ("pictures that were right to begin with", f"{len(found.right)} of {found.asked}"),
    ]
    return Table(
        title=f"Hijacked, share with its 95 % interval ({steps} steps, {restarts} restart"
        f"{'s' * (restarts != 1)}, the best iterate; {AREA:.0%} of the pixels unless it says everywhere)",
        columns=("attack", "hijacked"),
        rows=tuple(lines),
    )
