"""Opti-CAM, against what must hold of any optimum that is sought per image; what it costs, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from camcore import cam
from camcore.cam.opti import mask_of, opticam, opticam_weights
from camcore.cost import metered
from camcore.maps import is_constant, unit_range
from camcore.recording import ZeroGradient, record
from camcore.seeds import generator
from tests.opti_asked import PATIENCE, TOLERANCE, asked_of, every_net, masked_score, only
from tests.recorded import traces
from tests.test_cam_gradient import recording
from tests.tiny import CLASSES, FlatNet, GapNet, NoGradNet, some_images, tiny_subject
from tests.tiny import frozen as frozen_module


@pytest.mark.parametrize("rate", [0.1, 5.0])
@every_net
def test_the_score_is_never_below_that_of_equal_weights(net, layer, rate):
    rec = asked_of(net, layer, torch.float32, count=4)
    start = masked_score(rec, torch.full_like(rec.activations[:, :, 0, 0], 1 / rec.activations.shape[1]))
    end = masked_score(rec, opticam_weights(rec, learning_rate=rate))
    assert (end >= start - 1e-6 * start.abs()).all()
    assert (end > start + 1e-3).any()


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_map_does_not_depend_on_the_batch_whoever_stops_first(chunk):
    options = {"steps": 15, "patience": PATIENCE, "tolerance": TOLERANCE}
    rec = asked_of(FlatNet, "relu", count=3, chunk=chunk)
    with metered() as together:
        found = opticam(rec, **options)
    forwards = []
    for index in range(3):
        with metered() as cost:
            alone = opticam(only(rec, [index]), **options)
        forwards.append(cost.forwards)
        torch.testing.assert_close(alone[0], found[index], rtol=1e-9, atol=1e-12)
    assert len(set(forwards)) > 1  # else nobody has shown that a neighbour's end makes no difference
    assert together.forwards == sum(forwards)
    order = [2, 0, 1]
    torch.testing.assert_close(opticam(only(rec, order), **options), found[order], rtol=1e-9, atol=1e-12)


def test_without_patience_running_out_each_step_costs_a_forward_and_a_backward_and_the_last_a_forward_more():
    rec = asked_of(GapNet, "relu", torch.float32, count=3, chunk=2)
    seen = []
    handle = rec.subject.module.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    with metered() as cost:
        opticam(rec, steps=7, patience=7)
    handle.remove()
    assert (cost.forwards, cost.backwards) == (3 * 8, 3 * 7)
    assert seen == [2, 1] * 8


def test_a_score_that_cannot_change_is_asked_for_until_patience_runs_out():
    rec = asked_of(GapNet, "relu", count=2)
    with torch.no_grad():
        rec.subject.module.head.weight.zero_()
    with metered() as cost:
        weights = opticam_weights(rec, patience=4)
    assert torch.equal(weights, torch.full_like(weights, 1 / 6))
    assert cost.forwards == 2 * (1 + 4)


def circular(value):
    """One grey image, of which a circular net makes constant features, between two others."""
    subject = tiny_subject(GapNet(padding_mode="circular").double(), "relu")
    images = some_images(3).double()
    images[1] = value
    return record(subject, images, torch.tensor([1, 3, 2]), chunk=8)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_image_whose_channels_are_all_constant_costs_nothing_and_disturbs_nobody(value):
    rec = circular(value)
    with metered() as cost:
        found = opticam(only(rec, [1]))
    assert (cost.forwards, cost.backwards) == (0, 0)
    torch.testing.assert_close(found[0], rec.activations[1].relu().mean(0))
    assert is_constant(found).all()
    alone = opticam(only(rec, [0, 2]), steps=5)
    torch.testing.assert_close(opticam(rec, steps=5)[[0, 2]], alone, rtol=1e-9, atol=1e-12)


def test_a_dead_image_gives_a_map_of_zeros():
    rec = asked_of(GapNet, "relu")
    assert torch.equal(opticam(replace(rec, activations=-rec.activations.abs())), torch.zeros(2, 8, 8).double())


class ComplementNet(nn.Module):
    """Two channels, red and what is not red, which sum to the same everywhere."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, CLASSES)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])[:, :, None, None])
            self.conv.bias.copy_(torch.tensor([0.0, 1]))
            self.head.weight.copy_(torch.arange(CLASSES)[:, None] * torch.tensor([1.0, 0]))  # all are for red
            self.head.bias.zero_()

    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_that_is_constant_though_its_channels_are_not_is_left_at_the_first_step(dtype):
    subject = tiny_subject(ComplementNet().eval().to(dtype), "conv", seed=None)
    rec = record(subject, some_images(2).to(dtype), chunk=8)
    equal = torch.full_like(rec.activations[:, :, 0, 0], 0.5)
    assert is_constant(torch.einsum("bk,bkij->bij", equal, rec.activations)).all()
    weights = opticam_weights(rec)
    assert torch.isfinite(weights).all()
    assert (masked_score(rec, weights) > masked_score(rec, equal) + 0.01).all()
    assert not is_constant(opticam(rec)).any()


