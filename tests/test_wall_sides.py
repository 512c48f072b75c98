"""Walls on any side and of any height: what is hidden is worked out by hand, and nothing local leaks behind it."""

import copy
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from camcore.cam import METHODS
from camcore.grid import Placement
from camcore.maps import rectify, upsample
from camcore.metrics import leakage
from camcore.recording import record, run_behind
from camcore.subject import Classifier
from camcore.wall import build_wall
from camcore.wall_zone import SIDES, Side, Zone, before, centres, turned
from tests.tiny import CLASSES, FlatNet, some_images, tiny_subject

CELLS, PIXELS = 8, 16  # of FlatNet: one convolution of 3 with stride 2 and padding 1 on 16 x 16 pixels

sides = st.sampled_from(SIDES)
bands = st.integers(1, CELLS - 1).map(lambda rows: rows / CELLS)


@given(side=sides, height=st.integers(1, 6), width=st.integers(1, 6))
def test_turning_a_map_twice_gives_it_back_and_puts_the_walls_side_at_the_bottom(
    side: Side, height: int, width: int
) -> None:
    maps = torch.arange(float(2 * height * width)).view(2, height, width)
    edge = {"bottom": maps[:, -1], "top": maps[:, 0], "left": maps[:, :, 0], "right": maps[:, :, -1]}[side]

    assert torch.equal(turned(turned(maps, side), side), maps)
    assert torch.equal(turned(maps, side)[:, -1].sort().values, edge.sort().values)


@given(side=sides, height=st.integers(1, 6), width=st.integers(1, 6), first=st.integers(0, 6))
def test_what_lies_before_a_wall_is_counted_from_the_other_side(
    side: Side, height: int, width: int, first: int
) -> None:
    found = before((2, 3, height, width), first, side)

    for row in range(height):
        for column in range(width):
            place = {"bottom": row, "top": height - 1 - row, "right": column, "left": width - 1 - column}[side]
            assert found[row, column] == (place < first)


@given(side=sides, cell=st.integers(0, 4))
def test_a_cell_is_centred_where_the_placement_says_counted_towards_the_wall(side: Side, cell: int) -> None:
    placed = Placement(first=(3.0, 5.0), step=(8.0, 7.0), source="traced")
    first, step = centres(placed, (5, 6), (40, 44), side)
    rows, columns = [3 + 8 * row for row in range(5)], [5 + 7 * column for column in range(6)]
    expected = {
        "bottom": rows[cell],
        "top": 39 - rows[4 - cell],
        "right": columns[cell],
        "left": 43 - columns[5 - cell],
    }[side]

    assert first + cell * step == expected


def seen_from(kept: int, side: Side) -> int:
    """The first dead pixel row of FlatNet: cell i sees pixels 2i - 1 to 2i + 1."""
    if side in ("bottom", "right"):
        return 2 * (kept - 1) + 1 + 1
    return PIXELS - (2 * (CELLS - kept) - 1)


@pytest.mark.slow
@settings(max_examples=10)
@given(side=sides, band=bands)
def test_a_wall_on_any_side_hides_the_pixels_that_its_receptive_fields_leave(side: Side, band: float) -> None:
    wall = build_wall(tiny_subject(FlatNet(), "relu"), some_images(2), seed=0, band=band, side=side)

    assert wall.kept_rows == CELLS - ceil(CELLS * band)
    dead_from = seen_from(wall.kept_rows, side)
    assert wall.dead_from == (dead_from if dead_from < PIXELS else None)


@pytest.mark.slow
@settings(max_examples=10)
@given(side=sides, band=bands)
def test_on_any_side_local_weights_leak_exactly_nothing_and_global_ones_leak(side: Side, band: float) -> None:
    subject = tiny_subject(FlatNet(), "relu")
    images = some_images(6)
    wall = build_wall(subject, images, seed=0, band=band, side=side)
    rec = record(subject, images, behind=wall.hide)

    def leaked(name: str) -> Tensor:
        saliency = rectify(METHODS[name](rec))
        judged = saliency if wall.dead_from is None else upsample(saliency, images.shape[2:], rec.placement)
        return leakage(wall.turned(judged), wall.judged_from)

    for name in ("hirescam", "layercam", "eigengradcam"):
        assert leaked(name).nan_to_num(0).eq(0).all(), name
    for name in ("gradcam_plus_plus", "eigencam"):
        assert leaked(name).nanmean() > 0, name


@pytest.mark.slow
@settings(max_examples=10)
@given(side=sides, band=bands)
def test_on_any_side_zeroing_the_band_is_zeroing_the_first_dense_layers_weights(side: Side, band: float) -> None:
    subject = tiny_subject(FlatNet(), "relu")
    images = some_images(3)
    wall = build_wall(subject, images, seed=0, band=band, side=side)
    masked = copy.deepcopy(subject.module)
    with torch.no_grad():
        weights = masked.dense.weight.view(CLASSES, 4, CELLS, CELLS)
        weights *= before((CELLS, CELLS), wall.kept_rows, side)
    twin = Classifier(**{**vars(subject), "module": masked})

    torch.testing.assert_close(run_behind(subject, images, wall.hide)[1], twin.logits(images))


@pytest.mark.parametrize("side", SIDES)
def test_the_line_of_a_constant_map_is_its_leakage_on_any_side(side: Side) -> None:
    zone = Zone(kept_rows=2, rows=4, dead_from=9, pixels=16, centre=8.0, step=4, side=side)

    assert leakage(zone.turned(torch.ones(1, 16, 16)), zone.judged_from).item() == pytest.approx(zone.constant_line)
