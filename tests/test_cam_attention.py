"""Rollout and relevance, against their papers transcribed, and what must hold of their maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from camcore import cam, record
from camcore.cost import metered
from tests.attention_nets import METHODS, PATCH, AttentionNet, recorded
from tests.oracles import attention as oracle
from tests.tiny import TokenNet


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
