"""Layer-CAM's scaling of shallow layers, and several layers' maps in one."""

from dataclasses import replace
from math import tanh

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.cost import metered
from camcore.fusion import fuse, layercam_fused, scale_shallow
from camcore.grid import Placement
from camcore.maps import rectify, upsample
from camcore.placement import even_placement
from camcore.recording import record_layers
from camcore.seeds import generator
from tests.oracles import fusion as oracle
from tests.tiny import GapNet, some_images, tiny_subject

SIZE = (16, 12)


@st.composite
def drawn(draw, *, batch=2, layers=1):
    """Maps of one or several layers of the same images: signed or not, some of them empty."""
    maps = []
    for number in range(layers):
        shape = [batch, draw(st.integers(1, 6)), draw(st.integers(1, 6))]
        saliency = torch.randn(shape, generator=generator(draw(st.integers(0, 10_000)), "fusion", str(number)))
        if draw(st.booleans()):
            saliency[0] = -saliency[0].abs()
        maps.append(saliency * draw(st.sampled_from([1e-6, 1, 1e6])))
    return maps


@given(maps=drawn(), gamma=st.sampled_from([0.5, 2.0, 5.0]))
def test_scaling_equals_the_papers(maps, gamma):
    found = scale_shallow(maps[0], gamma=gamma)
    for index, saliency in enumerate(maps[0].double().numpy()):
        expected = torch.tensor(oracle.scale_shallow(saliency, gamma))
        torch.testing.assert_close(found[index].double(), expected, rtol=1e-5, atol=1e-7)


@given(maps=drawn(), factor=st.sampled_from([2.0**-20, 2.0, 2.0**20]))
def test_scaling_does_not_depend_on_the_scale_of_the_map(maps, factor):
    assert torch.equal(scale_shallow(maps[0] * factor), scale_shallow(maps[0]))


@given(maps=drawn())
def test_scaling_keeps_the_order_of_places_and_raises_those_below_the_largest(maps):
    positive = rectify(maps[0])
    scaled = scale_shallow(maps[0])
    share = positive / positive.amax((1, 2), keepdim=True).clamp_min(1e-30)
    order = positive.flatten(1).argsort(1)
    assert (scaled.flatten(1).gather(1, order).diff(dim=1) >= 0).all()
    assert (scaled >= tanh(2) * share - 1e-6).all()  # concave: above the line from 0 to its end
    assert ((scaled > 0) == (positive > 0)).all()


def test_each_image_is_scaled_by_its_own_maximum_and_an_empty_map_stays_empty():
    saliency = torch.tensor([[[0.5, 1.0]], [[5.0, -9.0]], [[0.0, 0.0]], [[-1.0, -2.0]]])
    expected = torch.tensor([[[tanh(1), tanh(2)]], [[tanh(2), 0]], [[0, 0]], [[0, 0]]])
    torch.testing.assert_close(scale_shallow(saliency), expected)


@pytest.mark.parametrize("gamma", [0.0, -2.0, float("nan")])
def test_a_gamma_that_is_not_positive_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma must be positive, got {gamma}"):
        scale_shallow(torch.ones(1, 2, 2), gamma=gamma)


@given(maps=drawn(layers=3))
def test_fusion_equals_the_papers(maps):
    found = fuse(maps, SIZE)
    for index in range(2):
        expected = torch.tensor(oracle.fuse([each[index].double().numpy() for each in maps], SIZE))
        largest = max(float(each.abs().max()) for each in maps)
        torch.testing.assert_close(found[index].double(), expected, rtol=1e-5, atol=1e-6 * largest)


@given(maps=drawn(layers=3))
def test_fusion_takes_the_largest_whatever_the_order_and_repetition(maps):
    found = fuse(maps, SIZE)
    large = torch.stack([upsample(saliency, SIZE) for saliency in maps])
    assert (found >= large).all()
    assert (found == large).any(0).all()
    assert torch.equal(fuse(maps[::-1], SIZE), found)
    assert torch.equal(fuse([*maps, *maps], SIZE), found)
    assert torch.equal(fuse([found, *maps], SIZE), found)


def test_one_layer_alone_is_itself():
    saliency = torch.randn(2, *SIZE, generator=generator(0, "alone"))
    assert torch.equal(fuse([saliency], SIZE), saliency)
    assert torch.equal(fuse([saliency[:, :4, :4]], SIZE), upsample(saliency[:, :4, :4], SIZE))


