"""What cannot be recorded is refused in words that say what to do: layers, classes, images, modes."""

import pytest
import torch
from torch import nn

from camcore.layers import with_target_layer
from camcore.recording import ZeroGradient, record
from tests.tiny import CLASSES, DenseNet, GapNet, SharedReluNet, TokenNet, frozen, some_images, tiny_subject


def test_record_says_so_when_the_forward_is_decorated_with_inference_mode():
    class Deployed(GapNet):
        @torch.inference_mode()
        def forward(self, images):
            return super().forward(images)

    with pytest.raises(ZeroGradient, match="cut off from 'relu'"):
        record(tiny_subject(Deployed()), some_images(), layer="relu")


def test_missing_layer_is_refused_with_the_nearest_names():
    subject = tiny_subject(GapNet(), "relu")
    with pytest.raises(ValueError, match=r"no layer 'conv3' in GapNet; did you mean '(conv1', 'conv2|conv2', 'conv1)'"):
        record(subject, some_images(), layer="conv3")


def test_missing_layer_unlike_any_other_is_refused_with_the_last_convolutions():
    subject = tiny_subject(GapNet(), "relu")
    with pytest.raises(ValueError, match=r"convolutions nearest the output: 'conv2', 'conv1'"):
        record(subject, some_images(), layer="zzzzzz")


def test_a_layer_that_runs_twice_is_refused():
    with pytest.raises(ValueError, match=r"layer 'relu' of tiny runs more than once"):
        record(tiny_subject(SharedReluNet()), some_images(), layer="relu")


def test_a_layer_that_does_not_run_is_refused():
    net = GapNet()
    net.spare = nn.Conv2d(3, 4, 3)
    with pytest.raises(ValueError, match=r"layer 'spare' of tiny does not run in a forward; name one that does"):
        record(tiny_subject(net), some_images(), layer="spare")


def test_a_subject_without_a_target_layer_is_refused():
    with pytest.raises(ValueError, match="tiny has no layer whose output is a map of features; name one"):
        record(tiny_subject(DenseNet()), some_images())


def test_a_layer_whose_output_is_no_map_is_refused():
    with pytest.raises(ValueError, match=r"layer 'head' of tiny gives \(3, 5\), which is no map of features of"):
        record(tiny_subject(GapNet(), "relu"), some_images(), layer="head")


def test_a_layer_that_sees_windows_instead_of_images_is_refused():
    class Windows(GapNet):
        def forward(self, images):
            halves = torch.cat(images.chunk(2, dim=3))
            return self.head(self.relu(self.conv2(self.conv1(halves))).mean((2, 3)))[: len(images)]

    subject = tiny_subject(Windows())
    with pytest.raises(ValueError, match=r"'relu' of tiny gives 6 maps for 3 images \(windows of attention\?\)"):
        record(subject, some_images(3), layer="relu")
    assert with_target_layer(subject).target_layer is None


def test_patches_that_the_head_does_not_read_are_refused_as_zero_gradient():
    with pytest.raises(ZeroGradient, match=r"does not depend on layer 'block2' \(zero gradient everywhere\)"):
        record(tiny_subject(TokenNet()), some_images(), layer="block2")


def test_a_layer_that_the_score_is_cut_off_from_is_refused_as_zero_gradient():
    class Detached(GapNet):
        def forward(self, images):
            return self.head(self.relu(self.conv2(self.conv1(images))).detach().mean((2, 3)))

    with pytest.raises(ZeroGradient):
        record(frozen_subject(Detached()), some_images(), layer="relu")
    with pytest.raises(ZeroGradient):
        record(tiny_subject(Detached()), some_images(), layer="relu")


def frozen_subject(net):
    subject = tiny_subject(net)
    frozen(subject.module)
    return subject


@pytest.mark.parametrize("target", [[0, 1, CLASSES], [-1, 0, 0]])
def test_a_class_out_of_range_is_refused(target):
    with pytest.raises(ValueError, match=r"out of range; the model has 5 classes, numbered 0 to 4"):
        record(tiny_subject(GapNet(), "relu"), some_images(3), torch.tensor(target))


@pytest.mark.parametrize("target", [torch.tensor(1), torch.tensor([1]), torch.zeros(3, 1, dtype=torch.long)])
def test_a_target_of_the_wrong_shape_is_refused(target):
    with pytest.raises(ValueError, match="target must hold one class per image, got shape"):
        record(tiny_subject(GapNet(), "relu"), some_images(3), target)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_images_outside_the_unit_range_are_refused(value):
    images = some_images()
    images[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\], got \[.*pass them before normalisation"):
        record(tiny_subject(GapNet(), "relu"), images)


def test_a_model_in_training_mode_is_refused():
    subject = tiny_subject(GapNet(), "relu")
    subject.module.train()
    with pytest.raises(ValueError, match=r"tiny is in training mode.*call \.eval\(\) first"):
        record(subject, some_images())
    assert subject.module.training
