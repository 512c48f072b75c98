from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from camcore import cam, record
from camcore.cost import metered
from camcore.maps import rectify, upsample
from camcore.seeds import generator
from camcore.subject import Normalise
from tests.oracles import guided as oracle
from tests.recorded import traces
from tests.test_cam_gradient import recording
from tests.tiny import CLASSES, FlatNet, GapNet, InPlaceNet, NoGradNet, SharedReluNet, some_images, tiny_subject

PIXELS = 8

RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": functional.relu,
    "F.relu in place": lambda x: functional.relu(x, inplace=True),
    "F.relu_": functional.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "exported": torch.ops.aten.relu.default,
}


class StackNet(nn.Module):
    """Two convolutions and two dense layers with one activation between them."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.dense1 = nn.Linear(4 * (PIXELS // 2) ** 2, 6)
        self.dense2 = nn.Linear(6, CLASSES)
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        features = self.activation(self.conv2(self.activation(self.conv1(images))))
        return self.dense2(self.activation(self.dense1(features.flatten(1))))

    def stack(self, rectifier: str = "relu") -> list[oracle.Layer]:
        def weights(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
            return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()

        return [
            ("conv", *weights(self.conv1), 1, 1),
            (rectifier,),
            ("conv", *weights(self.conv2), 2, 1),
            (rectifier,),
            ("dense", *weights(self.dense1)),
            (rectifier,),
            ("dense", *weights(self.dense2)),
        ]


def recorded(
    net: nn.Module, layer: str = "conv2", *, count: int = 2, size: int = PIXELS, seed: int | None = 0, **given
):
    return record(tiny_subject(net, layer, size=size, seed=seed), some_images(count, size=size), chunk=2, **given)


def doubled(rec):
    subject = replace(rec.subject, module=rec.subject.module.double())
    return record(subject, rec.images.double(), rec.target, layer=rec.layer, chunk=2)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_guided_backprop_equals_the_papers_rule(seed):
    rec = recorded(StackNet(torch.relu), seed=seed, count=1)
    single, double = cam.guided_backprop(rec), cam.guided_backprop(doubled(rec))
    for index, image in enumerate(rec.images):
        stack = rec.subject.module.stack()
        expected = torch.from_numpy(
            oracle.guided_gradient(stack, image.double().numpy(), int(rec.target[index])).sum(0)
        )
        size = expected.abs().max().clamp_min(1e-30)
        assert (double[index] - expected).abs().max() <= 1e-9 * size
        assert (single[index] - expected).abs().max() <= 1e-5 * size


@pytest.mark.parametrize("name", ["nn.ReLU6", "F.relu6", "F.hardtanh", "in place"])
def test_relu6_passes_nothing_where_it_is_clipped(name):
    activation = {
        "nn.ReLU6": nn.ReLU6(),
        "F.relu6": functional.relu6,
        "F.hardtanh": lambda x: functional.hardtanh(x, 0, 6),
        "in place": lambda x: functional.hardtanh_(x, min_val=0.0, max_val=6.0),
    }[name]
    rec = recorded(StackNet(activation))
    rec.subject.module.conv1.weight.data *= 20  # so that some are clipped from above
    rec = doubled(rec)
    clipped = oracle.forward(rec.subject.module.stack("relu6"), rec.images[0].numpy())[2]
    assert (clipped == 6).any()
    assert ((clipped > 0) & (clipped < 6)).any()
    found = cam.guided_backprop(rec)
    for index, image in enumerate(rec.images):
        expected = oracle.guided_gradient(rec.subject.module.stack("relu6"), image.numpy(), int(rec.target[index]))
        torch.testing.assert_close(found[index], torch.from_numpy(expected.sum(0)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", RELUS)
def test_a_relu_is_met_however_it_is_called(name):
    expected = cam.guided_backprop(recorded(StackNet(nn.ReLU())))
    found = cam.guided_backprop(recorded(StackNet(RELUS[name])))
    assert torch.equal(found, expected)
    assert expected.any()


def test_guided_backprop_differs_from_the_plain_gradient_where_a_gradient_is_negative():
    rec = recorded(StackNet(torch.relu))
    assert not torch.allclose(cam.guided_backprop(rec), plain_gradient(rec), rtol=0.1)


def test_guided_backprop_is_the_plain_gradient_where_every_gradient_is_positive():
    net = StackNet(torch.relu)
    rec = recorded(net)
    for parameter in net.parameters():
        parameter.data.abs_()
    torch.testing.assert_close(cam.guided_backprop(rec), plain_gradient(rec))


def plain_gradient(rec):
    images = rec.images.clone().requires_grad_()
    score = rec.subject.logits(images).gather(1, rec.target[:, None]).sum()
    return torch.autograd.grad(score, images)[0].sum(1)


def test_guided_backprop_is_per_unit_of_a_pixel_before_normalisation():
    net = StackNet(torch.relu)
    grey = Normalise(mean=(0.0, 0.0, 0.0), std=(0.5, 0.5, 0.5))
    rec = recorded(net)
    twice = replace(rec, images=rec.images / 2, subject=replace(rec.subject, preprocess=grey))
    torch.testing.assert_close(cam.guided_backprop(twice), 2 * cam.guided_backprop(rec))


def test_guided_backprop_of_a_contrast_is_that_of_the_difference_of_scores():
    net = StackNet(torch.relu)
    target, against = torch.tensor([0, 1]), torch.tensor([2, 2])
    contrast = cam.guided_backprop(recorded(net, target=target, against=against))
    net.dense2.weight.data -= net.dense2.weight.data[2:3].clone()  # every class now means: against class 2
    single = cam.guided_backprop(recorded(net, seed=None, target=target))
    torch.testing.assert_close(contrast, single)


def test_guided_gradcam_is_guided_backprop_times_rectified_gradcam():
    rec = recorded(GapNet(), size=16)
    expected = cam.guided_backprop(rec) * upsample(rectify(cam.gradcam(rec)), (16, 16))
    assert torch.equal(cam.guided_gradcam(rec), expected)
    assert expected.any()


def test_guided_gradcam_is_zero_where_gradcam_is_negative():
    rec = recorded(FlatNet(), "conv", size=16)
    rec = replace(rec, gradients=-rec.activations.sign())
    assert not cam.guided_gradcam(rec).any()
    assert cam.guided_backprop(rec).any()


def test_nothing_is_seen_through_a_wall():
    def wall(activations):
        return activations * (torch.arange(activations.shape[2]) < 2)[:, None]

    rec = recorded(StackNet(torch.relu), behind=wall)
    assert cam.guided_backprop(rec)[:, :4].any()
    # kept rows 0 and 1 of conv2 (3x3, stride 2) see conv1's rows up to 3, and these see the pixels' up to 4
    assert not cam.guided_backprop(rec)[:, 5:].any()


@pytest.mark.parametrize("name", ["guided_backprop", "guided_gradcam"])
def test_a_guided_map_costs_one_forward_and_one_backward(name):
    rec = recorded(StackNet(nn.ReLU()), count=5)
    with metered() as cost:
        getattr(cam, name)(rec)
    assert (cost.forwards, cost.backwards) == (5, 5)


def test_the_batch_size_is_measured_outside_the_rewired_network(monkeypatch):
    rec = recorded(StackNet(nn.ReLU()))
    expected = cam.guided_backprop(rec)

    def measured(_rec):
        assert_relu_is_itself()
        return 2

    monkeypatch.setattr("camcore.cam.guided.chunk_of", measured)
    monkeypatch.setattr("camcore.ask.known_batch_size", None)  # not asked a second time, inside
    assert torch.equal(cam.guided_backprop(replace(rec, chunk=None)), expected)


@pytest.mark.parametrize("net", [GapNet, SharedReluNet, InPlaceNet])
def test_an_image_has_the_same_guided_map_in_any_batch(net):
    layer = "conv" if net is InPlaceNet else "conv2"
    rec = recorded(net(), layer, count=5, size=16)
    together = cam.guided_gradcam(rec)
    for index in range(5):
        alone = record(rec.subject, rec.images[index : index + 1], rec.target[index : index + 1], chunk=1)
        torch.testing.assert_close(cam.guided_gradcam(alone)[0], together[index])


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.LeakyReLU(), nn.Hardswish(), nn.Hardtanh()])
def test_a_network_without_relus_is_refused_by_name(activation):
    rec = recorded(StackNet(activation))
    used = {"LeakyReLU": "leaky_relu"}.get(type(activation).__name__, type(activation).__name__.lower())
    message = rf"no ReLU was met in a forward of tiny \(it uses {used}\)"
    for method in (cam.guided_backprop, cam.guided_gradcam):
        with pytest.raises(ValueError, match=message) as refusal:
            method(rec)
        assert "\n" not in str(refusal.value)


def test_a_clamp_is_no_relu():
    with pytest.raises(ValueError, match="no ReLU was met in a forward of tiny:"):
        cam.guided_backprop(recorded(StackNet(lambda x: x.clamp(min=0))))


def test_a_network_of_relus_and_others_is_refused_unless_asked_for():
    rec = recorded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GELU(), Mean()), "2", size=16)
    with pytest.raises(ValueError, match="tiny uses gelu beside ReLU: guided backpropagation is not defined"):
        cam.guided_backprop(rec)
    assert cam.guided_backprop(rec, partly=True).any()


class Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_is_refused_because_nothing_can_be_met_in_it():
    net = nn.Sequential(torch.jit.trace(nn.ReLU(), torch.zeros(1)), nn.Conv2d(3, 4, 3), nn.ReLU(), Mean())
    rec = recorded(net, "1", size=16)
    with pytest.raises(ValueError, match="layer '0' of tiny is TorchScript"):
        cam.guided_backprop(rec)


def test_a_recording_made_by_hand_is_refused():
    with pytest.raises(ValueError, match="no model to ask again"):
        cam.guided_backprop(recording(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3)))


def test_a_no_grad_inside_the_forward_changes_nothing():
    expected = cam.guided_backprop(recorded(GapNet(), size=16))
    assert torch.equal(cam.guided_backprop(recorded(NoGradNet(), size=16)), expected)


@pytest.mark.parametrize("name", ["guided_backprop", "guided_gradcam"])
def test_a_guided_map_leaves_no_trace(name):
    rec = recorded(StackNet(nn.ReLU(inplace=True)))
    before, images = traces(rec.subject.module), rec.images.clone()
    getattr(cam, name)(rec)
    assert traces(rec.subject.module) == before
    assert torch.equal(rec.images, images)
    assert_relu_is_itself()


def test_a_forward_that_breaks_leaves_no_trace():
    rec = recorded(StackNet(nn.ReLU()))
    rec.subject.module.dense2 = nn.Linear(7, CLASSES)
    before = traces(rec.subject.module)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cam.guided_backprop(rec)
    assert traces(rec.subject.module) == before
    assert_relu_is_itself()


def assert_relu_is_itself():
    x = torch.ones(1, requires_grad=True)
    (gradient,) = torch.autograd.grad(-functional.relu(x).sum(), x)
    assert gradient.item() == -1


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["model", "submodule"])
def test_a_compiled_network_runs_as_it_was_written(whole):
    net = StackNet(nn.ReLU())
    expected = cam.guided_backprop(recorded(net))
    inner = torch.compile(net if whole else net.conv1, backend="eager")
    rec = recorded(net)
    if whole:
        rec = replace(rec, subject=replace(rec.subject, module=inner))
    else:
        net.conv1 = inner
    with torch.no_grad():
        (inner if whole else net)(rec.images)  # compiled before it is asked
    assert torch.equal(cam.guided_backprop(rec), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize("seed", range(3))
def test_captum_agrees_where_relus_are_modules(seed):
    attr = pytest.importorskip("captum.attr")
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, CLASSES)),
    )
    rec = recorded(net, "2", seed=seed)
    theirs = attr.GuidedBackprop(net).attribute(rec.images.clone().requires_grad_(), target=rec.target)
    torch.testing.assert_close(cam.guided_backprop(rec), theirs.detach().sum(1))


def test_the_order_of_images_is_the_order_of_maps():
    rec = recorded(StackNet(nn.ReLU()), count=4)
    order = torch.randperm(4, generator=generator(0, "order"))
    shuffled = record(rec.subject, rec.images[order], rec.target[order], chunk=3)
    torch.testing.assert_close(cam.guided_backprop(shuffled), cam.guided_backprop(rec)[order])
