import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.metrics.localisation import (
    cells_right,
    energy_inside,
    grown,
    pointing_hit,
    precision_at,
    rank_accuracy,
)
from camcore.seeds import generator
from tests.oracles import localisation as oracle

SEEDS = st.integers(0, 10**6)


def drawn(seed, *, count=3, size=(6, 8), levels=5):
    """Maps with many ties, and masks with something on and something off the object."""
    rows, columns = size
    maps = torch.randint(0, levels, (count, rows, columns), generator=generator(seed, "maps")).float()
    maps[:, 0, 0] = levels  # never empty
    masks = (torch.rand(count, rows, columns, generator=generator(seed, "masks")) < 0.3).float()
    masks[:, 4, 5], masks[:, 5, 0] = 1, 0
    return maps, masks


def box(top, bottom, left, right, *, size=(40, 40)):
    mask = torch.zeros(1, *size)
    mask[0, top:bottom, left:right] = 1
    return mask


@given(SEEDS)
def test_pointing_energy_and_ranks_equal_the_papers_pixel_by_pixel(seed):
    maps, masks = drawn(seed)
    hit, energy, rank = pointing_hit(maps, masks), energy_inside(maps, masks), rank_accuracy(maps, masks)
    for index in range(len(maps)):
        one = maps[index].tolist(), masks[index].tolist()
        assert hit[index].item() == pytest.approx(oracle.pointing_hit(*one), abs=1e-6)
        assert energy[index].item() == pytest.approx(oracle.energy_inside(*one), abs=1e-6)
        assert rank[index].item() == pytest.approx(oracle.rank_accuracy(*one), abs=1e-6)


@given(SEEDS, st.integers(0, 5))
def test_the_point_may_miss_by_a_radius(seed, radius):
    maps, masks = drawn(seed, count=1)
    found = pointing_hit(maps, grown(masks, radius))
    assert found.item() == pytest.approx(oracle.pointing_hit(maps[0].tolist(), masks[0].tolist(), radius), abs=1e-6)


@given(SEEDS, st.lists(st.integers(1, 48), min_size=1, max_size=4))
def test_precision_takes_tied_pixels_at_their_mean(seed, counts):
    maps, masks = drawn(seed)
    found = precision_at(maps, masks, torch.tensor([counts] * 3))
    for index, step in torch.cartesian_prod(torch.arange(3), torch.arange(len(counts))).tolist():
        slow = oracle.precision_at(maps[index].tolist(), masks[index].tolist(), counts[step])
        assert found[index, step].item() == pytest.approx(slow, abs=1e-6)


@given(SEEDS, st.integers(1, 2), st.integers(1, 3))
def test_cells_right_equals_moving_the_map_by_hand(seed, down, right):
    maps, masks = drawn(seed, levels=9)
    found = cells_right(maps, masks, step=(down, right))
    for index in range(len(maps)):
        slow = oracle.cells_right(maps[index].tolist(), masks[index].tolist(), down, right)
        assert found[index].item() == pytest.approx(slow, abs=1e-4)


def test_the_ends_are_all_and_nothing():
    mask = box(10, 20, 5, 15)
    for saliency, wanted in ((mask, 1.0), (1 - mask, 0.0)):
        for measure in (energy_inside, rank_accuracy, pointing_hit):
            assert measure(saliency, mask).item() == wanted


def test_a_map_that_knows_nothing_scores_the_share_of_the_area():
    mask = box(0, 10, 0, 16)
    even = torch.ones_like(mask)
    for measure in (energy_inside, rank_accuracy, pointing_hit):
        assert measure(even, mask).item() == pytest.approx(0.1)
    noise = torch.rand(200, 40, 40, generator=generator(0, "noise"))
    masks = mask.expand(200, -1, -1)
    for measure in (energy_inside, rank_accuracy, pointing_hit):
        assert measure(noise, masks).mean().item() == pytest.approx(0.1, abs=0.06)


@given(SEEDS, st.floats(0.1, 10), st.integers(1, 4))
def test_scaling_changes_nothing_and_order_alone_counts_for_ranks(seed, factor, power):
    maps, masks = drawn(seed)
    torch.testing.assert_close(energy_inside(factor * maps, masks), energy_inside(maps, masks))
    assert torch.equal(rank_accuracy(maps**power, masks), rank_accuracy(maps, masks))
    assert torch.equal(pointing_hit(maps**power, masks), pointing_hit(maps, masks))


