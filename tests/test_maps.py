from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.grid import Placement
from camcore.maps import is_constant, is_empty, rectify, unit_range, upsample
from camcore.placement import even_placement
from camcore.seeds import generator


def some_maps(seed=0, count=3, height=4, width=5):
    return torch.randn(count, height, width, generator=generator(seed, "maps"))


def bilinear(saliency, height, width, placement=None):
    """Each pixel centre read off the surface between cell centres, held constant beyond the outermost."""
    rows, columns = len(saliency), len(saliency[0])
    found = torch.empty(height, width)
    for y in range(height):
        for x in range(width):
            if placement is None:
                i, j = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
            else:
                i, j = (y - placement.first[0]) / placement.step[0], (x - placement.first[1]) / placement.step[1]
            i, j = min(max(i, 0), rows - 1), min(max(j, 0), columns - 1)
            above, left = int(i), int(j)
            below, right = min(above + 1, rows - 1), min(left + 1, columns - 1)
            down, along = i - above, j - left
            top = (1 - along) * saliency[above][left] + along * saliency[above][right]
            bottom = (1 - along) * saliency[below][left] + along * saliency[below][right]
            found[y, x] = (1 - down) * top + down * bottom
    return found


def test_rectify_keeps_positive_evidence_and_drops_the_rest():
    saliency = torch.tensor([[[-1.0, 0.0, 2.0]]])
    assert torch.equal(rectify(saliency), torch.tensor([[[0.0, 0.0, 2.0]]]))
    assert saliency.min() == -1


@pytest.mark.parametrize("size", [(8, 10), (16, 16), (7, 11), (4, 5)])
def test_upsampling_reads_pixel_centres_off_the_surface_between_cell_centres(size):
    maps = some_maps()
    for index, saliency in enumerate(maps):
        torch.testing.assert_close(upsample(maps, size)[index], bilinear(saliency.tolist(), *size))


def test_upsampling_keeps_a_constant_and_the_range():
    torch.testing.assert_close(upsample(torch.full((1, 3, 3), 0.7), (12, 12)), torch.full((1, 12, 12), 0.7))
    assert not upsample(torch.zeros(1, 3, 3), (12, 12)).any()
    found = upsample(some_maps(), (64, 64))
    assert found.max() <= some_maps().max() + 1e-6
    assert found.min() >= some_maps().min() - 1e-6


def test_upsampling_centres_the_peak_of_one_cell_in_its_share_of_the_image():
    saliency = torch.zeros(1, 7, 7)
    saliency[0, 2, 4] = 1
    found = upsample(saliency, (224, 224))[0]
    rows, columns = (found == found.max()).nonzero().double().mean(0).tolist()
    assert (rows, columns) == (2 * 32 + 15.5, 4 * 32 + 15.5)  # aligned corners would have put it at 74.3 and 148.7


def placed(first, step):
    return Placement(first=first, step=step, source="traced")


PLACEMENTS = {
    "from the first pixel": placed((0, 0), (4, 4)),
    "between pixels": placed((1.5, 0.25), (3, 3.5)),
    "closer than pixels": placed((-0.25, 0), (0.5, 0.75)),
    "outside the image": placed((-9, 14), (5, 6)),
}


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
def test_registered_upsampling_reads_pixels_off_the_surface_between_the_true_centres(placement):
    maps = some_maps()
    for index, saliency in enumerate(maps):
        found = upsample(maps, (16, 21), placement)[index]
        torch.testing.assert_close(found, bilinear(saliency.tolist(), 16, 21, placement))


def test_registered_upsampling_draws_the_peak_of_a_resnets_cell_where_the_cell_looks():
    saliency = torch.zeros(1, 7, 7)
    saliency[0, 2, 4] = 1
    found = upsample(saliency, (224, 224), placed((0, 0), (32, 32)))[0]
    assert (found == 1).nonzero().tolist() == [[64, 128]]  # unregistered: between 79 and 80, 143 and 144
    assert (found > 0).any(1).sum() == (found > 0).any(0).sum() == 63


def test_the_outermost_cells_reach_to_the_border():
    saliency = some_maps(height=2, width=2)
    found = upsample(saliency, (10, 10), placed((4, 4), (2, 2)))
    assert torch.equal(found[:, :5, :5], saliency[:, :1, :1].expand(3, 5, 5))
    assert torch.equal(found[:, 6:, 6:], saliency[:, 1:, 1:].expand(3, 4, 4))


