"""Attacks without a gradient in the marked pixels, the best of all attacks, and what they say of that by gradient."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from audits import hijack_judged
from audits import test_hijack as audit
from audits.hijack_attacks import masks, swept
from audits.hijack_blind import COLOURS, LENGTHS, NOISES, noise, squares, wave, waves
from audits.hijack_doubts import LUCKY, doubted
from audits.hijack_judged import BLIND, judged
from audits.policy import Attacks
from camcore import with_target_layer
from camcore.adversary import Climbed
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.fragility import on_grid
from camcore.images import Batch, batches
from camcore.recording import record
from fixtures.controls.registry import find_control
from fixtures.datasets.scenes import scenes
from tests.hijacked import FOUND, LEAST, batch, subject

MASK = (torch.rand(12, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3).float()
WHERE = {name: MASK.clone() for name in ("top", "random", "anti")}  # told apart by which they are
NAN = torch.nan


def rows(**columns: list[float]) -> dict[str, dict[str, float]]:
    """What was measured, as the engine hands it out; columns that are not named say that all is well."""
    count = len(next(iter(columns.values())))
    usual = dict.fromkeys(("stuck:top", "stuck:random", "top:4", "noise:4", "waves:4", "squares:4", "anti:4"), 0.0)
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
            noise(asked, whole, MASK, every),
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


def one_each(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attack finds one image that no other does: by gradient 0 where Grad-CAM looks, 6 at random, 7 least.

    Returns:
        What is tried on how many images, as it is tried.
    """
    order: list[str] = []

    def finds(index: int, name: str, batch: Batch, rows: Tensor | None = None) -> Climbed:
        chosen = torch.arange(len(batch)) if rows is None else rows
        order.append(f"{name} {len(chosen)}")
        never = torch.zeros(len(chosen), dtype=torch.bool)
        images = torch.full_like(batch.images[chosen], index / 10)
        one = Climbed(
            images=images, loss=never.float(), success=chosen == index, no_slope=never, stuck=never, steps=chosen
        )
        return one

    def sweeps(_: object, batch: Batch, mask: Tensor, effort: Attacks, rows: Tensor) -> dict[int, Climbed]:
        one = finds(0, "top", batch, rows) if mask is WHERE["top"] else finds(6, "random", batch, rows)
        return dict.fromkeys(effort.sizes, one)

    def attacks(_: object, batch: Batch, mask: Tensor, *__: object, rows: Tensor, **___: object) -> Climbed:
        return finds(4, "target", batch, rows) if mask is WHERE["top"] else finds(7, "anti", batch, rows)

    def without(index: int, name: str) -> Callable[..., Climbed]:
        return lambda _, batch, __, rows, **___: finds(index, name, batch, rows)

    monkeypatch.setattr(hijack_judged, "swept", sweeps)
    for index, name in enumerate(BLIND, start=1):
        monkeypatch.setattr(hijack_judged, name, without(index, name))
    monkeypatch.setattr(hijack_judged, "attack", attacks)
    monkeypatch.setattr(hijack_judged, "blended", lambda _, batch, *__, **___: finds(5, "signature", batch))
    return order


def test_what_any_attack_finds_counts_and_is_the_picture_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    one_each(monkeypatch)
    found = judged(asked, batch(asked, 9), WHERE, LEAST, FOUND)

    assert found.success.tolist() == [True] * 8 + [False]
    assert [round(float(one.mean()), 3) for one in found.images] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.0]
    assert found.place == ("top",) * 6 + ("random", "anti", "top")
    assert found.marked.tolist() == [True] * 6 + [False] * 3
    assert found.tried["waves"].isnan().tolist() == [True, *[False] * 8]  # the gradient had it
    assert {name: int(hits.nansum()) for name, hits in found.tried.items()} == dict.fromkeys(
        (*BLIND, "target", "signature", "random", "anti"), 1
    )


def test_pixels_that_are_marked_least_are_tried_on_the_chosen_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    whole = batch(asked, 9)
    one_each(monkeypatch)
    found = judged(asked, whole, WHERE, LEAST, replace(FOUND, beside=frozenset(whole.ids[:3])))

    assert found.success.tolist() == [True] * 3 + [False] * 3 + [True] + [False] * 2  # 3, 4, 5 and 7 are not beside
    assert found.tried["anti"].isnan().tolist() == [False] * 3 + [True] * 6


def test_what_is_attacked_again_is_what_counted_and_by_no_more_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    whole = batch(asked, 9)
    order = one_each(monkeypatch)
    first = judged(asked, whole, WHERE, LEAST, FOUND)
    order.clear()
    second = judged(asked, whole, WHERE, LEAST, FOUND, again=first.success)

    assert torch.equal(first.images, second.images)
    assert (first.success.tolist(), first.place) == (second.success.tolist(), second.place)
    # the signature of all that are given to it, of which those without a target are left alone
    assert order == ["top 9", "noise 7", "waves 6", "squares 5", "target 4", "signature 9", "random 2", "anti 1"]


def test_an_image_that_is_attacked_again_comes_to_the_same() -> None:
    asked = subject()
    whole = batch(asked, 6)
    where = masks(record(asked, on_grid(whole.images)), whole, area=LEAST.area)
    first = judged(asked, whole, where, LEAST, FOUND)
    with metered() as cost:
        second = judged(asked, whole, where, LEAST, FOUND, again=first.success)
    with metered() as alone:
        swept(asked, whole, where["top"], LEAST, torch.arange(6))

    assert 0 < int(first.success.sum()) < 6
    assert torch.equal(first.success, second.success)
    assert first.place == second.place
    torch.testing.assert_close(first.images, second.images, atol=1e-6, rtol=0)
    with metered() as none:
        judged(asked, whole, where, LEAST, FOUND, again=torch.zeros(6, dtype=torch.bool))
    assert none.forwards == alone.forwards <= cost.forwards