def test_each_layer_lies_where_its_placement_says():
    maps = [
        torch.rand(1, 4, 4, generator=generator(0, "placed")),
        torch.rand(1, 2, 2, generator=generator(1, "placed")),
    ]
    corner = Placement(first=(0, 0), step=(4, 4), source="traced")
    found = fuse(maps, (16, 16), [corner, None])
    expected = torch.maximum(upsample(maps[0], (16, 16), corner), upsample(maps[1], (16, 16)))
    assert torch.equal(found, expected)
    assert not torch.equal(found, fuse(maps, (16, 16)))


@pytest.mark.parametrize(
    ("maps", "placements", "complaint"),
    [
        ([], None, "got 0 maps"),
        ([torch.ones(1, 2, 2)], [None, None], "got 1 maps and 2 placements"),
        ([torch.ones(1, 2, 2), torch.ones(2, 2, 2)], None, r"got batches of \[1, 2\]"),
    ],
)
def test_maps_that_do_not_belong_together_are_refused(maps, placements, complaint):
    with pytest.raises(ValueError, match=complaint):
        fuse(maps, SIZE, placements)


def recorded(dtype=torch.float64, layers=("conv1", "conv2", "relu"), subject=None):
    """Spread evenly, so that nothing is traced."""
    subject = subject or tiny_subject(GapNet().to(dtype), "relu")
    recordings = record_layers(subject, some_images(3).to(dtype), torch.tensor([0, 1, 2]), layers=layers)
    return {
        name: replace(rec, placement=even_placement(tuple(rec.activations.shape[2:]), SIZE))
        for name, rec in recordings.items()
    }


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("shallow", [(), ("conv1",), ("conv1", "conv2"), ("conv1", "conv2", "relu")])
def test_layers_fused_equal_the_papers(dtype, bound, shallow):
    recordings = recorded(dtype)
    found = layercam_fused(recordings, SIZE, shallow=shallow)
    assert found.dtype == dtype
    for index in range(3):
        maps = {
            name: oracle.layercam(rec.activations[index].double().numpy(), rec.gradients[index].double().numpy())
            for name, rec in recordings.items()
        }
        expected = torch.tensor(oracle.layercam_fused(maps, SIZE, set(shallow)))
        torch.testing.assert_close(found[index].double(), expected, rtol=0, atol=bound)


def test_several_layers_cost_one_forward_and_one_backward():
    subject = tiny_subject(GapNet().double(), "relu")
    with metered() as cost:
        layercam_fused(recorded(subject=subject), SIZE, shallow=["conv1"])
    assert (cost.forwards, cost.backwards) == (3, 3)


@pytest.mark.parametrize("layer", ["conv1", "relu"])
def test_the_scale_of_one_layers_gradients_decides_nothing(layer):
    recordings = recorded()
    louder = replace(recordings[layer], gradients=recordings[layer].gradients * 2.0**10)
    found = layercam_fused({**recordings, layer: louder}, SIZE, shallow=["conv1"])
    assert torch.equal(found, layercam_fused(recordings, SIZE, shallow=["conv1"]))


def test_a_recordings_placement_is_where_its_map_is_put():
    recordings = recorded(layers=("relu",))
    corner = Placement(first=(0, 0), step=(2, 2), source="traced")
    placed = {"relu": replace(recordings["relu"], placement=corner)}
    found = layercam_fused(placed, (16, 16), shallow=[])
    assert torch.equal(found[:, ::2, ::2], layercam_fused(recordings, (8, 8), shallow=[]))


def test_a_layer_that_was_not_placed_is_traced():
    recordings = recorded(layers=("conv1", "relu"))
    unplaced = {name: replace(rec, placement=None) for name, rec in recordings.items()}
    with metered() as cost:
        found = layercam_fused(unplaced, (16, 16), shallow=["conv1"])
    assert (cost.forwards, cost.backwards) == (2, 0)
    # a convolution of 3 with stride 2 and padding 1 puts cell i at pixel 2i
    for name, step in (("conv1", 1), ("relu", 2)):
        placement = Placement(first=(0, 0), step=(step, step), source="traced")
        recordings[name] = replace(recordings[name], placement=placement)
    assert torch.equal(found, layercam_fused(recordings, (16, 16), shallow=["conv1"]))


def test_a_shallow_layer_that_was_not_recorded_is_refused():
    with pytest.raises(ValueError, match=r"shallow layers \['conv3'\] are not among the recorded \['conv1', 'relu'\]"):
        layercam_fused(recorded(layers=("conv1", "relu")), SIZE, shallow=["conv1", "conv3"])


def test_no_layers_at_all_are_refused():
    with pytest.raises(ValueError, match=r"recorded \[\]"):
        layercam_fused({}, SIZE, shallow=[])
