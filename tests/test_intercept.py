import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from camcore.intercept import Attentions, GuidedReLUs, check_not_scripted
from camcore.seeds import generator
from tests.tiny import randomised


def drawn(*shape, seed=0, asks=True):
    values = torch.randn(shape, generator=generator(seed, "intercept"), dtype=torch.float64)
    return values.requires_grad_(asks)


MASK = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]]).bool()
BLIND = MASK & torch.tensor([1, 1, 0, 1, 1]).bool()[:, None]  # the third query may look nowhere

DOT_PRODUCTS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "mask": {"attn_mask": MASK},
    "added mask": {"attn_mask": drawn(2, 1, 5, 5, seed=9, asks=False)},
    "a query that may look nowhere": {"attn_mask": BLIND},
    "causal": {"is_causal": True},
    "no dropout": {"dropout_p": 0.0},
}


@pytest.mark.parametrize("options", DOT_PRODUCTS.values(), ids=DOT_PRODUCTS)
def test_dot_product_attention_gives_what_it_gives_and_is_kept(options):
    query, key, value = (drawn(2, 3, 5, 4, seed=seed) for seed in range(3))
    expected = functional.scaled_dot_product_attention(query, key, value, **options)
    with Attentions() as attentions:
        found = functional.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(found, expected)
    (kept,) = attentions.kept
    torch.testing.assert_close(kept @ value, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), (query, key, value)),
        torch.autograd.grad(expected.square().sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_grouped_queries_share_keys_and_values():
    query, key, value = drawn(2, 4, 5, 3), drawn(2, 2, 5, 3, seed=1), drawn(2, 2, 5, 3, seed=2)
    expected = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    with Attentions() as attentions:
        found = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, expected)
    assert attentions.kept[0].shape == (2, 4, 5, 5)


def test_attention_dropped_at_random_is_refused():
    query = drawn(2, 3, 5, 4)
    with Attentions(), pytest.raises(ValueError, match=r"dropped at random \(dropout_p=0.1\), in eval mode too"):
        functional.scaled_dot_product_attention(query, query, query, dropout_p=0.1)


MULTI_HEADS = {
    "plain": ({}, {}),
    "weights averaged": ({}, {"need_weights": True}),
    "weights by head": ({}, {"need_weights": True, "average_attn_weights": False}),
    "mask": ({}, {"attn_mask": ~MASK}),
    "added mask": ({}, {"attn_mask": drawn(5, 5, seed=9, asks=False)}),
    "padding": ({}, {"key_padding_mask": MASK[:2]}),
    "causal": ({}, {"attn_mask": torch.ones(5, 5).triu(1).bool(), "is_causal": True}),
    "no bias": ({"bias": False}, {}),
    "tokens first": ({"batch_first": False}, {}),
}


@pytest.mark.parametrize(("built", "options"), MULTI_HEADS.values(), ids=MULTI_HEADS)
def test_multi_head_attention_gives_what_it_gives_and_is_kept(built, options):
    layer = randomised(nn.MultiheadAttention(6, 3, **{"batch_first": True, **built})).double().requires_grad_(False)
    tokens = drawn(2, 5, 6) if layer.batch_first else drawn(5, 2, 6)
    options = {"need_weights": False, **options}
    expected, theirs = layer(tokens, tokens, tokens, **options)
    with Attentions() as attentions:
        found, ours = layer(tokens, tokens, tokens, **options)
    torch.testing.assert_close(found, expected)
    assert (ours is None) == (theirs is None)
    if theirs is not None:
        torch.testing.assert_close(ours, theirs)
    (kept,) = attentions.kept
    assert kept.shape == (2, 3, 5, 5)
    (gradient,) = torch.autograd.grad(found.square().sum(), kept)  # what was kept lies on the path
    assert gradient.any()
    with Attentions():
        found = layer(tokens, tokens, tokens, **options)[0]
    for mine, plain in zip(
        torch.autograd.grad(found.square().sum(), tokens),
        torch.autograd.grad(expected.square().sum(), tokens),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain)


def test_keys_and_values_of_another_width_have_projections_of_their_own():
    layer = randomised(nn.MultiheadAttention(6, 2, kdim=4, vdim=3, batch_first=True)).double()
    query, key, value = drawn(2, 5, 6), drawn(2, 5, 4, seed=1), drawn(2, 5, 3, seed=2)
    expected = layer(query, key, value)[0]
    with Attentions() as attentions:
        found = layer(query, key, value)[0]
    torch.testing.assert_close(found, expected)
    assert len(attentions.kept) == 1


@pytest.mark.parametrize("asks", [True, False])
def test_the_fast_path_of_a_transformer_encoder_is_not_taken(asks):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2)
    encoder = randomised(encoder).double().requires_grad_(False)
    tokens = drawn(2, 5, 6, asks=asks)
    expected = encoder(tokens)
    with Attentions() as attentions:
        torch.testing.assert_close(encoder(tokens), expected)
    assert len(attentions.kept) == (2 if asks else 0)  # it does not depend on an image that asks for no gradient


