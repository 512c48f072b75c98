"""What is recorded: activations, gradients and scores, against autograd through the whole graph."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn

from camcore.recording import ZeroGradient, features, record, record_layers, run_behind
from tests.recorded import every_net
from tests.tiny import (
    CLASSES,
    ChannelsLastNet,
    FlatNet,
    GapNet,
    InPlaceNet,
    NoGradNet,
    TokenNet,
    frozen,
    some_images,
    tiny_subject,
)


def reference(subject, images, layer, target=None):
    """A and g by autograd through the whole graph, with the functional form of the hook: nothing is detached."""
    kept = []

    def hook(_module, _args, output):
        kept.append(output[0] if isinstance(output, tuple) else output)
        kept[0].retain_grad()
        onward = kept[0].clone()
        return (onward, *output[1:]) if isinstance(output, tuple) else onward

    handle = subject.module.get_submodule(layer).register_forward_hook(hook)
    with torch.enable_grad():
        logits = subject.logits(images.clone().requires_grad_())
        chosen = logits.argmax(1) if target is None else target
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept)
    handle.remove()
    return logits.detach(), subject.grid.fold(kept[0].detach()), subject.grid.fold(gradient)


@every_net
def test_recording_equals_autograd_through_the_whole_graph(net, layer):
    subject = tiny_subject(net(), layer)
    images = some_images()
    logits, activations, gradients = reference(subject, images, layer)
    rec = record(subject, images)
    torch.testing.assert_close(rec.logits, logits)
    torch.testing.assert_close(rec.activations, activations)
    torch.testing.assert_close(rec.gradients, gradients)
    assert torch.equal(rec.target, logits.argmax(1))


@every_net
def test_recording_for_a_given_class_equals_autograd(net, layer):
    subject = tiny_subject(net(), layer)
    images, target = some_images(4), torch.tensor([4, 0, 2, 2])
    gradients = reference(subject, images, layer, target)[2]
    rec = record(subject, images, target)
    torch.testing.assert_close(rec.gradients, gradients)
    assert torch.equal(rec.target, target)


@pytest.mark.parametrize("order", [["conv1", "conv2", "relu"], ["relu", "conv1", "conv2"]])
def test_several_layers_in_one_pass_equal_one_at_a_time(order):
    subject = tiny_subject(GapNet(), "relu")
    together = record_layers(subject, some_images(), layers=order)
    assert list(together) == order
    for name in order:
        alone = record(subject, some_images(), layer=name)
        assert together[name].layer == alone.layer == name
        torch.testing.assert_close(together[name].activations, alone.activations)
        torch.testing.assert_close(together[name].gradients, alone.gradients)
        torch.testing.assert_close(together[name].logits, alone.logits)


def test_several_layers_around_an_in_place_relu_equal_one_at_a_time():
    subject = tiny_subject(InPlaceNet(), "conv")
    together = record_layers(subject, some_images(), layers=["conv", "relu"])
    assert (together["conv"].activations < 0).any()
    torch.testing.assert_close(together["relu"].activations, together["conv"].activations.relu())
    for name in together:
        torch.testing.assert_close(together[name].gradients, record(subject, some_images(), layer=name).gradients)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_record_works_whatever_grad_mode_the_caller_is_in(guard):
    subject = tiny_subject(GapNet(), "relu")
    expected = record(subject, some_images())
    with guard():
        before = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        rec = record(subject, some_images())  # images made in inference mode are inference tensors
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert torch.equal(rec.gradients, expected.gradients)
    assert torch.equal(rec.activations, expected.activations)


@every_net
def test_record_of_a_frozen_model_equals_that_of_a_trainable_one(net, layer):
    subject = tiny_subject(net(), layer)
    expected = record(subject, some_images())
    frozen(subject.module)
    rec = record(subject, some_images())
    # attention has a fast path for frozen weights: equal to rounding, not to the bit
    torch.testing.assert_close(rec.gradients, expected.gradients, rtol=1e-4, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in subject.module.parameters())


def test_record_works_on_a_forward_decorated_with_no_grad():
    decorated = tiny_subject(NoGradNet(), "relu")
    rec = record(decorated, some_images())
    assert torch.equal(rec.gradients, record(tiny_subject(GapNet(), "relu"), some_images()).gradients)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_record_works_on_a_bf16_model_whose_forward_is_decorated_with_no_grad():
    def feed(images):
        return images.bfloat16()

    decorated = tiny_subject(NoGradNet().bfloat16(), "relu", preprocess=feed)  # cast to fp32 after it
    plain = tiny_subject(GapNet().bfloat16(), "relu", preprocess=feed)
    assert torch.equal(record(decorated, some_images()).gradients, record(plain, some_images()).gradients)


def test_in_place_relu_after_the_target_does_not_rewrite_the_activations():
    subject = tiny_subject(InPlaceNet(), "conv")
    images = some_images()
    rec = record(subject, images)
    assert (rec.activations < 0).any()
    torch.testing.assert_close(rec.activations, subject.module.conv(images).detach())
    assert not rec.gradients[rec.activations < 0].any()


def test_activations_and_gradients_are_detached_fp32_even_of_a_bf16_model():
    subject = tiny_subject(GapNet().bfloat16(), "relu", preprocess=lambda images: images.bfloat16())
    rec = record(subject, some_images())
    for tensor in (rec.activations, rec.gradients, rec.logits):
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad
    exact = tiny_subject(GapNet(), "relu")
    exact.module.load_state_dict({key: value.float() for key, value in subject.module.state_dict().items()})
    # bf16 keeps 8 bits
    torch.testing.assert_close(rec.activations, record(exact, some_images()).activations, rtol=0.05, atol=0.05)


def test_tokens_are_folded_without_the_class_token():
    rec = record(tiny_subject(TokenNet(patch=4), "block2.norm1"), some_images(2))
    assert rec.activations.shape == rec.gradients.shape == (2, 8, 4, 4)


def test_channels_last_features_are_folded_to_channels_first():
    subject = tiny_subject(ChannelsLastNet(), "norm")
    rec = record(subject, some_images(2))
    raw = subject.module.norm(subject.module.conv(some_images(2)).permute(0, 2, 3, 1))
    assert rec.activations.shape == (2, 6, 4, 4)
    for i, j in ((0, 0), (1, 3), (2, 1)):
        torch.testing.assert_close(rec.activations[:, :, i, j], raw[:, i, j].detach())


def test_recorded_images_are_the_ones_given():
    images = some_images()
    assert record(tiny_subject(GapNet(), "relu"), images).images is images


def test_what_stands_behind_the_layer_reaches_the_head_and_not_the_recording():
    subject = tiny_subject(GapNet(), "relu")
    plain = record(subject, some_images())
    rec = record(subject, some_images(), plain.target, behind=lambda activations: activations / 2)
    bias = subject.module.head.bias.detach()
    assert torch.equal(rec.activations, plain.activations)
    torch.testing.assert_close(rec.logits - bias, (plain.logits - bias) / 2)
    torch.testing.assert_close(rec.gradients, plain.gradients / 2)  # of the score with the edit in between
    with pytest.raises(ZeroGradient):
        record(subject, some_images(), behind=torch.zeros_like)


def test_run_behind_gives_features_before_the_edit_and_scores_after_it():
    subject = tiny_subject(GapNet(), "relu")
    plain = record(subject, some_images())
    found, logits = run_behind(subject, some_images(), lambda activations: activations * 2)
    assert torch.equal(found, plain.activations)
    bias = subject.module.head.bias
    torch.testing.assert_close(logits - bias, 2 * (plain.logits - bias))
    assert torch.equal(features(subject, some_images()), plain.activations)


def replaced(output):
    """A collection with every tensor in it replaced by None."""
    if isinstance(output, dict):
        return type(output)({key: replaced(value) for key, value in output.items()})
    if isinstance(output, tuple | list):
        items = [replaced(item) for item in output]
        return output._make(items) if isinstance(output, Pair) else type(output)(items)
    return None if isinstance(output, torch.Tensor) else output


Pair = namedtuple("Pair", "maps extra")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda maps: (maps, 1),
        lambda maps: [maps, 1],
        lambda maps: Pair(maps, 1),
        lambda maps: ((maps, 1), 2),
        lambda maps: {"first": maps, "second": 1},
        lambda maps: OrderedDict(aside=1, logits=maps),
    ],
    ids=["tuple", "list", "namedtuple", "nested", "dict", "logits"],
)
def test_a_layer_may_return_a_collection(wrap):
    class Layer(nn.Conv2d):
        def forward(self, images):
            return wrap(super().forward(images))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Layer(3, 4, 3, stride=2)
            self.head = nn.Linear(4, CLASSES)

        def forward(self, images):
            output = self.layer(images)
            assert repr(replaced(output)) == repr(wrap(None))
            while not isinstance(output, torch.Tensor):
                output = (output.get("logits", output.get("first"))) if isinstance(output, dict) else output[0]
            return self.head(output.relu().mean((2, 3)))

    subject = tiny_subject(Net())
    rec = record(subject, some_images(), layer="layer")
    plain = nn.Conv2d(3, 4, 3, stride=2)
    plain.load_state_dict(subject.module.layer.state_dict())
    torch.testing.assert_close(rec.activations, plain(some_images()).detach())
    assert rec.gradients.any()


def test_recording_of_an_image_does_not_depend_on_its_batch():
    subject = tiny_subject(FlatNet(), "relu")
    together = record(subject, some_images(4))
    for index in range(4):
        alone = record(subject, some_images(4)[index : index + 1])
        torch.testing.assert_close(together.activations[index], alone.activations[0])
        torch.testing.assert_close(together.gradients[index], alone.gradients[0])
