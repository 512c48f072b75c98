"""Places found by following a network are those that its layers add up to, and those that its cells see."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision import models

from camcore.cost import metered
from camcore.placement import Placement, even_placement, trace_placement
from camcore.subject import Classifier
from tests.oracles import placement as oracle
from tests.placed import Formula, smooth, subject_of
from tests.recorded import NETS, traces
from tests.tiny import CLASSES, DenseNet, TokenNet, randomised, tiny_subject


def on_meta(build, **arguments):
    """Shapes without numbers: places do not depend on weights, and nothing has to be drawn or computed."""
    with torch.device("meta"):
        return build(**arguments)


def googlenet():
    return models.googlenet(aux_logits=False, init_weights=False)


class CifarResNet(nn.Module):
    """He et al. 2016, section 4.2: shortcuts of option A pick every second pixel and pad the channels with zeros."""

    def __init__(self, blocks=2, width=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.convs = nn.ModuleList()
        for stage in range(3):
            for block in range(blocks):
                strided = stage > 0 and block == 0
                before, after = width * 2**stage // (1 + strided), width * 2**stage
                first = nn.Conv2d(before, after, 3, stride=1 + strided, padding=1)
                self.convs.append(nn.Sequential(first, nn.ReLU(inplace=True), nn.Conv2d(after, after, 3, padding=1)))
        self.last = nn.Identity()
        self.head = nn.Linear(width * 4, CLASSES)

    def forward(self, images):
        features = self.stem(images)
        for convs in self.convs:
            onward = convs(features)
            if onward.shape != features.shape:
                pad = (onward.shape[1] - features.shape[1]) // 2
                features = F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
            features = F.relu(onward.add_(features), inplace=True)
        return self.head(self.last(features).mean((2, 3)))


FAMILIES = {
    "vgg16": (models.vgg16, "features.29", oracle.VGG16, 7.5, 16),
    "vgg16 pooled": (models.vgg16, "features.30", [*oracle.VGG16, (2, 2, 0)], 15.5, 32),
    "resnet18": (models.resnet18, "layer4", oracle.RESNET, 0, 32),
    "resnet50": (models.resnet50, "layer4.2", oracle.RESNET, 0, 32),
    "cifar resnet": (CifarResNet, "last", oracle.CIFAR_RESNET, 0, 4),
    "mobilenet_v2": (models.mobilenet_v2, "features.18", oracle.MOBILENET_V2, 0, 32),
    "mobilenet_v3_small": (models.mobilenet_v3_small, "features.12", oracle.MOBILENET_V3_SMALL, 0, 32),
    "efficientnet_b0": (models.efficientnet_b0, "features.8", oracle.EFFICIENTNET_B0, 0, 32),
    "densenet121": (models.densenet121, "features", oracle.DENSENET, 14, 32),
    "convnext_tiny": (models.convnext_tiny, "features.7", oracle.CONVNEXT, 15.5, 32),
    "convnext_tiny channels last": (models.convnext_tiny, "features.7.2.block.5", oracle.CONVNEXT, 15.5, 32),
    "squeezenet1_1": (models.squeezenet1_1, "features.12", oracle.SQUEEZENET1_1, 15, 16),
    "googlenet": (googlenet, "inception5b", oracle.GOOGLENET, 22, 32),
    "alexnet": (models.alexnet, "features.11", oracle.ALEXNET, 15, 16),
    "swin_t": (models.swin_t, "features.7.1.norm2", oracle.SWIN, 15.5, 32),
}


@pytest.mark.slow  # torchvision itself takes most of it
@pytest.mark.parametrize("size", [(224, 224), (192, 320), (225, 299)], ids=str)
@pytest.mark.parametrize(("build", "layer", "stack", "first", "step"), FAMILIES.values(), ids=FAMILIES)
def test_cells_lie_where_the_layers_below_add_up_to(build, layer, stack, first, step, size):
    found = trace_placement(subject_of(on_meta(build), size, layer))

    assert found == Placement(first=(first, first), step=(step, step), source="traced")
    assert [first + step * cell for cell in range(4)] == oracle.centres(stack, 4)


@pytest.mark.slow
def test_patches_of_a_transformer_are_even():
    found = trace_placement(subject_of(on_meta(models.vit_b_16), (224, 224), "encoder.layers.encoder_layer_11.ln_1"))

    even = even_placement((14, 14), (224, 224))
    assert (found.first, found.step) == (even.first, even.step) == ((7.5, 7.5), (16, 16))


@pytest.mark.slow
def test_weights_and_devices_do_not_matter():
    placements = [
        trace_placement(subject_of(module, (224, 224), "layer4"))
        for module in (on_meta(models.resnet18), randomised(models.resnet18()))
    ]
    assert placements[0] == placements[1] != even_placement((7, 7), (224, 224))


def test_even_cells_lie_in_the_middle_of_their_shares():
    found = even_placement((7, 4), (224, 10))
    assert found == Placement(first=(15.5, 0.75), step=(32, 2.5), source="even")


# --- what cells see -------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A strided convolution beside a strided shortcut."""

    def __init__(self, kernel, stride):
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(3, 3, kernel, stride=stride, padding=kernel // 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        )
        self.shortcut = nn.Conv2d(3, 3, 1, stride=stride)

    def forward(self, features):
        return self.convs(features).add_(self.shortcut(features))


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(["conv", "conv", "max", "average", "residual", "pad", "relu"]))
    kernel, stride = draw(st.tuples(*[st.integers(1, 4)] * 2)), draw(st.tuples(*[st.integers(1, 2)] * 2))
    padding = tuple(draw(st.integers(0, one // 2)) for one in kernel)
    if kind == "conv":
        dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
        return nn.Conv2d(3, 3, kernel, stride=stride, padding=padding, dilation=dilation)
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans()))
    if kind == "average":
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans()))
    if kind == "residual":
        return Residual(draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2)))
    return nn.ZeroPad2d(draw(st.tuples(*[st.integers(0, 2)] * 4))) if kind == "pad" else nn.ReLU(inplace=True)


