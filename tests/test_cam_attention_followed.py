"""Which attention rollout and relevance follow, which they let be, which they refuse; and that they leave no trace."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from camcore import cam, record
from camcore.layers import with_target_layer
from camcore.recording import ZeroGradient
from tests.attention_nets import METHODS, WIDTH, Attention, AttentionNet, Block, recorded
from tests.recorded import traces
from tests.test_cam_gradient import recording
from tests.tiny import CLASSES, GapNet, some_images, tiny_subject


@pytest.mark.parametrize("name", METHODS)
def test_a_vision_transformer_of_torchvision_is_followed(name):
    net = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)
    rec = recorded(net, size=(32, 32), count=3)
    saliency = getattr(cam, name)(rec)
    assert saliency.shape == (3, 4, 4)
    assert saliency.isfinite().all()
    assert (saliency > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_no_grad_inside_the_forward_changes_nothing(name):
    class NoGrad(AttentionNet):
        @torch.no_grad()
        def forward(self, images):
            return super().forward(images)

    expected = getattr(cam, name)(recorded(AttentionNet()))
    assert torch.equal(getattr(cam, name)(recorded(NoGrad())), expected)


class WithCaption(AttentionNet):
    """Its classes are captions, read by attention of their own in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.captions = nn.Parameter(torch.zeros(CLASSES, 7, WIDTH))
        self.text = Block(2, "dot_product")

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + self.text(self.captions).mean((1, 2))


@pytest.mark.parametrize("name", METHODS)
def test_attention_to_something_other_than_the_image_is_let_be(name):
    target, layer = torch.tensor([1, 2]), "blocks.1.norm1"
    rec, plain = (recorded(net, target=target, layer=layer) for net in (WithCaption(), AttentionNet()))
    plain.subject.module.load_state_dict(rec.subject.module.state_dict(), strict=False)
    torch.testing.assert_close(getattr(cam, name)(rec), getattr(cam, name)(plain))


class UnusedPooling(AttentionNet):
    """Pools by attention for other users, and reads the class token."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        tokens = self.embed(images)
        functional.scaled_dot_product_attention(tokens[:, None, :1], tokens[:, None], tokens[:, None])
        return logits


@pytest.mark.parametrize("name", METHODS)
def test_a_pooling_that_nobody_reads_is_not_where_the_map_is_read(name):
    expected = getattr(cam, name)(recorded(AttentionNet()))
    torch.testing.assert_close(getattr(cam, name)(recorded(UnusedPooling())), expected)


class Windowed(nn.Module):
    """Attention within quarters of the image, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.block = Block(2, "dot_product")
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.patches(images)  # (b, k, 8, 8)
        b, k = features.shape[:2]
        windows = features.reshape(b, k, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(b * 4, 16, k)
        merged = self.block(windows).reshape(b, 2, 2, 4, 4, k).permute(0, 1, 3, 2, 4, 5).reshape(b, 8, 8, k)
        return self.head(merged.mean((1, 2)))


class Reduced(Attention):
    """All tokens ask, every other one answers, as in PVT."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(functional.scaled_dot_product_attention(tokens, tokens[:, ::2], tokens[:, ::2]))


def reduced() -> AttentionNet:
    net = AttentionNet()
    net.blocks[0].attention = Reduced(1, "dot_product")
    return net


def pooled_features() -> AttentionNet:
    net = AttentionNet(read="pool")
    net.blocks = nn.ModuleList()
    return net


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("net", "size", "layer", "message"),
    [
        (GapNet, (16, 16), "conv2", "no attention between tokens was met in a forward of tiny; use gradcam"),
        (pooled_features, (16, 16), None, "no attention between tokens was met"),
        (Windowed, (16, 16), "patches", r"attention of tiny is within windows or across stages \(\(8, 2, 16, 16\)"),
        (reduced, (16, 16), None, r"within windows or across stages \(\(2, 17, 9\) for 2 images and a map of 4x4"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), AttentionNet()),
            (16, 16),
            "0",
            "between 17 tokens, and layer '0' has 16x16 places",
        ),
    ],
    ids=["none", "only pooling", "windows", "fewer keys", "another resolution"],
)
def test_attention_that_cannot_be_followed_is_refused_in_one_line(name, net, size, layer, message):
    rec = recorded(net(), size=size, layer=layer)
    with pytest.raises(ValueError, match=message) as refusal:
        getattr(cam, name)(rec)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_swin_is_refused(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        subject = with_target_layer(tiny_subject(models.swin_t().eval(), size=224, seed=None))
    rec = record(subject, some_images(1, size=224), chunk=1)
    with pytest.raises(ValueError, match="within windows"):
        getattr(cam, name)(rec)


@pytest.mark.parametrize("name", METHODS)
def test_a_score_that_does_not_depend_on_the_attention_is_refused(name):
    rec = recorded(AttentionNet())
    for block in rec.subject.module.blocks:
        block.attention.out.weight.data.zero_()
    with pytest.raises(ZeroGradient, match="does not depend on its attention"):
        getattr(cam, name)(rec)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("name", METHODS)
def test_torchscript_and_a_recording_made_by_hand_are_refused(name):
    with pytest.raises(ValueError, match="no model to ask again"):
        getattr(cam, name)(recording(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3)))
    rec = recorded(AttentionNet())
    rec.subject.module.norm = torch.jit.trace(rec.subject.module.norm, torch.zeros(1, 1, WIDTH))
    with pytest.raises(ValueError, match="layer 'norm' of tiny is TorchScript"):
        getattr(cam, name)(rec)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("call", ["dot_product", "multi_head", "softmax"])
def test_following_attention_leaves_no_trace(name, call):
    rec = recorded(AttentionNet(call))
    before, logits = traces(rec.subject.module), rec.subject.logits(rec.images)
    getattr(cam, name)(rec)
    assert traces(rec.subject.module) == before
    assert torch.equal(rec.subject.logits(rec.images), logits)


def test_a_forward_that_breaks_leaves_no_trace():
    rec = recorded(AttentionNet())
    rec.subject.module.head = nn.Linear(WIDTH + 1, CLASSES)
    before = traces(rec.subject.module)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cam.attention_rollout(rec)
    assert traces(rec.subject.module) == before
