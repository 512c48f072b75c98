"""Can the map be moved by a change that nobody sees and the prediction does not notice?

## What it measures

The image is rounded to 8 bits, and changed by at most 4/255 in every value: at random (noise: the sign of every
change is drawn, so that the image lies in a corner of the ball), and by an attack (attack). The attack follows the
gradient of the map's share in its own most salient tenth of the cells, in whole steps of 1/255, first within 1, then
within 2, then within 4, and keeps the iterate that took most of the saliency away of those that keep the predicted
class and its probability to within 0.1. Every image that is judged is one that an 8-bit file can hold. Likeness is
Spearman's rank correlation of the two maps, as they are shown.

## Why it matters

Two pictures that look the same and are classified the same should not be explained differently. Noise says how far a
map is from that by itself, the attack how far somebody can drive it: an explanation that is to hold against an
adversary has to hold against the second.

## Known limits

One map is attacked, gradient times activation at the target layer (HiResCAM; for networks that end in a mean and one
linear layer also CAM, Grad-CAM and XGrad-CAM), and all chosen methods are read on the images that come of it: for the
others it is a transfer, and what it leaves unmoved may fall to an attack of its own. The gradient inside the map is
held fixed within a step, which is exact where the network behind the layer is piecewise linear, and leaves the second
order out elsewhere. Few steps without restarts find an upper bound of the likeness, not the least. A model that hides
its gradient is an ERROR, not a PASS. Undefended networks are fragile nearly always, which is why attack informs and
does not gate. A map that ignores the picture cannot be moved.

## Caught by

hidden_carrier, noise_map, masked_gradients

## References

Ghorbani et al. 2019 (arXiv:1710.10547); Dombrowski et al. 2019 (arXiv:1906.07983) for the second order; Athalye et al.
2018 (arXiv:1802.00420) for gradients that are masked; Croce et al. 2021 (RobustBench, arXiv:2010.09670) for the radius.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from audits.shares import share_so_far
from camcore import chance
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import Row, column_of, rank
from camcore.fragility import LEVELS, TOP, Attack, attack, on_grid
from camcore.images import Batch, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.metrics.fragility import centre_shift, top_intersection
from camcore.metrics.invariance import likeness
from camcore.perturbations import sign_noise
from camcore.recording import Recording, record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

VERSION = "1"
RADII = (1, 2, 4)  # in steps of 1/255
JUDGED = RADII[-1]
STEPS = 3  # of the attack at each radius, for each chance draw of the profile
MOVED = 0.5  # rank correlation below which a map counts as moved in the table

NOISE = Question(
    name="fragility/noise",
    sentence="random noise of 4/255 leaves the {cam} map as it is",
    kind="INV",
    measure="Spearman's rank correlation of the maps before and after random noise",
    unit="rank correlation",
    bounds=(-1.0, 1.0),
)
ATTACK = Question(
    name="fragility/attack",
    sentence="a change of at most 4/255 that seeks to move the map, and keeps the prediction, leaves {cam} as it is",
    kind="INV",
    measure="Spearman's rank correlation of the maps before and after the attack",
    unit="rank correlation",
    bounds=(-1.0, 1.0),
)
QUESTIONS = (NOISE, ATTACK)
KINDS = {"noise": "random noise", "attack": "attack"}


def fragility(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], draws: int) -> dict[str, Tensor]:
    """How alike every map is before and after noise, and before and after one attack that serves all methods.

    Returns:
        `<map>:<kind>:<radius>`, the likeness (noise: the mean over the draws), at the largest radius also
        `<map>:<kind>:top`, the share of the most salient tenth that stayed, and `<map>:<kind>:centre`, how far the
        centre of mass moved (share of the diagonal); kind is "noise" or "attack", <map> a CAM or "edges".
        `<kind>:probability` and `<kind>:same`: how far the class's probability moved, and whether it stayed the first.
        `attack:share`: what is left where the map was most salient, `attack:before`: what was there;
        `attack:masked`: 1 where the attack had no gradient, and hence `<cam>:attack:<radius>` nothing to judge.
    """
    rec = record(subject, on_grid(batch.images), chunk=batch.chunk)
    before = rec.logits.softmax(1).gather(1, rec.target[:, None])[:, 0]
    maps = _maps(rec, cams)
    found: dict[str, Tensor] = {}

    def compare(kind: str, radius: int, images: Images) -> dict[str, Tensor]:
        after = record(subject, images, rec.target, chunk=batch.chunk)
        saliency = _maps(after, cams)
        values = {f"{name}:{kind}:{radius}": likeness(maps[name], saliency[name]) for name in maps}
        if radius == JUDGED:
            now = after.logits.softmax(1).gather(1, rec.target[:, None])[:, 0]
            values[f"{kind}:probability"] = (now - before).abs()
            values[f"{kind}:same"] = (after.logits.argmax(1) == rec.target).double()
            for name in maps:
                values[f"{name}:{kind}:top"] = top_intersection(maps[name], saliency[name], TOP)
                values[f"{name}:{kind}:centre"] = centre_shift(maps[name], saliency[name])
        return values

    for radius in RADII:
        repeats = [compare("noise", radius, images) for images in noisy(batch, rec.images, radius, draws)]
        found |= {key: torch.stack([one[key] for one in repeats]).mean(0) for key in repeats[0]}
    attacked = attack(rec, radii=RADII, steps=STEPS * draws)
    for radius, images in zip(RADII, attacked.images, strict=True):
        found |= compare("attack", radius, images)
    return _judged(found, attacked, {name: degeneracy(rec, maps[name]) for name in cams})


def noisy(batch: Batch, images: Images, radius: int, draws: int) -> Iterator[Images]:
    """Images with noise on the 8-bit grid; the judged radius is drawn more often."""
    for draw in range(draws if radius == JUDGED else 1):
        generators = batch.generators(f"fragility noise {radius} {draw}")
        yield on_grid(sign_noise(images, radius=radius / LEVELS, generators=generators))


def _maps(rec: Recording, cams: Mapping[str, CamMethod]) -> dict[str, Tensor]:
    return {**{name: rectify(cam(rec)) for name, cam in cams.items()}, "edges": chance.edges(rec)}


def _judged(found: Mapping[str, Tensor], attacked: Attack, why: Mapping[str, Tensor]) -> dict[str, Tensor]:
    columns = {
        **found,
        "attack:share": attacked.share[:, -1],
        "attack:before": attacked.before,
        "attack:masked": attacked.masked.double(),
    }
    for name, code in why.items():
        for key in found:
            if key.partition(":")[0] == name:
                nothing = (code != 0) | (attacked.masked & (":attack:" in key))
                columns[key] = found[key].masked_fill(nothing, torch.nan)
        columns[f"{name}:degenerate"] = code.double()
    return columns


def show(
    subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, column: str, draws: int
) -> Iterable[Evidence]:
    """The image with its map before and after, likeness over the radius, and what else the change did."""
    rec = record(subject, on_grid(batch.images), chunk=batch.chunk)
    kind = column.split(":")[1]
    if kind == "attack":
        images = attack(rec, radii=RADII, steps=STEPS * draws).images[-1]
    else:
        images = next(noisy(batch, rec.images, JUDGED, 1))
    after = record(subject, images, rec.target, chunk=batch.chunk)
    for index, image_id in enumerate(batch.ids):
        for when, one in ((f"before the {KINDS[kind]}", rec), (f"after the {KINDS[kind]}", after)):
            saliency = unit_range(upsample(rectify(cam(one)), batch.images.shape[2:], one.placement))
            predicted = int(one.logits[index].argmax())
            yield Overlay(
                unit=image_id,
                role=rank(index, len(batch)),
                value=rows[image_id].get(column, torch.nan),
                caption=f"{when}: {subject.classes[predicted]} ({one.logits[index].softmax(0)[predicted]:.2f})",
                image=one.images[index],
                saliency=saliency[index],
            )

    def mean(key: str) -> float:
        return float(column_of(rows, key).nanmean())

    yield Curve(
        title=f"How alike {name} stays, and the image's own edges",
        x_label="largest change of a value, in steps of 1/255",
        y_label="rank correlation with the map before (mean over images)",
        x=(0, *RADII),
        series={
            f"{text}, {of}": (1.0, *(mean(f"{of}:{key}:{radius}") for radius in RADII))
            for key, text in KINDS.items()
            for of in (name, "edges")
        },
    )
    yield _table(rows, name)


def _table(rows: Mapping[str, Row], name: str) -> Table:
    """Noise and attack side by side, with the share of maps that moved and its interval."""

    def mean(key: str) -> float:
        return round(float(column_of(rows, key).nanmean()), 4)

    def moved(kind: str) -> str:
        values = column_of(rows, f"{name}:{kind}:{JUDGED}")
        return share_so_far((values[values.isfinite()] <= MOVED).double())

    both = (
        ("rank correlation, mean", lambda kind: mean(f"{name}:{kind}:{JUDGED}")),
        (f"maps at or below {MOVED:g}, share [95 %]", moved),
        ("most salient tenth that stays most salient", lambda kind: mean(f"{name}:{kind}:top")),
        ("centre of mass moves by (of the diagonal)", lambda kind: mean(f"{name}:{kind}:centre")),
        ("rank correlation of the image's edges", lambda kind: mean(f"edges:{kind}:{JUDGED}")),
        ("probability moves by", lambda kind: mean(f"{kind}:probability")),
        ("predicted class stays", lambda kind: mean(f"{kind}:same")),
    )
    share, masked = (mean("attack:before"), mean("attack:share")), mean("attack:masked")
    return Table(
        title=f"What a change of {JUDGED}/255 does to {name}; the attack seeks to move HiResCAM",
        columns=("quantity", *KINDS.values()),
        rows=(
            *((text, value("noise"), value("attack")) for text, value in both),
            ("share in the attacked cells, before and after", "", f"{share[0]:.3f} to {share[1]:.3f}"),
            ("images on which the attack has no gradient", "", masked),
        ),
    )


@pytest.mark.audit("fragility")
def test_fragility_under_noise(ask: Ask, cam: str) -> None:
    ask_about(ask, NOISE, cam, column=f"{cam}:noise:{JUDGED}")


@pytest.mark.audit("fragility")
def test_fragility_under_attack(ask: Ask, cam: str) -> None:
    ask_about(ask, ATTACK, cam, column=f"{cam}:attack:{JUDGED}", premise=True)


def ask_about(ask: Ask, question: Question, cam: str, *, column: str, premise: bool = False) -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    draws = ask.policy.chance_draws
    ask(
        question,
        cam,
        measure=partial(fragility, cams=ask.defined, draws=draws),
        column=column,
        show=partial(show, name=cam, cam=ask.cams[cam], column=column, draws=draws),
        version=VERSION,
        premise=partial(has_a_gradient, ask.subject) if premise else None,
    )


def has_a_gradient(subject: Classifier, images: Images) -> dict[str, object]:
    """Check that the attack has a direction to go in.

    Raises:
        ValueError: It has none: whatever it leaves unmoved says nothing.
    """
    masked = attack(record(subject, on_grid(images)), radii=(1,), steps=1).masked
    if masked.any():
        raise ValueError(
            f"gradients masked: on {int(masked.sum())} of {len(images)} images the map of {subject.name} has no slope "
            "at the pixels (rounding or detach on the way in?), so an attack by gradient proves nothing"
        )
    return {}
