import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer

from camcore.errors import BadInput
from camcore.grid import Grid
from camcore.layers import with_target_layer
from camcore.recording import features, record
from tests.recorded import traces
from tests.tiny import (
    CLASSES,
    ChannelsLastNet,
    DenseNet,
    DictNet,
    FlatNet,
    GapNet,
    InPlaceNet,
    NoGradNet,
    SharedReluNet,
    TokenNet,
    TupleNet,
    frozen,
    randomised,
    some_images,
    tiny_subject,
)


def narrow_vgg11():
    """VGG11's features with 8 channels throughout, and one dense layer for the three that hold 120 million weights."""
    with torch.device("meta"):
        net = VGG(make_layers([8, "M", 8, "M", 8, 8, "M", 8, 8, "M", 8, 8, "M"]))
    net.classifier = nn.Linear(8 * 7 * 7, CLASSES)
    return randomised(net.to_empty(device="cpu"))


def narrow_vit():
    """ViT-B/16's layers with 16 channels; its head is zero at first, and a zero head has no gradient."""
    return randomised(VisionTransformer(224, 16, 12, 2, 16, 32, num_classes=CLASSES))


def vit_b_32():
    """As torchvision builds it but for the head, which is zero until trained."""
    net = models.vit_b_32()
    nn.init.normal_(net.heads.head.weight, std=0.02)
    return net


def map_of(layout, side, prefix=0):
    return Grid(layout=layout, height=side, width=side, prefix=prefix)


slow = pytest.mark.slow
FAMILIES = {
    "resnet18": (models.resnet18, "layer4.1", map_of("channels_first", 7)),
    "vgg11": (narrow_vgg11, "features.19", map_of("channels_first", 14)),
    "squeezenet1_1": (models.squeezenet1_1, "features.12", map_of("channels_first", 13)),
    "mobilenet_v3_small": (models.mobilenet_v3_small, "features.12.2", map_of("channels_first", 7)),
    "shufflenet_v2_x0_5": (models.shufflenet_v2_x0_5, "conv5.2", map_of("channels_first", 7)),
    "vit_b_16": (narrow_vit, "encoder.layers.encoder_layer_11.ln_1", map_of("tokens", 14, 1)),
    "vit_b_32": (vit_b_32, "encoder.layers.encoder_layer_11.ln_1", map_of("tokens", 7, 1)),
    "densenet121": (models.densenet121, "features.norm5", map_of("channels_first", 7)),
    "swin_t": (models.swin_t, "norm", map_of("channels_last", 7)),
    "convnext_tiny": (models.convnext_tiny, "features.7.2", map_of("channels_first", 7)),
}
SLOW = {"resnet18", "vit_b_32", "swin_t", "convnext_tiny"}


@pytest.mark.parametrize("family", [pytest.param(name, marks=slow if name in SLOW else ()) for name in FAMILIES])
def test_target_layer_of_a_known_family_is_its_last_map_and_can_be_recorded(family):
    build, layer, grid = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build().eval()
    subject = with_target_layer(tiny_subject(net, size=224, seed=None))
    assert (subject.target_layer, subject.grid) == (layer, grid)
    rec = record(subject, some_images(1, size=224))
    assert rec.activations.shape[2:] == (grid.height, grid.width)
    assert rec.gradients.any()


TINY = {
    "gap": (GapNet, "relu", map_of("channels_first", 8)),
    "flattened": (FlatNet, "relu", map_of("channels_first", 8)),
    "in place": (InPlaceNet, "relu", map_of("channels_first", 8)),
    "shared relu": (SharedReluNet, "conv2", map_of("channels_first", 16)),
    "tokens": (TokenNet, "block2.norm1", map_of("tokens", 4, 1)),
    "channels last": (ChannelsLastNet, "mix", map_of("channels_last", 4)),
    "tuple": (TupleNet, "body.conv", map_of("channels_first", 16)),
    "dict": (DictNet, "relu", map_of("channels_first", 8)),
    "no_grad forward": (NoGradNet, "relu", map_of("channels_first", 8)),
}


@pytest.mark.parametrize("freeze", [False, True], ids=["trainable", "frozen"])
@pytest.mark.parametrize(("net", "layer", "grid"), TINY.values(), ids=TINY)
def test_target_layer_is_found_and_recorded_in_odd_nets(net, layer, grid, freeze):
    subject = tiny_subject(net())
    if freeze:
        frozen(subject.module)
    before = traces(subject.module)
    found = with_target_layer(subject)
    assert (found.target_layer, found.grid) == (layer, grid)
    assert traces(subject.module) == before
    assert record(found, some_images()).gradients.any()


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_target_layer_is_found_whatever_grad_mode_the_caller_is_in(guard):
    subject = tiny_subject(GapNet())
    with guard():
        assert with_target_layer(subject).target_layer == "relu"


