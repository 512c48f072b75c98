import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.grid import Grid, infer_grid

sides = st.integers(1, 5)


def raw_output(layout, height, width, prefix, *, suffix=0):
    """A layer's output in which every number is unlike any other."""
    shapes = {
        "channels_first": (2, 3, height, width),
        "channels_last": (2, height, width, 3),
        "tokens": (2, prefix + height * width + suffix, 3),
    }
    shape = shapes[layout]
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


@given(st.sampled_from(["channels_first", "channels_last", "tokens"]), sides, sides, st.integers(0, 3))
def test_unfold_inverts_fold(layout, height, width, prefix):
    grid = Grid(layout=layout, height=height, width=width, prefix=prefix)
    raw = raw_output(layout, height, width, prefix)
    folded = grid.fold(raw)
    assert folded.shape == (2, 3, height, width)
    assert torch.equal(grid.unfold(folded, raw), raw)
    assert torch.equal(grid.fold(grid.unfold(folded + 1, raw)), folded + 1)


def test_tokens_fold_row_by_row_after_the_prefix():
    raw = raw_output("tokens", 2, 3, 1)
    folded = Grid(layout="tokens", height=2, width=3, prefix=1).fold(raw)
    for row in range(2):
        for column in range(3):
            assert torch.equal(folded[:, :, row, column], raw[:, 1 + 3 * row + column])


def test_tokens_after_the_places_are_left_out():
    raw = raw_output("tokens", 2, 3, 1, suffix=2)
    grid = Grid(layout="tokens", height=2, width=3, prefix=1)
    assert torch.equal(grid.fold(raw), grid.fold(raw[:, :-2]))


def test_unfold_takes_tokens_that_stand_for_no_place_from_the_raw_output_and_leaves_it_alone():
    raw = raw_output("tokens", 2, 2, 1, suffix=1)
    copy = raw.clone()
    grid = Grid(layout="tokens", height=2, width=2, prefix=1)
    tokens = grid.unfold(torch.zeros(2, 3, 2, 2), raw)
    assert torch.equal(tokens[:, 0], copy[:, 0])
    assert torch.equal(tokens[:, -1], copy[:, -1])
    assert not tokens[:, 1:-1].any()
    assert torch.equal(raw, copy)


def test_gradient_flows_through_fold_and_unfold_to_the_places_alone():
    raw = raw_output("tokens", 2, 2, 1).requires_grad_()
    grid = Grid(layout="tokens", height=2, width=2, prefix=1)
    grid.fold(raw).sum().backward()
    assert not raw.grad[:, 0].any()
    assert (raw.grad[:, 1:] == 1).all()


SQUARE = (224, 224)


@pytest.mark.parametrize(
    ("shape", "image", "expected"),
    [
        ((1, 512, 7, 7), SQUARE, ("channels_first", 7, 7, 0)),
        ((1, 7, 7, 768), SQUARE, ("channels_last", 7, 7, 0)),
        ((1, 14, 14, 14), SQUARE, ("channels_first", 14, 14, 0)),
        ((4, 64, 224, 224), SQUARE, ("channels_first", 224, 224, 0)),
        ((1, 512, 7, 14), (224, 448), ("channels_first", 7, 14, 0)),
        ((1, 512, 7, 10), (224, 299), ("channels_first", 7, 10, 0)),
        ((1, 7, 14, 768), (224, 448), ("channels_last", 7, 14, 0)),
        ((1, 197, 768), SQUARE, ("tokens", 14, 14, 1)),
        ((1, 196, 768), SQUARE, ("tokens", 14, 14, 0)),
        ((1, 50, 768), SQUARE, ("tokens", 7, 7, 1)),
        ((1, 201, 384), SQUARE, ("tokens", 14, 14, 5)),
        ((1, 257, 1024), SQUARE, ("tokens", 16, 16, 1)),
        ((1, 393, 64), (224, 448), ("tokens", 14, 28, 1)),
    ],
)
def test_grid_of_a_known_shape_is_inferred(shape, image, expected):
    layout, height, width, prefix = expected
    assert infer_grid(shape, image) == Grid(layout=layout, height=height, width=width, prefix=prefix)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1000),
        (512,),
        (1, 512, 1, 1),
        (1, 1, 1, 512),
        (1, 12, 50, 64),
        (1, 3, 448, 448),
        (1, 1, 768),
        (1, 180, 768),
        (1, 3, 8, 7, 7),
        (),
    ],
    ids=str,
)
def test_a_shape_that_is_no_map_has_no_grid(shape):
    assert infer_grid(shape, SQUARE) is None
