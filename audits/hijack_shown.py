"""What the hijack audit shows: pictures as they were and as they were hijacked, the curve, and every rate."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from audits.crossing import first_at
from audits.hijack_attacks import WHERE, length, masks
from audits.hijack_blind import NOISES
from audits.hijack_checks import CALM, HUGE, WOBBLE, Checks
from audits.hijack_doubts import SHARE
from audits.hijack_judged import PLACES, judged
from audits.hijack_signatures import blended, drawn_classes
from audits.policy import JUDGED, Attacks
from audits.shares import share_so_far
from camcore.adversary import margin
from camcore.cam import METHODS
from camcore.engine import Row, column_of, rank
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Image, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.recording import Recording, record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

LOUDER = 16  # times, in the picture of the change
LONGEST = 100  # characters of an image's id in the name of its file


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    effort: Attacks,
    column: str,
    found: Checks,
    folder: Path,
) -> Iterable[Evidence]:
    """Each image with its map, hijacked and read back from a file, and the change; success over size; all attacks."""
    rec = record(subject, on_grid(batch.images), chunk=batch.chunk)
    where = masks(rec, batch, area=effort.area)
    fell = [rows[image_id].get("resists") == 1 for image_id in batch.ids]
    # what is larger than the judged size comes after it, and is not shown
    enough = effort.model_copy(update={"sizes": [radius for radius in effort.sizes if radius <= JUDGED]})
    again = torch.tensor(fell, device=batch.images.device)
    attacked = judged(subject, batch, where, enough, found, again=again)
    hit, shown = attacked.success.tolist(), attacked.images.clone()
    _clear(folder, subject, rows, of=len(batch))
    files = {index: folder / _file(subject, index, batch.ids[index]) for index in range(len(batch)) if hit[index]}
    for index, path in files.items():
        _save(shown[index], path)
        shown[index] = _read(path, shown[index])
    with torch.no_grad():
        logits = subject.logits(shown)
    _verify(logits, batch, files)
    says = [rec.logits.softmax(1), logits.softmax(1)]
    maps = [_map(rec), _map(record(subject, shown, rec.target, chunk=batch.chunk))]
    textured, pieces = _textured(subject, batch, where["top"], found)
    for index, image_id in enumerate(batch.ids):
        role = rank(index, len(batch))
        value = rows[image_id].get(column, torch.nan)
        place = attacked.place[index]
        after = f"hijacked {PLACES[place]}, from its PNG" if hit[index] else f"attacked {PLACES[place]} in vain"
        for what, images, said, saliency in zip(("as it is", after), (rec.images, shown), says, maps, strict=True):
            guess = int(said[index].argmax())
            yield Overlay(
                unit=image_id,
                role=role,
                value=value,
                caption=f"{what}: {subject.classes[guess]} ({said[index, guess]:.2f})",
                image=images[index],
                saliency=saliency[index],
                outline=where[place][index],
            )
        for caption, image in (
            (f"the change, {LOUDER} times", 0.5 + LOUDER * (shown[index] - rec.images[index])),
            (pieces[index], textured[index]),
        ):
            yield Overlay(
                unit=image_id,
                role=role,
                value=value,
                caption=caption,
                image=image.clamp(0, 1),
                saliency=None,
            )
    yield Curve(
        title="Hijacked, by how much may be changed",
        x_label=f"largest change of a value, in steps of 1/255 (0: measured on {found.checked} pictures, everywhere)",
        y_label="share of the pictures that were right",
        x=(0, *effort.sizes),
        series={
            WHERE[name]: (
                found.unchanged / found.checked,
                *(_mean(rows, f"{name}:{radius}") for radius in effort.sizes),
            )
            for name in ("top", "random")
        },
    )
    yield _steps(rows, effort)
    yield _table(rows, found, effort, read_back=f"{len(files)} of {sum(fell)}", norm=length(where["top"], JUDGED))


def _steps(rows: Mapping[str, Row], effort: Attacks) -> Curve:
    """Success of the judged size over the steps of the attack that has it: it cannot fall, and may be rising still."""
    most = effort.restarts * effort.steps
    x = (0, *(2**power for power in range(most.bit_length()) if 2**power < most), most)
    known = ~column_of(rows, f"top:{JUDGED}").isnan()
    taken = {name: column_of(rows, f"steps:{name}")[known] for name in ("top", "random")}
    return Curve(
        title=f"Hijacked at {JUDGED}/{LEVELS}, by how many steps the attack has had",
        x_label="steps, of all restarts together, of the attack by gradient (of this or of a smaller size)",
        y_label="share of the pictures that were right",
        x=x,
        series={
            WHERE[name]: tuple(round(float((steps <= limit).double().mean()), 4) for limit in x)
            for name, steps in taken.items()
        },
    )


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


def _file(subject: Classifier, index: int, image_id: str) -> str:
    return f"{subject.name}-{index}-{quote(image_id, safe='')[-LONGEST:]}.png"


def _clear(folder: Path, subject: Classifier, ids: Iterable[str], *, of: int) -> None:
    """Without what the claim had shown of these images before: a run that goes on may show others."""
    ours = {_file(subject, index, image_id) for image_id in ids for index in range(of)}
    for path in folder.glob("*.png"):
        if path.name in ours:
            path.unlink()


def _save(image: Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image.permute(1, 2, 0) * LEVELS).round().to(torch.uint8).cpu().numpy()
    Pillow.fromarray(pixels).save(path)


def _read(path: Path, like: Image) -> Image:
    """As anybody else would."""
    with Pillow.open(path) as picture:
        return (torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / LEVELS).to(like)


def _verify(logits: Tensor, batch: Batch, files: Mapping[int, Path]) -> None:
    """Whether what was read back is hijacked still, to within what two passes of one image may differ by.

    Raises:
        ValueError: It is not: what was counted cannot be shown.
    """
    back = margin(logits, batch.labels) < -WOBBLE * logits.abs().amax(1)
    lost = [path.name for index, path in files.items() if back[index]]
    if lost:
        raise ValueError(
            f"{len(lost)} of {len(files)} hijacked pictures are right again when they are read from their files: "
            f"{', '.join(lost)}"
        )


def _mean(rows: Mapping[str, Row], key: str) -> float:
    return round(float(column_of(rows, key).nanmean()), 4)


def _lpips(rows: Mapping[str, Row], found: Checks) -> list[tuple[str, str]]:
    if found.lpips is None:
        return [("difference of the hijacked from what they were (LPIPS)", "not measured: its weights are not at hand")]
    said = f"(LPIPS, {found.lpips}, mean)"
    lines = [(f"difference of the hijacked from what they were at {JUDGED}/{LEVELS} {said}", _mean(rows, "lpips"))]
    for radius in (JUDGED, HUGE):
        key = f"lpips:signature:{radius}"
        lines.append((f"that of those with a piece of another picture at {radius}/{LEVELS} {said}", _mean(rows, key)))
    return [(what, f"{value:.4f}") for what, value in lines if value == value]  # NaN: no picture, or too small a one


def _table(rows: Mapping[str, Row], found: Checks, effort: Attacks, *, read_back: str, norm: float) -> Table:
    def rate(key: str) -> str:
        hits = column_of(rows, key)  # NaN: not tried, or without another class to be hijacked to
        tried = int((~hits.isnan()).sum())
        return share_so_far(hits, digits=3) + (f" of {tried}" if 0 < tried < len(hits) else "")

    words, half = first_at({radius: _mean(rows, f"top:{radius}") for radius in effort.sizes}, 0.5)
    losses = column_of(rows, "loss")
    losses = losses[~losses.isnan()]
    lines: list[tuple[str, str]] = [
        *((f"{WHERE['top']}, {radius}/{LEVELS}", rate(f"top:{radius}")) for radius in effort.sizes),
        *((f"{WHERE['random']}, {radius}/{LEVELS}", rate(f"random:{radius}")) for radius in effort.sizes),
        *((f"{WHERE[name]}, {JUDGED}/{LEVELS}", rate(f"{name}:{JUDGED}")) for name in ("anti", "all")),
        (
            f"{WHERE['top']}, {JUDGED}/{LEVELS}, to {effort.source or 'a class drawn beforehand'}",
            rate(f"target:{JUDGED}"),
        ),
        *(
            (f"{WHERE['top']}, {radius}/{LEVELS}, to that class by a piece of one of its pictures", rate(key))
            for radius, key in ((radius, f"signature:{radius}") for radius in (JUDGED, HUGE))
        ),
        (f"{WHERE['top']}, any change of at most the same length (l2, {norm:.2f})", rate(f"l2:{JUDGED}")),
        (f"{WHERE['top']}, {JUDGED}/{LEVELS}, by noise ({NOISES} draws)", rate(f"noise:{JUDGED}")),
        *(
            (f"of those that the gradient has not hijacked, by {name}", rate(f"{name}:{JUDGED}"))
            for name in ("waves", "squares")
        ),
        (f"{WHERE['top']}, {JUDGED}/{LEVELS}, by any of these", rate("marked")),
        (f"{WHERE['top']}, {WHERE['random']} or {WHERE['anti']}, {JUDGED}/{LEVELS}: what is judged", rate("resists")),
        (f"{WHERE['top']}: half are hijacked at", f"{words}{half:.3g}/{LEVELS}"),
        (
            f"log-odds against the label that the attack at {JUDGED}/{LEVELS} climbs to: least, median, most",
            " / ".join(f"{float(value):.2f}" for value in (losses.min(), losses.median(), losses.max()))
            if len(losses)
            else "none",
        ),
        ("pictures shown that were hijacked: hijacked again, and still when read back from their files", read_back),
        *(
            (
                f"no slope, or no higher than at the beginning, {WHERE[name]} (one may, or {SHARE:.0%})",
                rate(f"stuck:{name}"),
            )
            for name in ("top", "random")
        ),
        (f"likeness of the hijacked to what they were at {JUDGED}/{LEVELS} (SSIM, mean)", f"{_mean(rows, 'ssim'):.4f}"),
        *(
            (f"likeness of those with a piece of another picture at {radius}/{LEVELS} (SSIM, mean)", f"{alike:.4f}")
            for radius in (JUDGED, HUGE)
            if (alike := _mean(rows, f"ssim:signature:{radius}")) == alike  # NaN: no other class at hand
        ),
        *_lpips(rows, found),
        ("share of their values that changed, mean", f"{_mean(rows, 'changed'):.3f}"),
        ("the largest change of a value, in steps", f"{float(column_of(rows, 'largest').nan_to_num().max()):.0f}"),
        ("check: with no change", f"{found.unchanged} of {found.checked}"),
        (f"check: everywhere, {HUGE}/{LEVELS}", f"{found.huge} of {found.checked}"),
        (f"check: everywhere, {CALM}/{LEVELS}", f"{found.by_gradient} of {found.checked}"),
        ("pictures that were right to begin with", f"{len(found.right)} of {found.asked}"),
    ]
    return Table(
        title=f"Hijacked, share with its 95 % interval ({effort.steps} steps, {effort.restarts} restart"
        f"{'s' * (effort.restarts != 1)}, the best iterate; {100 * effort.area:.3g} % of the pixels unless it says "
        "everywhere)",
        columns=("attack", "hijacked"),
        rows=tuple(lines),
    )
