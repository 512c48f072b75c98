"""Attacks without a gradient in the marked pixels, the best of all attacks, and what they say of that by gradient."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from audits import hijack_judged
from audits import test_hijack as audit
from audits.hijack_blind import COLOURS, LENGTHS, NOISES, noise, squares, wave, waves
from audits.hijack_doubts import LUCKY, doubted
from audits.hijack_judged import BLIND, judged
from camcore import with_target_layer
from camcore.adversary import Attacked
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.fragility import on_grid
from camcore.images import batches
from fixtures.controls.registry import find_control
from fixtures.datasets.scenes import scenes
from tests.hijacked import FOUND, LEAST, batch, subject

MASK = (torch.rand(12, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def rows(**columns: list[float]) -> dict[str, dict[str, float]]:
    """What was measured, as the engine hands it out; columns that are not named say that all is well."""
    count = len(next(iter(columns.values())))
    usual = {"stuck:top": 0.0, "stuck:random": 0.0, "top:4": 0.0, "noise:4": 0.0, "waves:4": 0.0, "squares:4": 0.0}
    named = {name.replace("_", ":"): values for name, values in columns.items()}
    return {
        f"img{index}": {**usual, "resists": 0.0, **{name: values[index] for name, values in named.items()}}
        for index in range(count)
    }


def some(hits: int, of: int) -> list[float]:
    return [1.0] * hits + [0.0] * (of - hits)


@cache
def measured_on(name: str, count: int = 4) -> dict[str, Tensor]:
    """The columns of a control, on pictures that it has right."""
    asked = with_target_layer(find_control(name))
    data = scenes(2 * count, seed=0)
    (whole,) = batches(data, data.ids, asked.geometry, seed=0, device=asked.device, size=2 * count)
    with torch.no_grad():
        right = (asked.logits(on_grid(whole.images)).argmax(1) == whole.labels).nonzero()[:count, 0]
    whole = replace(
        whole,
        images=whole.images[right],
        labels=whole.labels[right],
        ids=tuple(whole.ids[index] for index in right.tolist()),
    )
    found = replace(FOUND, signatures={}, beside=frozenset(whole.ids))
    return dict(audit.hijack(asked, whole, effort=LEAST, found=found))


def test_attacks_without_a_gradient_keep_to_the_mask_the_size_and_the_grid() -> None:
    asked = subject()
    whole = batch(asked, 12)
    every, start = torch.arange(12), on_grid(whole.images)
    with metered() as cost:
        found = [
            noise(asked, whole, MASK),
            waves(asked, whole, MASK, every),
            squares(asked, whole, MASK, every, queries=10),
        ]
    assert cost.backwards == 0
    assert cost.forwards <= 12 * (NOISES + len(LENGTHS) * len(COLOURS) + 10)
    for one in found:
        change = one.images - start
        assert change.any()
        assert (change.abs() <= 4 / 255 + 1e-6).all()
        assert (change * (1 - MASK[:, None])).abs().max() <= 1e-6
        assert torch.equal(on_grid(one.images), one.images)
        with torch.no_grad():
            assert torch.equal(asked.logits(one.images).argmax(1) != whole.labels, one.success)


def test_waves_go_up_and_down_as_often_as_they_are_said_to() -> None:
    like = torch.zeros(1, 3, 4, 4)
    chequer = wave(like, (1, 1), (1, -1, 1))
    assert torch.equal(chequer[0], torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]] * 2))
    assert torch.equal(chequer[1], -chequer[0])
    assert torch.equal(wave(like, (0, 2), (1, 1, 1))[2], torch.tensor([[1.0, 1, -1, -1]] * 4))


def test_what_any_attack_finds_counts_and_is_the_picture_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attack finds one image that no other does; the one by gradient finds image 0 and none beside."""
    asked = subject()
    whole = batch(asked, 6)

    def hits(index: int, pixel: float):
        def run(_subject, batch, _mask, given=None, **_: object) -> Attacked:
            chosen = torch.arange(len(batch)) if given is None else given
            never = torch.zeros(len(chosen), dtype=torch.bool)
            images = torch.full_like(batch.images[chosen], pixel)
            return Attacked(images=images, loss=never.float(), success=chosen == index, no_slope=never, stuck=never)

        return run

    monkeypatch.setattr(hijack_judged, "swept", lambda *given: {4: hits(0, 0.0)(*given[:3])})
    for index, name in enumerate(BLIND, start=1):
        monkeypatch.setattr(hijack_judged, name, hits(index, index / 10))
    monkeypatch.setattr(hijack_judged, "attack", lambda *given, rows, **_: hits(4, 0.4)(*given[:3], rows))
    monkeypatch.setattr(hijack_judged, "blended", lambda *given, **_: hits(5, 0.5)(*given[:3]))
    found = judged(asked, whole, MASK[:6], LEAST, FOUND)

    assert found.success.all()
    assert [round(float(one.mean()), 3) for one in found.images] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert found.tried["waves"].isnan().tolist() == [True, *[False] * 5]  # the gradient had it
    assert {name: int(hits.nansum()) for name, hits in found.tried.items()} == dict.fromkeys(
        (*BLIND, "target", "signature"), 1
    )


