from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from camcore import cam, record
from camcore.cost import metered
from camcore.images import Geometry
from camcore.layers import with_target_layer
from camcore.record import ZeroGradient
from camcore.seeds import generator
from tests.oracles import attention as oracle
from tests.recorded import traces
from tests.test_cam_gradient import recording
from tests.tiny import CLASSES, GapNet, TokenNet, some_images, tiny_subject

PATCH, WIDTH = 4, 8
METHODS = ("attention_rollout", "attention_relevance")


class Attention(nn.Module):
    """One and the same attention, called in the ways that libraries call it."""

    def __init__(self, heads: int, call: str) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.heads, self.call = heads, call

    def forward(self, tokens: Tensor) -> Tensor:
        if self.call == "multi_head":
            across = tokens.transpose(0, 1)
            return functional.multi_head_attention_forward(
                *(across, across, across, WIDTH, self.heads, self.qkv.weight, self.qkv.bias, None, None, False, 0.0),
                *(self.out.weight, self.out.bias),
                training=False,
                need_weights=False,
            )[0].transpose(0, 1)
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (b, t, 3, heads, width)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        if self.call == "dot_product":
            seen = functional.scaled_dot_product_attention(q, k, v)
        elif self.call == "softmax":
            seen = functional.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=-1) @ v
        else:  # images and heads on one axis
            q, k, v = (each.flatten(0, 1) for each in (q, k, v))
            seen = torch.bmm((torch.bmm(q, k.mT) * q.shape[2] ** -0.5).softmax(2), v).unflatten(0, (-1, self.heads))
        return self.out(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, heads: int, call: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention(heads, call)
        self.dense1, self.dense2 = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.dense2(functional.gelu(self.dense1(self.norm2(tokens))))


class AttentionNet(nn.Module):
    """A small transformer with any number of tokens before the patches, read in one of several ways."""

    def __init__(self, call: str = "dot_product", *, heads: int = 2, prefix: int = 1, read: str = "class") -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.before = nn.Parameter(torch.zeros(1, prefix, WIDTH))
        self.blocks = nn.ModuleList(Block(heads, call) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.query = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.keys = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.heads, self.read = heads, read

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.before.expand(len(images), -1, -1), patches], 1)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        if self.read == "pool":
            query, keys, values = (
                each.unflatten(2, (self.heads, -1)).transpose(1, 2)
                for each in (self.query.expand(len(tokens), -1, -1), self.keys(tokens), tokens)
            )
            tokens = functional.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        weights = self.read_weights(tokens.shape[1]).to(tokens)
        return self.head(weights @ self.norm(tokens))

    def read_weights(self, tokens: int) -> Tensor:
        """How much of each token the head reads."""
        weights = torch.zeros(tokens)
        if self.read in ("class", "pool"):
            weights[0] = 1
        elif self.read == "two":  # class and distillation tokens
            weights[:2] = 0.5
        else:
            weights[self.before.shape[1] :] = 1 / (tokens - self.before.shape[1])
        return weights


def subject_for(net, *, size=(8, 12), seed=0):
    square = tiny_subject(net, size=max(size), seed=seed)
    return with_target_layer(replace(square, geometry=Geometry(crop=size)))


def images_for(count, size=(8, 12), seed=0):
    return torch.rand(count, 3, *size, generator=generator(seed, "attention images"))


def recorded(net, *, count=2, size=(8, 12), seed=0, **given):
    return record(subject_for(net, size=size, seed=seed), images_for(count, size), chunk=2, **given)


def array(tensor):
    return tensor.detach().double().numpy()


def blocks_of(net):
    def norm(layer):
        return oracle.Norm(scale=array(layer.weight), shift=array(layer.bias), eps=layer.eps)

    def dense(layer):
        return array(layer.weight), array(layer.bias)

    return norm(net.norm), [
        oracle.Block(
            norm1=norm(block.norm1),
            qkv=dense(block.attention.qkv),
            out=dense(block.attention.out),
            norm2=norm(block.norm2),
            dense1=dense(block.dense1),
            dense2=dense(block.dense2),
            heads=net.heads,
        )
        for block in net.blocks
    ]


def expected_maps(net, image, target):
    """Rollout and relevance of one image by the oracle, over all tokens."""
    norm, blocks = blocks_of(net)
    tokens = array(net.embed(image[None].to(net.before.dtype)))[0]
    head, bias = array(net.head.weight)[target], float(net.head.bias[target].detach())
    read = np.array([1.0]) if net.read == "pool" else array(net.read_weights(len(tokens)))
    query, keys = array(net.query)[0], array(net.keys.weight)

    def score_of(after):
        if net.read == "pool":
            after, _ = oracle.pool(after, query, keys, net.heads)
        return oracle.score(after, norm, head, bias, read)

    after, matrices = oracle.run(tokens, blocks)
    gradients = oracle.attention_gradients(tokens, blocks, score_of)
    rolled, related = oracle.rollout(matrices), oracle.relevance(matrices, gradients)
    if net.read == "pool":
        _, pooling = oracle.pool(after, query, keys, net.heads)
        gradient = oracle.gradient(
            lambda moved: oracle.score(oracle.pool(after, query, keys, net.heads, moved)[0], norm, head, bias, read),
            pooling,
        )
        return pooling.mean(0)[0] @ rolled, np.maximum(gradient * pooling, 0).mean(0)[0] @ related
    rows = read > 0  # every row that is read counts alike
    return rolled[rows].mean(0), related[rows].mean(0)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    heads=st.sampled_from([1, 2, 4]),
    prefix=st.integers(1, 5),
    call=st.sampled_from(["dot_product", "multi_head", "softmax", "bmm"]),
    read=st.sampled_from(["class", "mean", "two", "pool"]),
    size=st.sampled_from([(8, 8), (8, 12), (16, 8)]),
)
@pytest.mark.slow
def test_maps_equal_the_papers_equations(seed, heads, prefix, call, read, size):
    prefix = max(prefix, 2) if read == "two" else prefix
    net = AttentionNet(call, heads=heads, prefix=prefix, read=read)
    check_against_oracle(recorded(net, count=1, size=size, seed=seed), least=0.005)


