"""Models as they come: wrapped, compiled, frozen, in half precision, with gradients switched off inside."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from camcore.ask import pixel_gradients, scores
from camcore.cam import RECORDED
from camcore.layers import with_target_layer
from camcore.recording import ZeroGradient, record, record_layers
from tests.tiny import CLASSES, ChannelsLastNet, FlatNet, GapNet, NoGradNet, frozen, some_images, tiny_subject


class FrozenBackboneNet(GapNet):
    """A linear probe: the backbone runs without gradients, the head and the mean before it with them."""

    def forward(self, images):
        with torch.no_grad():
            found = self.relu(self.conv2(self.conv1(images)))
        return self.head(found.mean((2, 3)))


class TwiceSwitchedOffNet(GapNet):
    """Backbone and head each in a block of their own."""

    def forward(self, images):
        with torch.no_grad():
            found = self.relu(self.conv2(self.conv1(images)))
        with torch.no_grad():
            return self.head(found.mean((2, 3)))


def compiled(module):
    return torch.compile(module, backend="eager")


def compiled_in_place(module):
    module.compile(backend="eager")
    return module


def compiled_inside(module):
    module.conv2 = torch.compile(module.conv2, backend="eager")
    return module


WRAPPED = {
    "as it is": lambda module: module,
    "data parallel": nn.DataParallel,
    "compiled": compiled,
    "compiled data parallel": lambda module: nn.DataParallel(compiled(module)),
    "compiled in place": compiled_in_place,
    "compiled inside": compiled_inside,
    "frozen": frozen,
    "channels last": lambda module: module.to(memory_format=torch.channels_last),
}


def net(kind=GapNet):
    return tiny_subject(kind(), "relu").module


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapped_model_is_recorded_as_the_module_inside(wrap):
    images = some_images()
    plain = with_target_layer(tiny_subject(net(), seed=None))
    subject = replace(plain, module=wrap(net()).eval())
    with torch.no_grad():
        subject.logits(images)  # whatever is compiled has been compiled before the hooks come
    found = with_target_layer(replace(subject, target_layer=None, grid=None))
    assert found.target_layer == plain.target_layer
    expected, rec = record(plain, images), record(found, images)
    torch.testing.assert_close(rec.activations, expected.activations)
    torch.testing.assert_close(rec.gradients, expected.gradients)
    rows = torch.arange(len(images))
    torch.testing.assert_close(scores(rec, images, rows), scores(expected, images, rows))
    for ours, theirs in zip(pixel_gradients(rec, images, rows), pixel_gradients(expected, images, rows), strict=True):
        torch.testing.assert_close(ours, theirs)
    named = with_target_layer(replace(subject, target_layer=None, grid=None), layer="relu")
    torch.testing.assert_close(record(named, images).gradients, expected.gradients)


@pytest.mark.parametrize("kind", [FrozenBackboneNet, TwiceSwitchedOffNet, NoGradNet])
@pytest.mark.parametrize("guard", [nullcontext, torch.no_grad, torch.inference_mode])
def test_gradients_switched_off_inside_the_model_are_no_obstacle(kind, guard):
    images = some_images()
    expected, subject = record(tiny_subject(GapNet(), "relu"), images), tiny_subject(kind(), "relu")
    with guard():
        rec = record(subject, images)
    torch.testing.assert_close(rec.gradients, expected.gradients)


@pytest.mark.parametrize("kind", [FrozenBackboneNet, TwiceSwitchedOffNet, NoGradNet])
def test_the_target_layer_is_found_although_gradients_are_switched_off(kind):
    subject = with_target_layer(tiny_subject(kind()))
    assert subject.target_layer == "relu"


@pytest.mark.parametrize("kind", [FrozenBackboneNet, TwiceSwitchedOffNet, NoGradNet])
def test_gradients_reach_the_pixels_although_the_model_switches_them_off(kind):
    rows = torch.arange(3)
    rec = record(tiny_subject(kind(), "relu"), some_images())
    expected = pixel_gradients(record(tiny_subject(GapNet(), "relu"), some_images()), rec.images, rows)
    for ours, theirs in zip(pixel_gradients(rec, rec.images, rows), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert expected[1].abs().sum() > 0


def test_pixel_gradients_say_so_when_the_model_cuts_its_input_off():
    class Detached(GapNet):
        def forward(self, images):
            return super().forward(images.detach())

    rec = record(tiny_subject(Detached(), "relu"), some_images())
    with pytest.raises(ZeroGradient, match=r"tiny are cut off from its input; remove torch\.inference_mode"):
        pixel_gradients(rec, rec.images, torch.arange(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [GapNet, FlatNet, ChannelsLastNet])
def test_under_autocast_the_maps_are_fp32_and_near_those_without(kind, dtype):
    layer = "norm" if kind is ChannelsLastNet else "relu"
    subject, images = tiny_subject(kind(), layer), some_images()
    exact = record(subject, images)
    with torch.autocast("cpu", dtype=dtype):
        rec = record(subject, images, exact.target)
    assert rec.activations.dtype == rec.gradients.dtype == rec.logits.dtype == torch.float32
    for name in ("gradcam", "hirescam"):  # Layer-CAM cuts gradients off at 0, where half precision decides the sign
        near, far = RECORDED[name](rec), RECORDED[name](exact)
        assert torch.isfinite(near).all()
        assert torch.corrcoef(torch.stack([near.flatten(), far.flatten()]))[0, 1] > 0.99  # bf16 keeps 8 bits


def test_a_double_precision_model_stays_in_double_precision():
    subject = tiny_subject(GapNet().double(), "relu")
    rec = record(subject, some_images().double())
    assert rec.activations.dtype == rec.gradients.dtype == rec.logits.dtype == torch.float64
    assert all(method(rec).dtype == torch.float64 for method in RECORDED.values())


def test_an_output_selector_finds_the_logits_in_whatever_the_model_returns():
    class Nested(GapNet):
        def forward(self, images):
            return {"aux": images, "out": [{"scores": super().forward(images)}]}

    subject = replace(tiny_subject(Nested(), seed=0), select=lambda output: output["out"][0]["scores"])
    found = record(with_target_layer(subject), some_images())
    torch.testing.assert_close(found.gradients, record(tiny_subject(GapNet(), "relu"), some_images()).gradients)


def test_several_layers_of_a_frozen_backbone_are_recorded_in_one_pass():
    images = some_images()
    found = record_layers(tiny_subject(FrozenBackboneNet()), images, layers=("conv1", "conv2", "relu"))
    expected = record_layers(tiny_subject(GapNet()), images, layers=("conv1", "conv2", "relu"))
    for name, rec in found.items():
        torch.testing.assert_close(rec.gradients, expected[name].gradients)
        assert rec.gradients.abs().sum() > 0


@pytest.mark.parametrize("target", range(CLASSES))
def test_a_contrast_is_the_difference_of_two_class_scores(target):
    subject, images = tiny_subject(FlatNet(), "relu"), some_images(2)
    chosen, other = torch.full((2,), target), torch.full((2,), (target + 1) % CLASSES)
    rec = record(subject, images, chosen, against=other)
    expected = record(subject, images, chosen).gradients - record(subject, images, other).gradients
    torch.testing.assert_close(rec.gradients, expected)
    assert torch.equal(rec.target, chosen)
    assert torch.equal(rec.against, other)