def test_nobody_doubts_an_attack_that_no_other_beats() -> None:
    assert doubted(rows(top_4=some(5, 50), noise_4=some(5, 50)), guided=True) == ""
    assert doubted(rows(top_4=some(0, 50), squares_4=some(LUCKY, 50)), guided=True) == ""
    assert doubted(rows(top_4=some(9, 400), noise_4=[0.0] * 391 + some(4, 9)), guided=True) == ""


def test_more_than_a_hundredth_without_a_slope_is_doubted() -> None:
    assert doubted(rows(stuck_top=some(1, 100)), guided=False) == ""
    said = doubted(rows(stuck_top=some(2, 100)), guided=False)
    assert said.startswith("gradients masked: on 2 of 100 images the attack where Grad-CAM looks has no slope")
    assert "1%" in said
    assert said.endswith("All attacks together hijack 0 of 100")


def test_what_is_compared_with_random_pixels_needs_a_slope_there_too() -> None:
    assert doubted(rows(stuck_random=some(2, 100)), guided=False) == ""
    assert "on 2 of 100 images the attack in random pixels" in doubted(rows(stuck_random=some(2, 100)), guided=True)


def test_noise_that_hijacks_more_than_the_gradient_is_doubted() -> None:
    assert "noise hijacks 1 images and the gradient 0" in doubted(rows(noise_4=some(1, 50)), guided=False)


@pytest.mark.parametrize("name", BLIND)
def test_images_that_fall_without_a_gradient_alone_are_compared_one_by_one(name: str) -> None:
    """Though the gradient hijacks more in all."""
    gradient = [0.0] * 20 + [1.0] * 30
    given = {"top_4": gradient, f"{name}_4": some(LUCKY + 1, 50)}
    assert f"{LUCKY + 1} of 50 images fall to {name} and not to the gradient" in doubted(rows(**given), guided=False)
    of_many = {"top_4": [0.0] * 400, "noise_4": [0.0] * 400, f"{name}_4": some(4, 400)}
    assert f"fall to {name}" not in doubted(rows(**of_many), guided=False)  # a hundredth of them


def test_an_image_whose_map_marks_nothing_is_not_judged() -> None:
    columns = measured_on("even_map")
    assert columns["resists"].isnan().all()
    assert columns["guided"].isnan().all()
    assert (columns["degenerate"] == Degeneracy.CONSTANT).all()
    assert (measured_on("clean")["degenerate"] == Degeneracy.NONE).all()


def test_a_masked_attack_that_stands_still_says_so() -> None:
    columns = measured_on("blinkered")
    assert columns["stuck:top"].sum() > 2
    assert (columns["stuck:random"] == 0).any()
    assert (measured_on("clean")["stuck:top"] == 0).all()


def test_waves_find_the_jaw_that_no_gradient_tells_of() -> None:
    columns = measured_on("numb_jaw")
    assert int(columns["waves:4"].nansum()) > LUCKY
    assert (columns["resists"] == 1).all()


def test_squares_find_the_lines_that_no_gradient_leads_to() -> None:
    columns = measured_on("lined")
    assert columns["top:4"].sum() == 0
    assert int(columns["squares:4"].nansum()) > LUCKY
    assert (columns["resists"][columns["squares:4"] == 1] == 1).all()


@pytest.mark.parametrize("name", ["clean", "adversarial"])
def test_nothing_is_found_without_a_gradient_in_the_twins(name: str) -> None:
    columns = measured_on(name)
    assert all(columns[f"{one}:4"].nansum() == 0 for one in BLIND)