class Scored(nn.Module):
    """A body, and a score of whatever it gives."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, images):
        return self.body(images).flatten(1)[:, :1]


@pytest.mark.slow
@given(st.lists(layers(), min_size=1, max_size=3), st.sampled_from([(56, 56), (61, 48), (50, 59)]))
def test_a_cell_lies_in_the_middle_of_what_it_sees(stack, size):
    body = randomised(nn.Sequential(*stack))
    for parameter in body.parameters():
        parameter.data.abs_().add_(0.1)  # no weight is 0
    try:
        with torch.no_grad():
            cells = body(torch.zeros(1, 3, *size)).shape[2:]
    except RuntimeError:  # nothing is left of the image
        assume(False)
    placement = trace_placement(subject_of(Scored(body), size, "body", cells))
    assert placement.source == "traced"
    body.double()
    for axis in (0, 1):
        seen = oracle.seen_rows(body, size, across=axis == 1)
        assert seen
        for cell, (first, last) in seen.items():
            assert placement.first[axis] + cell * placement.step[axis] == (first + last) / 2


# --- subjects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("net", "layer"), NETS.values(), ids=NETS)
def test_tracing_takes_one_forward_and_leaves_the_model_as_it_was(net, layer):
    subject = tiny_subject(net(), layer)
    before = traces(subject.module)
    with metered() as spent:
        found = trace_placement(subject)
    assert (spent.forwards, spent.backwards) == (1, 0)
    assert found.source == "traced"
    assert traces(subject.module) == before


def test_tracing_builds_no_graph_and_gives_the_same_twice():
    asked = []

    class Watched(CifarResNet):
        def forward(self, images):
            asked.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            return super().forward(images)

    subject = subject_of(Watched(), (32, 32), "last")
    with torch.inference_mode():
        first = trace_placement(subject)
    assert first == trace_placement(subject)
    assert asked == [(False, False)] * 2


def test_a_forward_decorated_with_inference_mode_is_followed():
    class Deployed(CifarResNet):
        forward = torch.inference_mode()(CifarResNet.forward)

    found = trace_placement(subject_of(Deployed(), (32, 32), "last"))
    assert found == Placement(first=(0, 0), step=(4, 4), source="traced")


def test_tokens_of_patches_that_leave_a_margin_are_not_even():
    """With patches of 5 in 32 pixels, two rows of pixels belong to no patch; an even share would be 5.33."""
    subject = tiny_subject(TokenNet(5), "block1", size=30)
    even = trace_placement(subject)
    assert (even.first, even.step) == ((2, 2), (5, 5))

    tokens = Formula(lambda images: smooth(images, 5, 5))
    found = trace_placement(subject_of(tokens, (32, 32), "last"))
    assert found == Placement(first=(2, 2), step=(5, 5), source="traced")


def test_the_preprocessing_of_the_subject_counts():
    subject = subject_of(Formula(lambda images: smooth(images, 3, 2, 1)), (32, 40), "last")
    halved = Classifier(**{**vars(subject), "preprocess": lambda images: F.avg_pool2d(images, 2)})
    found = trace_placement(halved)
    assert found == Placement(first=(0.5, 0.5), step=(4, 4), source="traced")


def test_another_layer_can_be_named():
    subject = tiny_subject(NETS["gap"][0](), "relu")
    assert trace_placement(subject, layer="conv1").step == (1, 1)
    assert trace_placement(subject).step == (2, 2)


class Skipping(CifarResNet):
    def forward(self, images):
        return self.head(images.mean((2, 3)).repeat(1, 6)[:, :16])


def test_a_layer_that_gives_no_map_or_does_not_run_is_refused():
    with pytest.raises(ValueError, match="does not run in a forward"):
        trace_placement(subject_of(Skipping(), (32, 32), "last"))
    with pytest.raises(ValueError, match="no map of features"):
        trace_placement(tiny_subject(DenseNet()), layer="dense1")
    with pytest.raises(ValueError, match="name one"):
        trace_placement(tiny_subject(DenseNet()))
    with pytest.raises(ValueError, match="no layer 'lost'"):
        trace_placement(subject_of(CifarResNet(), (32, 32), "lost"))


def test_a_model_in_training_mode_is_refused():
    subject = subject_of(CifarResNet(), (32, 32), "last")
    subject.module.train()
    with pytest.raises(ValueError, match="in training mode"):
        trace_placement(subject)
