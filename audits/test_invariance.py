"""Does the map stay when nothing changes, and move when the picture moves?

## What it measures

Each image is explained again, for the class predicted at first, after a change that leaves what is in it as it was,
and the two maps are compared, image by image. Mirrored, and moved by a sixteenth of its side (flip, translation): the
map is moved back, pixel by pixel, before it is compared. Saved as JPEG of quality 75, and made smaller by a quarter
and enlarged again (jitter; the worse of the two counts). Uniform noise of at most 0.02 in every value
(max_sensitivity: the farthest of the maps drawn). And a constant added to all pixels of a twin network whose first
layer absorbs it, so that it computes the same scores to within rounding (shift). Likeness is Spearman's rank
correlation of the maps as they are shown; distance is the norm of their difference over the sum of their norms.

## Why it matters

Whoever reads a map takes it to be about the picture. If it changes when the file is saved again, it is about the file.
If it depends on which number stands for black, it is about the convention.

## Known limits

A map that ignores the picture passes all but flip and translation, and a symmetric one passes flip. The model itself
may treat a mirrored picture differently: how far its probability moves, and how often the predicted class stays, is
shown beside. CAM maps of a deep layer pass the shift by construction; a model whose first layer cannot absorb one
(the images enter it on two ways) is not asked. Moving a picture by less than a cell of the map tells little about a
map of fixed places. Noise is drawn, not sought: what an adversary finds is asked by the fragility audit.

## Caught by

noise_map, fixed_map, zero_is_black

## References

Kindermans et al. 2019 (arXiv:1711.00867, input shift); Yeh et al. 2019 (arXiv:1901.09392, max-sensitivity); Wang et al.
2020 (arXiv:2004.04581) for CAMs that do not go along with a transformed image; Hendrycks and Dietterich 2019
(arXiv:1903.12261) for JPEG among common corruptions.
"""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.invariance_changes import changed, comparisons, noisy
from audits.invariance_shown import show
from audits.question import Question
from camcore import chance
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.images import Batch
from camcore.maps import rectify
from camcore.metrics.invariance import (
    relative_distance,
    sensitivity,
)
from camcore.recording import Recording, record
from camcore.shift import apart, record_shifted, twin_of
from camcore.subject import Classifier

VERSION = "1"
DRAWS = 4  # of the noise, for each chance draw of the profile

LIKENESS = "Spearman's rank correlation of the two maps"
DISTANCE = "norm of the difference of the two maps over the sum of their norms"
SHIFT = Question(
    name="invariance/shift",
    sentence="{cam} does not depend on a constant that the model's first layer absorbs",
    kind="INV",
    measure=DISTANCE,
    unit="of the norms",
    bounds=(0.0, 1.0),
    direction="within",
)
FLIP = Question(
    name="invariance/flip",
    sentence="the {cam} map of the mirrored image is the mirrored map",
    kind="INV",
    measure=f"{LIKENESS}, one mirrored back",
    unit="rank correlation",
    bounds=(-1.0, 1.0),
)
TRANSLATION = Question(
    name="invariance/translation",
    sentence="the {cam} map moves along when the image moves by a sixteenth of its side",
    kind="INV",
    measure=f"{LIKENESS}, one moved back",
    unit="rank correlation",
    bounds=(-1.0, 1.0),
)
JITTER = Question(
    name="invariance/jitter",
    sentence="the {cam} map stays when the image is saved as JPEG or resized",
    kind="INV",
    measure=f"{LIKENESS}, the worse of JPEG and resizing",
    unit="rank correlation",
    bounds=(-1.0, 1.0),
)
MAX_SENSITIVITY = Question(
    name="invariance/max_sensitivity",
    sentence="no noise of at most 0.02 that was drawn moves the {cam} map far",
    kind="INV",
    measure=f"{DISTANCE}, the farthest of the noisy images drawn",
    unit="of the norms",
    bounds=(0.0, 1.0),
    direction="within",
)
QUESTIONS = (SHIFT, FLIP, TRANSLATION, JITTER, MAX_SENSITIVITY)