@pytest.mark.parametrize(
    ("built", "message"),
    [
        ({"add_bias_kv": True}, "attention to tokens that no layer gives"),
        ({"add_zero_attn": True}, "attention to tokens that no layer gives"),
        ({"dropout": 0.5}, r"dropped at random \(dropout_p=0.5\): call .eval"),
    ],
)
def test_multi_head_attention_that_cannot_be_written_out_is_refused(built, message):
    layer = randomised(nn.MultiheadAttention(6, 2, batch_first=True, **built)).double().train("dropout" in built)
    tokens = drawn(2, 5, 6)
    with Attentions(), pytest.raises(ValueError, match=message):
        layer(tokens, tokens, tokens)


def test_multi_head_attention_without_a_batch_is_refused():
    layer = nn.MultiheadAttention(6, 2).double().eval()
    tokens = drawn(5, 6)
    with Attentions(), pytest.raises(ValueError, match="without an axis of images"):
        layer(tokens, tokens, tokens)


SOFTMAXES = {
    "torch": lambda x: torch.softmax(x, -1),
    "functional": lambda x: functional.softmax(x, dim=-1),
    "method": lambda x: x.softmax(dim=x.ndim - 1),
    "module": nn.Softmax(dim=-1),
    "special": lambda x: torch.special.softmax(x, -1),
}


@pytest.mark.parametrize("softmax", SOFTMAXES.values(), ids=SOFTMAXES)
def test_a_softmax_over_keys_is_attention_however_it_is_called(softmax):
    scores = drawn(2, 3, 5, 5)
    with Attentions() as attentions:
        found = softmax(scores)
    assert torch.equal(found, scores.softmax(-1))
    assert torch.equal(attentions.kept[0], found)
    assert torch.autograd.grad(found.square().sum(), attentions.kept[0])[0].any()


@pytest.mark.parametrize(
    ("shape", "dim", "kept"),
    [
        ((2, 3, 5, 5), -1, True),
        ((2, 3, 5, 4), -1, True),  # fewer keys than queries: kept, and refused by whoever follows it
        ((6, 5, 5), -1, True),
        ((6, 1, 5), -1, True),  # pooling
        ((6, 4, 5), -1, False),  # gates
        ((2, 5), -1, False),  # classes
        ((2, 5, 4, 4), 1, False),  # classes of every pixel
    ],
)
def test_what_counts_as_attention(shape, dim, kept):
    with Attentions() as attentions:
        drawn(*shape).softmax(dim)
    assert len(attentions.kept) == kept


def test_what_is_written_into_attention_later_does_not_change_what_was_kept():
    scores = drawn(2, 3, 5, 5)
    with Attentions() as attentions:
        scores.softmax(-1).mul_(2)
    torch.testing.assert_close(attentions.kept[0].sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))


def test_a_rewired_relu_gives_what_a_relu_gives_and_guides():
    x = torch.tensor([-2.0, -0.0, 1.0, 2.0, torch.nan], requires_grad=True)
    with GuidedReLUs() as relus:
        found = functional.relu(x)
    torch.testing.assert_close(found, functional.relu(x), equal_nan=True)
    (gradient,) = torch.autograd.grad(found, x, torch.tensor([1.0, 1.0, -1.0, torch.inf, 1.0]))
    assert gradient.tolist() == [0, 0, 0, torch.inf, 0]
    assert (relus.rewired, relus.others) == (1, set())


def test_a_rewired_relu_in_place_writes_in_place_also_into_a_view():
    whole = drawn(4, 3) * 1
    before = whole.detach().clone()
    with GuidedReLUs():
        part = whole[:2]
        assert functional.relu(part, inplace=True) is part
    assert torch.equal(whole[:2], before[:2].relu())
    assert torch.equal(whole[2:], before[2:])


def test_what_is_written_into_a_relus_output_later_does_not_disturb_it():
    x = drawn(3, 4)
    with GuidedReLUs():
        found = functional.relu(x).mul_(2)
    assert torch.equal(torch.autograd.grad(found.sum(), x)[0], 2.0 * (x > 0))


def test_functions_are_themselves_after_a_block_that_raises():
    def leave():
        with GuidedReLUs(), Attentions():
            raise KeyError("broken")

    with pytest.raises(KeyError):
        leave()

    class Seen(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Seen.calls += 1
            return func(*args, **(kwargs or {}))

    x = torch.ones(2, requires_grad=True)
    assert torch.autograd.grad(-functional.relu(x).sum(), x)[0].tolist() == [-1, -1]
    with Seen():
        functional.relu(x)
    assert Seen.calls == 1


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_is_found_anywhere_in_a_model():
    check_not_scripted(nn.Sequential(nn.ReLU()), "plain")
    net = nn.Sequential(nn.Sequential(torch.jit.trace(nn.ReLU(), torch.zeros(1))))
    with pytest.raises(ValueError, match=r"layer '0\.0' of scripted is TorchScript"):
        check_not_scripted(net, "scripted")