@given(
    st.tuples(*[st.integers(1, 9)] * 2),
    st.tuples(*[st.integers(1, 40)] * 2),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_registered_upsampling_of_even_cells_is_the_plain_one(cells, size, dtype):
    saliency = some_maps(height=cells[0], width=cells[1]).to(dtype)
    found = upsample(saliency, size, even_placement(cells, size))
    assert found.dtype == dtype
    torch.testing.assert_close(found, upsample(saliency, size))


@pytest.mark.parametrize("placement", [None, PLACEMENTS["between pixels"]], ids=["even", "registered"])
def test_upsampling_of_a_map_does_not_depend_on_its_batch(placement):
    maps = some_maps(height=7, width=7)
    for index in range(3):
        alone = upsample(maps[index : index + 1], (50, 60), placement)[0]
        assert torch.equal(upsample(maps, (50, 60), placement)[index], alone)


@pytest.mark.parametrize("placement", [None, PLACEMENTS["from the first pixel"]], ids=["even", "registered"])
def test_a_map_of_the_images_size_is_returned_as_it_is(placement):
    saliency = some_maps(height=16, width=20)
    assert upsample(saliency, (16, 20), placement) is saliency
    assert upsample(saliency, (16, 21), placement).shape == (3, 16, 21)


def test_registered_upsampling_keeps_a_constant_exactly_and_the_range():
    placement = PLACEMENTS["between pixels"]
    assert torch.equal(upsample(torch.full((1, 3, 3), 0.7), (12, 12), placement), torch.full((1, 12, 12), 0.7))
    found = upsample(some_maps(), (64, 64), placement)
    assert found.max() <= some_maps().max() + 1e-6
    assert found.min() >= some_maps().min() - 1e-6


def test_what_is_undefined_stays_between_its_neighbours():
    saliency = torch.zeros(1, 4, 4)
    saliency[0, 1, 1] = nan
    undefined = upsample(saliency, (16, 16), placed((0, 0), (4, 4)))[0].isnan()
    assert undefined[1:8, 1:8].all()
    assert not undefined[9:].any()
    assert not undefined[:, 9:].any()


def test_gradients_pass_through_registered_upsampling():
    saliency = some_maps().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: upsample(maps, (7, 9), PLACEMENTS["between pixels"]), saliency)


@given(st.integers(0, 1000), st.sampled_from([1e-30, 1e-7, 1, 1e7]), st.sampled_from([-3, 0, 3]))
def test_unit_range_maps_the_smallest_to_0_and_the_largest_to_1_and_keeps_the_order(seed, scale, shift):
    maps = (some_maps(seed) + shift) * scale
    found = unit_range(maps)
    assert torch.equal(found.amin((1, 2)), torch.zeros(3))
    assert torch.equal(found.amax((1, 2)), torch.ones(3))
    order = maps.flatten(1).argsort(1)
    assert (found.flatten(1).gather(1, order).diff() >= 0).all()


def test_unit_range_of_a_constant_map_is_zero_and_not_undefined():
    for value in (0.0, 5.0, -5.0):
        assert torch.equal(unit_range(torch.full((1, 3, 3), value)), torch.zeros(1, 3, 3))


def test_unit_range_of_a_map_does_not_depend_on_its_batch():
    maps = some_maps() * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    for index in range(3):
        assert torch.equal(unit_range(maps)[index], unit_range(maps[index : index + 1])[0])


def test_a_map_is_empty_if_no_place_is_above_zero():
    maps = torch.zeros(4, 2, 2)
    maps[1, 0, 0] = 1e-38
    maps[2] = -1
    maps[3, 1, 1], maps[3, 0, 0] = 1, -1
    assert is_empty(maps).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ([0.0, 0.0], True),
        ([3.0, 3.0], True),
        ([1.0, 1.0 + 1e-7], True),  # within rounding
        ([-1.0, -1.0 - 1e-7], True),
        ([1.0, 1.0 + 1e-5], False),
        ([0.0, 1e-30], False),
        ([-1.0, 1.0], False),
        ([nan, 1.0], True),
        ([nan, nan], True),
    ],
)
def test_a_map_is_constant_if_it_prefers_no_place_by_more_than_rounding(values, constant):
    assert is_constant(torch.tensor([[values]])).tolist() == [constant]


def test_an_undefined_map_is_called_constant_so_that_it_is_not_ranked():
    maps = some_maps()
    maps[1, 2, 2] = nan
    assert is_constant(maps).tolist() == [False, True, False]