def test_pooling_on_the_way_to_the_head_is_not_the_target():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.relu = nn.ReLU()
            self.pool = nn.MaxPool2d(2)
            self.head = nn.Linear(4 * 64, CLASSES)

        def forward(self, images):
            return self.head(self.pool(self.relu(self.conv(images))).flatten(1))

    assert with_target_layer(tiny_subject(Pooled())).target_layer == "relu"


class AttentionPool(nn.Module):
    """As CLIP's: it reads its layers' weights, and runs none of them."""

    def __init__(self, channels, given):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, given)

    def forward(self, maps):
        places = maps.flatten(2).transpose(1, 2)
        query = nn.functional.linear(places.mean(1, keepdim=True), self.query.weight, self.query.bias)
        key, value = (nn.functional.linear(places, one.weight, one.bias) for one in (self.key, self.value))
        found = nn.functional.scaled_dot_product_attention(query, key, value)[:, 0]
        return nn.functional.linear(found, self.out.weight, self.out.bias)


def test_an_attention_pool_is_a_head_though_its_layers_do_not_run():
    def stem():
        return [nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU()]

    subject = with_target_layer(tiny_subject(nn.Sequential(*stem(), AttentionPool(6, CLASSES))))
    assert (subject.target_layer, subject.grid) == ("3", map_of("channels_first", 4))
    nested = with_target_layer(tiny_subject(nn.Sequential(nn.Sequential(*stem()), nn.Sequential(AttentionPool(6, 5)))))
    assert (nested.target_layer, nested.grid) == ("0.3", map_of("channels_first", 4))


def test_a_block_that_passes_on_its_last_layer_is_named_by_that_layer():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(4 * 14 * 14, CLASSES))
    assert with_target_layer(tiny_subject(net)).target_layer == "0.1"


def test_a_model_without_a_map_of_features_has_no_target_layer():
    subject = tiny_subject(DenseNet())
    assert with_target_layer(subject) is subject
    assert subject.target_layer is None


def test_a_model_without_weights_has_no_target_layer():
    class Brightness(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    assert with_target_layer(tiny_subject(Brightness())).target_layer is None


def test_maps_that_no_probe_finds_a_gradient_at_are_refused_and_not_taken_for_none():
    subject = tiny_subject(GapNet())
    nn.init.zeros_(subject.module.head.weight)
    with pytest.raises(BadInput, match=r"has maps of features .*'relu' is the last.*--audit-layer"):
        with_target_layer(subject)


def test_a_network_that_is_dead_on_noise_is_probed_with_something_else():
    class Bright(nn.Module):
        """Says something of bright pictures alone."""

        def __init__(self):
            super().__init__()
            self.inner = GapNet()

        def forward(self, images):
            return self.inner(images) * (images.mean((1, 2, 3)) > 0.7)[:, None]

    subject = tiny_subject(Bright())
    assert with_target_layer(subject).target_layer == "inner.relu"


def test_probing_twice_finds_the_same_layer_and_draws_no_global_random_number():
    subject = tiny_subject(GapNet())
    before = torch.get_rng_state()
    assert {with_target_layer(subject).target_layer for _ in range(2)} == {"relu"}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_named_layer_is_taken_with_its_grid():
    subject = with_target_layer(tiny_subject(GapNet()), layer="conv1")
    assert (subject.target_layer, subject.grid) == ("conv1", map_of("channels_first", 16))
    assert features(subject, some_images(2)).shape == (2, 4, 16, 16)


@pytest.mark.parametrize(
    ("net", "layer", "message"),
    [
        (GapNet, "conv3", "no layer 'conv3' in GapNet; did you mean"),
        (GapNet, "head", r"layer 'head' of tiny gives \(1, 5\), which is no map of features"),
        (SharedReluNet, "relu", "layer 'relu' of tiny runs more than once"),
        (TokenNet, "block2", r"does not depend on layer 'block2'"),
    ],
    ids=["missing", "no map", "runs twice", "zero gradient"],
)
def test_a_named_layer_that_cannot_be_recorded_is_refused_as_bad_input(net, layer, message):
    with pytest.raises(BadInput, match=message) as refusal:
        with_target_layer(tiny_subject(net()), layer=layer)
    assert "\n" not in str(refusal.value)


def test_a_named_layer_that_does_not_run_is_refused_as_bad_input():
    net = GapNet()
    net.spare = nn.Conv2d(3, 4, 3)
    with pytest.raises(BadInput, match="layer 'spare' does not run in a forward of tiny"):
        with_target_layer(tiny_subject(net), layer="spare")


def test_a_refused_layer_leaves_no_trace():
    subject = tiny_subject(SharedReluNet())
    before = traces(subject.module)
    with pytest.raises(BadInput):
        with_target_layer(subject, layer="relu")
    assert traces(subject.module) == before