@given(SEEDS)
def test_inside_and_outside_add_up(seed):
    maps, masks = drawn(seed)
    for measure in (energy_inside, pointing_hit):
        torch.testing.assert_close(measure(maps, masks) + measure(maps, 1 - masks), torch.ones(3))


@given(SEEDS)
def test_a_mirrored_picture_has_the_same_numbers_and_lies_on_the_other_side(seed):
    maps, masks = drawn(seed, levels=9)
    for measure in (energy_inside, pointing_hit, rank_accuracy):
        torch.testing.assert_close(measure(maps.flip(2), masks.flip(2)), measure(maps, masks))
    step = (1.0, 2.0)
    there, mirrored = cells_right(maps, masks, step=step), cells_right(maps.flip(2), masks.flip(2), step=step)
    torch.testing.assert_close(mirrored, -there, atol=1e-4, rtol=0)


def test_an_image_does_not_depend_on_its_batch():
    maps, masks = drawn(7)
    counts = torch.tensor([[3, 40]] * 3)
    for measure in (
        energy_inside,
        pointing_hit,
        rank_accuracy,
        lambda one, two: cells_right(one, two, step=(1.0, 2.0)),
        lambda one, two: precision_at(one, two, counts[: len(one)]),
    ):
        whole = measure(maps, masks)
        for index in range(3):
            assert torch.equal(measure(maps[index : index + 1], masks[index : index + 1])[0], whole[index])


@pytest.mark.parametrize("cells", [-1, -0.5, -0.25, 0, 0.25, 0.5, 1])
@pytest.mark.parametrize("side", [10, 20, 30])
def test_a_silhouette_laid_beside_the_object_says_by_how_much(cells, side):
    step = 8
    mask = box(20, 20 + side, 25, 25 + side, size=(80, 80))
    laid = mask.roll(int(cells * step), dims=2)
    assert cells_right(laid, mask, step=(step, step)).item() == pytest.approx(cells, abs=0.02)


@pytest.mark.parametrize("cells", [-3, -2, 2, 3])
def test_farther_than_a_cell_counts_as_a_cell(cells):
    mask = box(20, 40, 30, 50, size=(80, 80))
    laid = 0.01 + mask.roll(8 * cells, dims=2)
    assert cells_right(laid, mask, step=(8, 8)).item() == math.copysign(1, cells)


def test_a_map_that_misses_the_object_altogether_is_a_matter_of_energy_not_of_offset():
    mask = box(20, 40, 30, 50, size=(80, 80))
    missed = 0.01 + mask.roll(40, dims=2)
    assert cells_right(missed, mask, step=(8, 8)).item() == 0
    assert energy_inside(missed, mask).item() < mask.mean().item()


def test_what_lies_far_from_the_object_moves_no_offset():
    mask = box(20, 40, 10, 30, size=(80, 80))
    elsewhere = box(0, 80, 60, 80, size=(80, 80))
    alone = cells_right(mask, mask, step=(8, 8))
    assert cells_right(mask + 5 * elsewhere, mask, step=(8, 8)).item() == pytest.approx(alone.item(), abs=1e-6)
    assert alone.item() == 0


def test_up_and_down_are_no_matter_of_left_and_right():
    mask = box(20, 40, 30, 50, size=(80, 80))
    assert cells_right(mask.roll(4, dims=1), mask, step=(8, 8)).item() == 0


def test_an_empty_map_has_no_energy_and_no_offset():
    mask = box(10, 20, 5, 15)
    empty = torch.zeros_like(mask)
    assert energy_inside(empty, mask).isnan().all()
    assert cells_right(empty, mask, step=(4, 4)).isnan().all()


def test_growing_by_nothing_is_the_mask_and_by_one_its_neighbours():
    point = box(5, 6, 5, 6, size=(11, 11))
    assert torch.equal(grown(point, 0), point)
    assert grown(point, 1).sum() == 5
    assert grown(point, 2).sum() == 13