def test_nobody_doubts_an_attack_that_no_other_beats() -> None:
    assert doubted(rows(top_4=some(5, 50), noise_4=some(5, 50))) == ""
    assert doubted(rows(top_4=some(0, 50), squares_4=some(LUCKY, 50))) == ""
    assert doubted(rows(top_4=some(9, 400), noise_4=[0.0] * 391 + some(4, 9))) == ""


@pytest.mark.parametrize(("name", "where"), [("top", "where Grad-CAM looks"), ("random", "in random pixels")])
def test_more_than_a_hundredth_without_a_slope_is_doubted(name: str, where: str) -> None:
    """In random pixels, too: what is found in them counts."""

    def said(stuck: int, of: int) -> str:
        return doubted(rows(**{f"stuck_{name}": some(stuck, of)}))

    assert said(4, 400) == ""
    assert said(5, 400).startswith(f"gradients masked: on 5 of 400 images the attack {where} has no slope")
    assert said(LUCKY, 16) == ""
    assert f"on {LUCKY + 1} of 16 images the attack {where}" in said(LUCKY + 1, 16)
    assert "1%" in said(2, 100)
    assert said(2, 100).endswith("All attacks together hijack 0 of 100")


def test_noise_that_hijacks_more_than_the_gradient_is_doubted() -> None:
    assert "noise hijacks 1 images and the gradient 0" in doubted(rows(noise_4=some(1, 50)))


@pytest.mark.parametrize("name", BLIND)
def test_images_that_fall_without_a_gradient_alone_are_compared_one_by_one(name: str) -> None:
    """Though the gradient hijacks more in all."""
    gradient = [0.0] * 20 + [1.0] * 30
    given = {"top_4": gradient, f"{name}_4": some(LUCKY + 1, 50)}
    assert f"{LUCKY + 1} of 50 images fall to {name} and not to the gradient" in doubted(rows(**given))
    of_many = {"top_4": [0.0] * 400, "noise_4": [0.0] * 400, f"{name}_4": some(4, 400)}
    assert f"fall to {name}" not in doubted(rows(**of_many))  # a hundredth of them


def test_one_image_by_each_of_two_attacks_is_two_images() -> None:
    apart = rows(top_4=[0.0, 0.0, 1.0, 0.0], waves_4=[1.0, 0.0, NAN, 0.0], squares_4=[0.0, 1.0, NAN, 0.0])
    assert "2 of 4 images fall to noise or waves or squares and not to the gradient" in doubted(apart)
    same = rows(top_4=[0.0, 0.0, 1.0, 0.0], waves_4=[1.0, 0.0, NAN, 0.0], squares_4=[1.0, 0.0, NAN, 0.0])
    assert doubted(same) == ""


def test_what_was_tried_on_few_images_does_not_drown_in_those_of_the_others() -> None:
    few = {"squares_4": [*some(LUCKY + 1, 16), *[NAN] * 384], "anti_4": [*some(0, 16), *[NAN] * 384]}
    said = doubted(rows(**few))
    assert f"{LUCKY + 1} of 16 images fall to squares and not to the gradient" in said
    assert "noise or waves" not in said  # said once
    apart = rows(**few | {"squares_4": [*some(LUCKY, 16), *[NAN] * 384], "waves_4": [0.0] * 396 + [1.0] * 4})
    assert "5 of 400 images fall to noise or waves or squares" in doubted(apart)


def test_images_that_the_gradient_has_need_no_waves_and_count_nonetheless() -> None:
    hijacked = {"top_4": [1.0] * 396 + [0.0] * 4}
    assert doubted(rows(**hijacked, waves_4=[NAN] * 396 + [1.0] * 4)) == ""  # of 400, a hundredth
    said = doubted(rows(top_4=[1.0] * 395 + [0.0] * 5, waves_4=[NAN] * 395 + [1.0] * 5))
    assert "5 of 400 images fall to waves and not to the gradient" in said


@pytest.mark.slow
def test_an_image_whose_map_marks_nothing_is_not_judged() -> None:
    columns = measured_on("even_map")
    assert columns["resists"].isnan().all()
    assert columns["guided"].isnan().all()
    assert (columns["degenerate"] == Degeneracy.CONSTANT).all()
    assert (measured_on("clean")["degenerate"] == Degeneracy.NONE).all()


@pytest.mark.slow
def test_a_masked_attack_that_stands_still_says_so() -> None:
    columns = measured_on("blinkered")
    assert columns["stuck:top"].sum() > 2
    assert (columns["stuck:random"] == 0).any()
    assert (measured_on("clean")["stuck:top"] == 0).all()


@pytest.mark.slow
def test_waves_find_the_jaw_that_no_gradient_tells_of() -> None:
    columns = measured_on("numb_jaw")
    assert int(columns["waves:4"].nansum()) > LUCKY
    assert (columns["resists"] == 1).all()


@pytest.mark.slow
def test_squares_find_the_lines_that_no_gradient_leads_to() -> None:
    columns = measured_on("lined")
    assert columns["top:4"].sum() == 0
    assert int(columns["squares:4"].nansum()) > LUCKY
    assert (columns["resists"][columns["squares:4"] == 1] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clean", "adversarial"])
def test_nothing_is_found_without_a_gradient_in_the_twins(name: str) -> None:
    columns = measured_on(name)
    assert all(columns[f"{one}:4"].nansum() == 0 for one in BLIND)
