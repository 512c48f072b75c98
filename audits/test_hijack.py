"""Can a change that nobody sees, where the model looks, hijack its class?

## What it measures

Of the pictures that the model has right, the 20 % of the pixels that its Grad-CAM map marks are changed, each value by
at most 1, 2, 4 or 8 steps of 1/255, so as to change the class (projected gradient ascent whose step adapts, APGD, on
the cross-entropy). Every picture that is judged is on the 8-bit grid. resists is the share that is hijacked at 4/255.
guided is how much oftener that succeeds in the marked pixels than in as many pixels of a random map, averaged over the
four sizes. Beside them: the pixels that the map marks least, the whole picture, random noise of the same size, a class
that was drawn beforehand, and what can be seen of the change.

## Why it matters

If a fiftieth of the range of a few pixels turns a dog into a cat, whoever can touch the picture chooses the class. That
it suffices to change what the map marks says that the map marks what the class hangs on.

## Known limits

What an attack does not find, a better one may: resists is an upper bound of the resistance, more so with few steps
(`release` has 100, and 5 restarts). Before an attack may find nothing, it is checked that it has a slope to follow,
that it succeeds with changes of 64/255, and that an attack which needs no gradient (Square) does not do better; else
the verdict is INCONCLUSIVE. The attacker knows the model. Undefended networks are hijacked nearly always, which is why
this informs, and gates only where a policy says so. Models that draw at random in the forward pass are not judged. The
map is that of the picture as it was, and is not drawn anew while the attack goes on.

## Caught by

glass_jaw, blind_guide, reversed_gradients, masked_gradients

## References

Croce and Hein 2020 (APGD, arXiv:2003.01690); Madry et al. 2018 (arXiv:1706.06083); Andriushchenko et al. 2020 (Square,
arXiv:1912.00049); Carlini et al. 2019 (arXiv:1902.06705) and Athalye et al. 2018 (arXiv:1802.00420) for what an attack
has to show before its failure counts; Croce et al. 2021 (RobustBench, arXiv:2010.09670) for the radius.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from audits.ask import Ask
from audits.hijack_attacks import AREA, JUDGED, RADII, WHERE, attack, drawn_classes, effort, masks, swept
from audits.hijack_checks import CALM, HUGE, Checks, checked, those_right
from audits.question import Question
from camcore import statistics
from camcore.adversary import margin
from camcore.cam import METHODS
from camcore.engine import WORST, Row, column_of, shuffled
from camcore.errors import Undefined
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Dataset, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.metrics.likeness import structural_similarity
from camcore.perturbations import sign_noise
from camcore.record import Recording, record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

VERSION = "2"
LOUDER = 16  # times, in the picture of the change

RESISTS = Question(
    name="hijack/resists",
    sentence="changes of at most 4/255 where Grad-CAM looks hijack less than half of the pictures",
    kind="INV",
    measure="1 where the class changes: the hijacking success rate, among pictures that were right",
    unit="of the pictures",
    bounds=(0.0, 1.0),
    direction="within",
)
GUIDED = Question(
    name="hijack/guided",
    sentence="an attack where Grad-CAM looks succeeds oftener than one on as many pixels of a random map",
    kind="DIR",
    measure="hijacked in the marked pixels minus hijacked in random ones, mean over changes of 1, 2, 4 and 8 / 255",
    unit="of the sizes",
    bounds=(-1.0, 1.0),
)
QUESTIONS = (RESISTS, GUIDED)


def hijack(subject: Classifier, batch: Batch, *, draws: int, found: Checks) -> dict[str, Tensor]:
    """Which attacks succeed on each image.

    Returns:
        `<where>:<radius>`, 1 where an attack succeeds, with <where> "top" or "random" at all radii, "anti" and "all" at
        the judged one; `noise:<judged>`, the same of random noise; `target:<judged>`, of reaching a class that was
        drawn. `resists` and `guided`, what is judged. Of the judged attack, where it succeeds: `ssim`, `changed` (share
        of the values), `largest` (in steps).
    """
    rec = record(subject, on_grid(batch.images), chunk=batch.chunk)
    where, columns = masks(rec, batch), {}
    for name in ("top", "random"):
        for radius, (fallen, images) in swept(subject, batch, where[name], draws).items():
            columns[f"{name}:{radius}"] = fallen.double()
            if (name, radius) == ("top", JUDGED):
                shown = images
    for name in ("anti", "all"):
        columns[f"{name}:{JUDGED}"] = attack(subject, batch, where[name], JUDGED, draws).success.double()
    columns[f"target:{JUDGED}"] = attack(
        subject, batch, where["top"], JUDGED, draws, target=drawn_classes(subject, batch)
    ).success.double()
    columns[f"noise:{JUDGED}"] = _noise(subject, batch).double()
    change = (shown - rec.images).abs()
    ssim = torch.stack([structural_similarity(rec.images[:, channel], shown[:, channel]) for channel in range(3)])
    seen = {
        "ssim": ssim.mean(0),
        "changed": (change > 0.5 / LEVELS).double().mean((1, 2, 3)),
        "largest": change.amax((1, 2, 3)) * LEVELS,
    }
    stands = columns[f"top:{JUDGED}"] == 0
    columns |= {name: values.masked_fill(stands, torch.nan) for name, values in seen.items()}
    columns["resists"] = columns[f"top:{JUDGED}"]
    columns["guided"] = torch.stack([columns[f"top:{radius}"] - columns[f"random:{radius}"] for radius in RADII]).mean(
        0
    )
    return columns


def _noise(subject: Classifier, batch: Batch) -> Tensor:
    shown = sign_noise(on_grid(batch.images), radius=JUDGED / LEVELS, generators=batch.generators("hijack noise"))
    with torch.no_grad():
        return margin(subject.logits(on_grid(shown)), batch.labels) > 0


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
        yield Overlay(
            unit=image_id,
            role=role,  # type: ignore[arg-type]
            value=value,
            caption=f"the change, {LOUDER} times",
            image=(0.5 + LOUDER * (read[index] - rec.images[index])).clamp(0, 1),
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
        values = column_of(rows, key)
        exact = statistics.clopper_pearson(int(values.nansum()), len(values), level=0.95)
        return f"{exact.point:.3f} [{exact.low:.3f}, {exact.high:.3f}]"

    steps, restarts, _ = effort(draws)
    half = half_at({radius: _mean(rows, f"top:{radius}") for radius in RADII})
    lines: list[tuple[str, str]] = [
        *((f"{WHERE['top']}, {radius}/{LEVELS}", rate(f"top:{radius}")) for radius in RADII),
        *((f"{WHERE['random']}, {radius}/{LEVELS}", rate(f"random:{radius}")) for radius in RADII),
        *((f"{WHERE[name]}, {JUDGED}/{LEVELS}", rate(f"{name}:{JUDGED}")) for name in ("anti", "all")),
        (f"{WHERE['top']}, {JUDGED}/{LEVELS}, to a class drawn beforehand", rate(f"target:{JUDGED}")),
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
        title=f"Hijacked, share with its exact 95 % interval ({steps} steps, {restarts} restart"
        f"{'s' * (restarts != 1)}, the best iterate; {AREA:.0%} of the pixels unless it says everywhere)",
        columns=("attack", "hijacked"),
        rows=tuple(lines),
    )


@pytest.mark.audit("hijack")
def test_hijack_fails_on_most_pictures(ask: Ask) -> None:
    ask_about(ask, RESISTS, "resists")


@pytest.mark.audit("hijack")
def test_hijack_is_guided_by_the_map(ask: Ask) -> None:
    ask_about(ask, GUIDED, "guided")


def to_attack(dataset: Dataset, given: Mapping[str, Checks], *, guided: bool) -> Dataset:
    """The images that the model has right.

    Raises:
        Undefined: Nothing guides where nothing is hijacked.
    """
    found = given["found"]
    if guided and not found.by_gradient:
        raise Undefined(
            f"of {found.checked} pictures none was hijacked with {CALM}/{LEVELS} everywhere, so that there is nothing "
            "for a map to guide"
        )
    return those_right(dataset, found)


def ask_about(ask: Ask, question: Question, column: str) -> None:
    """Put one of the claims: they share the checks, and read different columns of the same measurement."""
    draws, seed = ask.policy.chance_draws, ask.terms.seed
    steps, _, queries = effort(draws)

    def prepare(_images: Tensor) -> dict[str, Checks]:
        if ask.subject.target_layer is None:
            raise Undefined(f"{ask.subject.name} has no map of features, so that no attack can be guided by one")
        order = shuffled(ask.dataset, seed)[: ask.terms.budget]
        check: Callable[..., Checks] = partial(checked, seed=seed, chunk=ask.terms.batch_size, progress=ask.progress)
        return {"found": check(ask.subject, ask.dataset, order, steps=steps, queries=queries)}

    ask(
        question,
        measure=partial(hijack, draws=draws),
        column=column,
        show=partial(show, draws=draws, column=column, folder=ask.log.path.parent / "hijacked"),
        version=VERSION,
        premise=prepare,
        among=partial(to_attack, guided=question is GUIDED),
    )