@pytest.mark.parametrize("call", ["dot_product", "multi_head", "softmax", "bmm"])
@pytest.mark.parametrize("read", ["class", "mean", "two", "pool"])
def test_maps_equal_the_papers_equations_however_attention_is_called_and_read(call, read):
    rec = recorded(AttentionNet(call, read=read, prefix=2), count=1, size=(8, 8), seed=1)
    assert all(getattr(cam, name)(rec).any() for name in METHODS)
    check_against_oracle(rec)


def check_against_oracle(rec, *, least=0.0):
    """Equal to the oracle; drawn networks whose class token keeps all but `least` to itself are passed over.

    The maps are what is left of a row that is 1 in the main at the class token: of less, float32 keeps fewer digits.
    """
    net = rec.subject.module
    single = [getattr(cam, name)(rec)[0] for name in METHODS]
    net.double()
    rec = record(rec.subject, rec.images.double(), rec.target, chunk=2)
    prefix, grid = net.before.shape[1], tuple(side // PATCH for side in rec.images.shape[2:])
    for name, rough, whole in zip(METHODS, single, expected_maps(net, rec.images[0], int(rec.target[0])), strict=True):
        expected = torch.from_numpy(whole[prefix:].reshape(grid))
        if least:
            assume(expected.max() > least * whole.max())
        assert (getattr(cam, name)(rec)[0] - expected).abs().max() <= 1e-9 * expected.max()
        assert (rough - expected).abs().max() <= 1e-5 * expected.max()


def test_a_multi_head_attention_module_gives_what_its_matrices_give():
    rec = recorded(TokenNet(), size=(16, 16))
    net, weights = rec.subject.module, []
    tokens = torch.cat([net.class_token.expand(2, -1, -1), net.patches(rec.images).flatten(2).transpose(1, 2)], 1)
    for block in (net.block1, net.block2):
        normed = block.norm1(tokens)
        weights.append(block.attention(normed, normed, normed, average_attn_weights=False)[1])
        tokens = block(tokens)
    for index, saliency in enumerate(cam.attention_rollout(rec)):
        expected = oracle.rollout([array(matrix[index]) for matrix in weights])[0, 1:]
        torch.testing.assert_close(saliency.double().flatten(), torch.from_numpy(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_vision_transformer_of_torchvision_is_followed(name):
    net = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)
    rec = recorded(net, size=(32, 32), count=3)
    saliency = getattr(cam, name)(rec)
    assert saliency.shape == (3, 4, 4)
    assert saliency.isfinite().all()
    assert (saliency > 0).all()


def test_a_rollout_spreads_one_over_all_tokens():
    rec = recorded(AttentionNet(prefix=1), count=3)
    total = cam.attention_rollout(rec).sum((1, 2))
    assert (total < 1).all()  # the rest is the class token's own
    assert (total > 0).all()


def test_rollout_is_blind_to_the_class_and_relevance_is_not():
    rec = recorded(AttentionNet(), target=torch.tensor([0, 0]))
    other = replace(rec, target=torch.tensor([1, 1]))
    assert torch.equal(cam.attention_rollout(rec), cam.attention_rollout(other))
    assert not torch.allclose(cam.attention_relevance(rec), cam.attention_relevance(other), rtol=0.01)


def test_relevance_of_a_contrast_is_that_of_the_difference_of_scores():
    net = AttentionNet()
    target, against = torch.tensor([0, 1]), torch.tensor([2, 2])
    contrast = cam.attention_relevance(recorded(net, target=target, against=against))
    net.head.weight.data -= net.head.weight.data[2:3].clone()
    single = cam.attention_relevance(recorded(net, seed=None, target=target))
    torch.testing.assert_close(contrast, single)


def test_register_tokens_take_part_and_are_left_out_of_the_map():
    rec = recorded(AttentionNet(prefix=5))
    before = cam.attention_rollout(rec)
    assert before.shape == (2, 2, 3)
    rec.subject.module.before.data[:, 1:] *= -3  # the registers alone
    assert not torch.allclose(cam.attention_rollout(rec), before, rtol=0.01)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("read", ["class", "mean", "pool"])
def test_an_image_has_the_same_map_in_any_batch_and_chunk(name, read):
    rec = recorded(AttentionNet(read=read), count=5)
    together = getattr(cam, name)(rec)
    for chunk in (1, 5):
        torch.testing.assert_close(getattr(cam, name)(replace(rec, chunk=chunk)), together)
    alone = record(rec.subject, rec.images[3:4], rec.target[3:4], chunk=1)
    torch.testing.assert_close(getattr(cam, name)(alone)[0], together[3])


@pytest.mark.parametrize("name", METHODS)
def test_an_attention_map_costs_one_forward_and_one_backward(name):
    rec = recorded(AttentionNet(), count=5)
    with metered() as cost:
        getattr(cam, name)(rec)
    assert (cost.forwards, cost.backwards) == (5, 5)


@pytest.mark.parametrize("name", METHODS)
def test_the_wall_stands_when_attention_is_followed(name):
    rec = recorded(AttentionNet())
    zeroed = replace(rec, behind=lambda activations: activations * 0)
    assert not torch.allclose(getattr(cam, name)(zeroed), getattr(cam, name)(rec), rtol=0.01)


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
