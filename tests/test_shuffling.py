import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from camcore.metrics.invariance import shuffle_likeness
from camcore.perturbations.shuffling import cut_lines, dealt, derangements, faded


def generators(seed: int, count: int = 1) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + index) for index in range(count)]


def numbered(height: int, width: int, *, images: int = 1) -> Tensor:
    """Every pixel of every channel has a value of its own."""
    return torch.arange(images * 3 * height * width).reshape(images, 3, height, width) / 1000


def cut_and_dealt(picture: np.ndarray, order: list[int], cells: int) -> np.ndarray:
    """`dealt`, patch by patch."""
    height, width = picture.shape[1] // cells, picture.shape[2] // cells
    top, left = picture.shape[1] % cells // 2, picture.shape[2] % cells // 2
    result = picture.copy()
    for place, patch in enumerate(order):
        (row, column), (from_row, from_column) = divmod(place, cells), divmod(patch, cells)
        for down in range(height):
            for right in range(width):
                result[:, top + row * height + down, left + column * width + right] = picture[
                    :, top + from_row * height + down, left + from_column * width + right
                ]
    return result


sides = st.integers(8, 30)
grids = st.integers(2, 4)


@given(height=sides, width=sides, cells=grids, seed=st.integers(0, 1000))
def test_shuffling_is_what_moving_patch_by_patch_gives(height: int, width: int, cells: int, seed: int) -> None:
    images = numbered(height, width)
    order = derangements(cells**2, generators=generators(seed))

    expected = cut_and_dealt(images[0].numpy(), order[0].tolist(), cells)

    np.testing.assert_array_equal(dealt(images, order, cells)[0].numpy(), expected)