def invariance(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], draws: int) -> dict[str, Tensor]:
    """How every map, and maps of chance, follow each change of the images; one recording serves all of them.

    Returns:
        `<map>:flip`, `<map>:translation`, `<map>:jpeg`, `<map>:resize` (likeness) and `<map>:jitter` (the worse of the
        last two); `<map>:max_sensitivity` (distance), `<map>:sensitivity` (the same over the norm of the map alone, as
        in the paper). `<change>:probability`, how far the class's probability moves, and `<change>:same`, 1 where the
        predicted class stays. <map> is a CAM, "edges" or "random"; `<cam>:degenerate` says why there is no map.
    """
    rec = record(subject, batch.images, chunk=batch.chunk)
    maps = _maps(rec, batch, cams, "as it is")
    found: dict[str, Tensor] = {}
    again = partial(record, subject, target=rec.target, chunk=batch.chunk)
    for change, make in changed(batch).items():
        compare, after = comparisons(batch)[change], again(make())
        found |= _of_the_model(change, rec, after)
        for name, saliency in _maps(after, batch, cams, change).items():
            # maps of chance lie evenly, wherever the layer's cells are
            found[f"{name}:{change}"] = compare(maps[name], saliency, rec.placement if name in cams else None)
    far, paper = [], []
    for draw, images in enumerate(noisy(batch, DRAWS * draws)):
        after = again(images)
        found |= {} if draw else _of_the_model("noise", rec, after)
        noise = _maps(after, batch, cams, f"noise {draw}")
        far.append({name: relative_distance(maps[name], saliency) for name, saliency in noise.items()})
        paper.append({name: sensitivity(maps[name], saliency) for name, saliency in noise.items()})
    for name in maps:
        found[f"{name}:jitter"] = torch.minimum(found[f"{name}:jpeg"], found[f"{name}:resize"])
        found[f"{name}:max_sensitivity"] = torch.stack([one[name] for one in far]).amax(0)
        found[f"{name}:sensitivity"] = torch.stack([one[name] for one in paper]).amax(0)
    return _judged(found, {name: degeneracy(rec, maps[name]) for name in cams})


def input_shift(
    subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], twin: Classifier
) -> dict[str, Tensor]:
    """How far every map moves in the twin that takes shifted images.

    Returns:
        `<map>:shift` (distance); `shift:logits`, how far the twin's logits are off, and the rest as for `invariance`.
    """
    rec = record(subject, batch.images, chunk=batch.chunk)
    after = record_shifted(twin, batch.images, rec.target, chunk=batch.chunk)
    maps = _maps(rec, batch, cams, "as it is")
    found = {**_of_the_model("shift", rec, after), "shift:logits": apart(rec.logits, after.logits)}
    for name, saliency in _maps(after, batch, cams, "shift").items():
        found[f"{name}:shift"] = relative_distance(maps[name], saliency)
    return _judged(found, {name: degeneracy(rec, maps[name]) for name in cams})


def _of_the_model(change: str, rec: Recording, after: Recording) -> dict[str, Tensor]:
    before, now = (one.logits.softmax(1).gather(1, rec.target[:, None])[:, 0] for one in (rec, after))
    same = after.logits.argmax(1) == rec.target
    return {f"{change}:probability": (now - before).abs(), f"{change}:same": same.float()}


def _maps(rec: Recording, batch: Batch, cams: Mapping[str, CamMethod], change: str) -> dict[str, Tensor]:
    """Every map as it is shown."""
    maps = {name: rectify(cam(rec)) for name, cam in cams.items()}
    random = chance.random(rec, generators=batch.generators(f"invariance chance {change}"))
    return {**maps, "edges": chance.edges(rec), "random": random}


def _judged(found: Mapping[str, Tensor], why: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns, without those of maps that were none to begin with."""
    columns = dict(found)
    for name, code in why.items():
        for key in found:
            if key.partition(":")[0] == name:
                columns[key] = found[key].masked_fill(code != 0, torch.nan)
        columns[f"{name}:degenerate"] = code.double()
    return columns


@pytest.mark.audit("invariance")
def test_invariance_to_a_shift_of_the_input(ask: Ask, cam: str) -> None:
    ask(
        SHIFT,
        cam,
        measure=partial(input_shift, cams=ask.defined),
        column=f"{cam}:shift",
        show=partial(show, name=cam, cam=ask.cams[cam], column=f"{cam}:shift"),
        version=VERSION,
        premise=lambda images: {"twin": twin_of(ask.subject, images)},
        apart="shift",  # a model may have no twin, and the other claims do not need one
    )


@pytest.mark.audit("invariance")
def test_invariance_under_mirroring(ask: Ask, cam: str) -> None:
    ask_about(ask, FLIP, cam)


@pytest.mark.audit("invariance")
def test_invariance_under_translation(ask: Ask, cam: str) -> None:
    ask_about(ask, TRANSLATION, cam)


@pytest.mark.audit("invariance")
def test_invariance_to_jitter(ask: Ask, cam: str) -> None:
    ask_about(ask, JITTER, cam)


@pytest.mark.audit("invariance")
def test_invariance_to_noise(ask: Ask, cam: str) -> None:
    ask_about(ask, MAX_SENSITIVITY, cam)


def ask_about(ask: Ask, question: Question, cam: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    column = f"{cam}:{question.name.partition('/')[2]}"
    ask(
        question,
        cam,
        measure=partial(invariance, cams=ask.defined, draws=ask.policy.chance_draws),
        column=column,
        show=partial(show, name=cam, cam=ask.cams[cam], column=column),
        version=VERSION,
    )