@pytest.mark.parametrize("height", [0.0, 1e-30, 0.3, 1e30])
def test_the_mask_of_a_constant_map_is_empty_and_has_a_finite_slope(height):
    u = torch.zeros(1, 3, requires_grad=True)
    mask = mask_of(torch.full((1, 3, 4, 4), height), u, (16, 16))
    assert mask.detach().abs().max() <= 1e-6
    assert torch.isfinite(
        torch.autograd.grad((mask * torch.rand(16, 16, generator=generator(0, "mask"))).sum(), u)[0]
    ).all()


def test_the_mask_reaches_from_0_to_1():
    features = torch.rand(3, 5, 4, 4, generator=generator(0, "mask"))
    mask = mask_of(features, torch.randn(3, 5, generator=generator(1, "mask")), (16, 16))
    assert torch.equal(mask.amin((1, 2)), torch.zeros(3))
    assert torch.equal(mask.amax((1, 2)), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_does_not_move_the_weights_of_channels_that_cannot_matter(dtype):
    rec = asked_of(GapNet, "relu", dtype)
    features = rec.activations.clone()
    features[:, 1:3] = 0
    features[:, 3] = 0.7
    weights = opticam_weights(replace(rec, activations=features), steps=10)
    assert torch.equal(weights[:, 1], weights[:, 2])
    assert torch.equal(weights[:, 1], weights[:, 3])
    assert not torch.isclose(weights[:, 0], weights[:, 1]).any()


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**40])
def test_the_scale_of_the_features_does_not_matter_to_the_weights(factor):
    rec = asked_of(FlatNet, "relu", torch.float32)
    scaled = replace(rec, activations=rec.activations * factor)
    assert torch.equal(opticam_weights(scaled, steps=10), opticam_weights(rec, steps=10))


def test_the_order_of_the_channels_does_not_matter():
    rec = asked_of(FlatNet, "relu")
    order = torch.tensor([2, 0, 3, 1])
    permuted = opticam(replace(rec, activations=rec.activations[:, order]), steps=10)
    torch.testing.assert_close(permuted, opticam(rec, steps=10), rtol=1e-8, atol=1e-10)


class ObjectNet(nn.Module):
    """Sees red, green and blue by themselves, and every fourth channel nothing; class 0 is red, and against blue."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(4, 3)[:, :, None, None].expand(-1, -1, 4, 4) / 16)
            self.head.weight.copy_(torch.tensor([[1.0, 0, -1, 0], [-1, 0, 1, 0]]))

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


@pytest.mark.parametrize(("target", "colour"), [(0, 0), (1, 2)])
def test_the_mask_ends_up_on_the_object_of_the_class(target, colour):
    images = 0.2 * torch.rand(1, 3, 32, 32, generator=generator(0, "objects"))
    images[:, 0, 4:12, 4:12] = 1  # red above left, blue below right
    images[:, 2, 20:28, 16:28] = 1
    subject = tiny_subject(ObjectNet().eval(), "conv", size=32, seed=None, classes=2)
    rec = record(subject, images, torch.tensor([target]), chunk=8)
    own, other = images[0, colour, ::4, ::4] == 1, images[0, 2 - colour, ::4, ::4] == 1
    start, end = unit_range(rec.activations.mean(1))[0], unit_range(opticam(rec))[0]
    assert start[other].min() > 0.9
    assert end[own].min() > 0.9
    assert end[~own].max() < 0.2
    assert opticam_weights(rec)[0].argmax() == colour


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("freeze", [False, True])
def test_the_callers_mode_makes_no_difference_and_nothing_is_left_behind(mode, freeze):
    subject = tiny_subject(FlatNet(), "relu")
    if freeze:
        frozen_module(subject.module)
    expected = opticam(record(subject, some_images(2), chunk=8), steps=3)
    before = traces(subject.module)
    with mode():
        rec = record(subject, some_images(2), chunk=8)
        activations, images = rec.activations.clone(), rec.images.clone()
        found = opticam(rec, steps=3)
        assert torch.equal(rec.activations, activations)
        assert torch.equal(rec.images, images)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert traces(subject.module) == before


def test_a_model_that_switches_gradients_off_is_optimised_like_any_other():
    found = [
        opticam(record(tiny_subject(net(), "relu"), some_images(2), chunk=8), steps=3) for net in (NoGradNet, GapNet)
    ]
    assert torch.equal(*found)


class DetachedNet(GapNet):
    def forward(self, images):
        return super().forward(images.detach())


def test_a_model_that_cuts_its_scores_off_from_its_input_is_refused():
    rec = asked_of(GapNet, "relu", torch.float32)
    cut = tiny_subject(DetachedNet(), "relu")
    with pytest.raises(ZeroGradient, match="cut off from its input"):
        opticam(replace(rec, subject=cut))


def test_a_recording_made_by_hand_is_refused():
    features = torch.rand(1, 2, 4, 4, generator=generator(0, "by hand"))
    with pytest.raises(ValueError, match="no model to ask again"):
        opticam(recording(features, features))


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"patience": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"tolerance": -0.1},
        {"tolerance": 1.0},
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        opticam(asked_of(GapNet, "relu"), **options)


def test_it_is_found_by_name_and_is_not_among_those_that_cost_nothing():
    assert cam.find_cam("Opti-CAM".lower().replace("-", "")) is opticam
    assert "opticam" not in cam.RECORDED