@given(height=sides, width=sides, cells=grids, seed=st.integers(0, 1000))
def test_no_pixel_is_lost_and_all_can_be_put_back(height: int, width: int, cells: int, seed: int) -> None:
    images = numbered(height, width, images=2)
    order = derangements(cells**2, generators=generators(seed, 2))

    pieces = dealt(images, order, cells)

    assert torch.equal(pieces.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
    assert torch.equal(dealt(pieces, order.argsort(1), cells), images)


@given(patches=st.integers(2, 200), seed=st.integers(0, 1000))
def test_nothing_stays_where_it_was(patches: int, seed: int) -> None:
    (order,) = derangements(patches, generators=generators(seed))

    assert not (order == torch.arange(patches)).any()
    assert torch.equal(order.sort().values, torch.arange(patches))


def test_all_derangements_are_equally_likely() -> None:
    # of four patches there are nine; chi-square with 8 degrees of freedom, 0.1 % quantile
    orders = derangements(4, generators=[torch.Generator().manual_seed(0)] * 9000)
    _, counts = orders.unique(dim=0, return_counts=True)

    assert len(counts) == 9
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 26.1


def test_every_image_has_an_order_of_its_own() -> None:
    both = derangements(16, generators=generators(0, 2))

    assert not torch.equal(both[0], both[1])
    assert torch.equal(both[1], derangements(16, generators=generators(1))[0])


def test_what_is_left_over_stays_as_a_margin_around() -> None:
    images = numbered(11, 14)
    pieces = dealt(images, derangements(9, generators=generators(0)), 3)  # patches of 3 x 4, margins of 2

    same = (pieces == images).all(1)[0]

    assert same[0].all()
    assert same[-1].all()
    assert same[:, 0].all()
    assert same[:, -1].all()
    assert not same[1:10, 1:13].any()


@given(height=sides, width=sides, cells=grids, seed=st.integers(0, 1000))
def test_lines_are_where_the_cuts_are_in_the_colours_of_the_pieces(
    height: int, width: int, cells: int, seed: int
) -> None:
    images = numbered(height, width)
    pieces = dealt(images, derangements(cells**2, generators=generators(seed)), cells)

    lines = cut_lines(images, pieces, cells)

    changed = (lines != images).any(1)[0]
    assert torch.equal(lines[:, :, changed], pieces[:, :, changed])
    tall, wide = height // cells, width // cells
    top, left = height % cells // 2, width % cells // 2
    inside_a_patch = changed[top + 1 : top + tall - 1, left + 1 : left + wide - 1]
    assert not inside_a_patch.any()
    for cell in range(1, cells):  # every row of pixels where two patches meet, as far as the patches reach
        assert changed[top + cell * tall, left : left + cells * wide].all()
        assert changed[top : top + cells * tall, left + cell * wide].all()


def test_lines_at_the_edge_of_the_picture_are_not_drawn() -> None:
    images = numbered(8, 8)
    pieces = dealt(images, derangements(4, generators=generators(0)), 2)

    changed = (cut_lines(images, pieces, 2) != images).any(1)[0]

    assert changed.sum() == 8 + 8 - 1  # one row and one column


@given(height=sides, width=sides, cells=grids, seed=st.integers(0, 1000))
def test_faded_is_what_weighing_pixel_by_pixel_gives(height: int, width: int, cells: int, seed: int) -> None:
    images = torch.rand(2, 3, height, width, generator=generators(seed)[0])
    tall, wide = height // cells, width // cells
    top, left = height % cells // 2, width % cells // 2
    expected = images.clone()
    for row in range(top, top + cells * tall):
        for column in range(left, left + cells * wide):
            strengths = [1.0]
            for place, side in ((row - top, tall), (column - left, wide)):
                inwards = min(place % side, side - 1 - place % side) + 0.5
                strengths.append(inwards / max(side / 5, 1))
            mean = images.mean((2, 3))
            expected[:, :, row, column] = mean + min(strengths) * (images[:, :, row, column] - mean)

    torch.testing.assert_close(faded(images, cells), expected)


def test_only_the_sides_of_patches_fade() -> None:
    images = numbered(48, 48)
    shown = faded(images, 4)  # patches of 12 pixels: 2.4 of them fade
    inside = torch.zeros(12, dtype=torch.bool)
    inside[2:10] = True
    kept = inside.repeat(4)[:, None] & inside.repeat(4)

    assert torch.equal(shown[:, :, kept], images[:, :, kept])
    assert ((shown != images).all(1)[0] == ~kept).all()
    assert images.min() <= shown.min() <= shown.max() <= images.max()


@given(seed=st.integers(0, 1000))
def test_faded_patches_change_places_without_a_new_edge(seed: int) -> None:
    # each of one colour, as far apart as colours can be: every cut is a step of up to 1
    images = torch.rand(1, 3, 4, 4, generator=generators(seed)[0]).repeat_interleave(24, 2).repeat_interleave(24, 3)
    order = derangements(16, generators=generators(seed))

    def steepest(shown: Tensor) -> float:
        return float(max(shown.diff(dim=2).abs().max(), shown.diff(dim=3).abs().max()))

    in_place = faded(images, 4)
    assert steepest(dealt(in_place, order, 4)) <= steepest(in_place) + 0.11  # across a cut a tenth of both is left
    assert steepest(dealt(images, order, 4)) > 2 * steepest(dealt(in_place, order, 4))


def test_the_model_is_not_shown_other_images_than_were_given() -> None:
    images = numbered(8, 8)
    before = images.clone()
    pieces = dealt(images, derangements(4, generators=generators(0)), 2)
    cut_lines(images, pieces, 2)
    faded(images, 2)

    assert torch.equal(images, before)


@pytest.mark.parametrize(("side", "cells"), [(7, 4), (1, 1), (8, 0)])
def test_patches_of_a_pixel_are_refused(side: int, cells: int) -> None:
    with pytest.raises(ValueError, match=f"{side}x{side} cannot be cut into {cells}x{cells} patches of 2 pixels"):
        dealt(numbered(side, side), torch.zeros(1, cells**2, dtype=torch.long), cells)
    with pytest.raises(ValueError, match=f"{side}x{side} cannot be cut into {cells}x{cells} patches of 2 pixels"):
        faded(numbered(side, side), cells)


def test_an_order_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="3 x 3 patches need an order of 9, got one of 4"):
        dealt(numbered(9, 9), torch.zeros(1, 4, dtype=torch.long), 3)


def test_one_patch_cannot_go_elsewhere() -> None:
    with pytest.raises(ValueError, match="1 patch cannot be dealt out anew"):
        derangements(1, generators=generators(0))


@given(seed=st.integers(0, 1000))
def test_a_map_that_went_with_the_patches_is_found_alike(seed: int) -> None:
    (draws,) = generators(seed)
    saliency = torch.rand(1, 32, 32, generator=draws)
    order = derangements(16, generators=[draws])
    moved = dealt(saliency[:, None], order, 4)[:, 0]

    assert shuffle_likeness(saliency, moved, order, 4, (32, 32)).item() == pytest.approx(1)
    assert shuffle_likeness(saliency, saliency, order, 4, (32, 32)).item() < 0.5
