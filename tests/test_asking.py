"""camcore.ask: the recorded model asked again."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from camcore import ask
from camcore.cost import metered
from camcore.recording import record, run_suffix
from camcore.seeds import generator
from tests.recorded import every_net, traces
from tests.tiny import (
    CLASSES,
    ChannelsLastNet,
    FlatNet,
    GapNet,
    InPlaceNet,
    TokenNet,
    TupleNet,
    some_images,
    tiny_subject,
)


def upper_half(activations):
    seen = torch.arange(activations.shape[2]) < activations.shape[2] // 2
    return torch.where(seen[:, None], activations, 0)


def plain_score(subject, images, target):
    with torch.no_grad():
        return subject.logits(images).gather(1, target[:, None])[:, 0]


@every_net
def test_scores_of_variants_are_those_of_the_model(net, layer):
    subject = tiny_subject(net(), layer)
    rec = record(subject, some_images(3), chunk=2)
    variants, rows = some_images(5, seed=1), torch.tensor([2, 0, 0, 1, 2])
    expected = plain_score(subject, variants, rec.target[rows])
    torch.testing.assert_close(ask.scores(rec, variants, rows), expected)


@every_net
def test_scores_of_the_recorded_images_are_the_recorded_ones_behind_a_wall_too(net, layer):
    images, rows = some_images(3), torch.arange(3)
    for behind in (None, upper_half):
        rec = record(tiny_subject(net(), layer), images, behind=behind, chunk=2)
        torch.testing.assert_close(ask.scores(rec, images, rows), ask.score_of(rec, rec.logits, rows))


def test_a_contrast_is_asked_for_as_a_contrast():
    subject, images, rows = tiny_subject(FlatNet(), "relu"), some_images(3), torch.arange(3)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([4, 4, 0])
    rec = record(subject, images, first, against=second, chunk=8)
    expected = plain_score(subject, images, first) - plain_score(subject, images, second)
    torch.testing.assert_close(ask.scores(rec, images, rows), expected)
    torch.testing.assert_close(ask.pixel_gradients(rec, images, rows)[0], expected)


@every_net
def test_pixel_gradients_equal_those_of_the_whole_graph(net, layer):
    subject = tiny_subject(net(), layer)
    images, rows = some_images(3), torch.arange(3)
    rec = record(subject, images, chunk=2)
    pixels = images.clone().requires_grad_()
    score = subject.logits(pixels).gather(1, rec.target[:, None]).sum()
    torch.testing.assert_close(
        ask.pixel_gradients(rec, images, rows)[1], torch.autograd.grad(score, pixels)[0], rtol=1e-4, atol=1e-6
    )


@every_net
def test_the_score_of_unchanged_features_is_the_recorded_one(net, layer):
    for behind in (None, upper_half):
        rec = record(tiny_subject(net(), layer), some_images(3), behind=behind)
        for row in range(3):
            found = ask.suffix_scores(rec, row, rec.activations[row].expand(4, -1, -1, -1))
            expected = ask.score_of(rec, rec.logits, torch.arange(3))[row]
            torch.testing.assert_close(found, expected.expand(4))


@every_net
def test_the_score_of_changed_features_is_what_the_gradient_predicts_for_a_small_change(net, layer):
    rec = record(tiny_subject(net().double(), layer), some_images(2).double())
    step = 1e-6 * torch.randn(rec.activations[1].shape, generator=generator(0, "step"), dtype=torch.float64)
    found = ask.suffix_scores(rec, 1, torch.stack([rec.activations[1], rec.activations[1] + step]))
    torch.testing.assert_close(found[1] - found[0], (rec.gradients[1] * step).sum(), rtol=1e-3, atol=1e-12)


def test_only_one_image_runs_below_the_layer_and_all_variants_above_it():
    subject = tiny_subject(GapNet(), "relu")
    rec = record(subject, some_images(2))
    below, above = [], []
    handles = [
        subject.module.conv1.register_forward_hook(lambda _module, _args, output: below.append(len(output))),
        subject.module.head.register_forward_hook(lambda _module, _args, output: above.append(len(output))),
    ]
    with metered() as cost:
        ask.suffix_scores(rec, 1, rec.activations[:1].expand(7, -1, -1, -1))
    for handle in handles:
        handle.remove()
    assert (below, above) == ([1], [7])
    assert (cost.forwards, cost.backwards) == (1, 0)


class ConcatenatingNet(nn.Module):
    """Puts the target's output beside its input, which one image and seven variants cannot be."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images):
        first = self.conv1(images)
        return self.head(torch.cat([first, self.conv2(first).relu()], 1).mean((2, 3)))


class ReshapingNet(ConcatenatingNet):
    """Remembers the size of the batch from before the target."""

    def forward(self, images):
        first = self.conv1(images)
        second = self.conv2(first).relu()
        both = torch.cat([first.expand(len(second), -1, -1, -1), second], 1).mean((2, 3))
        return self.head(both.reshape(len(images), -1, 8))[:, 0]


@pytest.mark.parametrize("net", [ConcatenatingNet, ReshapingNet])
def test_a_network_in_which_the_batch_cannot_grow_gets_the_image_repeated(net):
    rec = record(tiny_subject(net(), "conv2"), some_images(2))
    variants = torch.cat([rec.activations[1:], torch.zeros(2, *rec.activations.shape[1:])])
    with metered() as cost:
        found = ask.suffix_scores(rec, 1, variants)
    torch.testing.assert_close(found[0], ask.score_of(rec, rec.logits, torch.arange(2))[1])
    torch.testing.assert_close(found[1], found[2])
    assert abs(found[0] - found[1]) > 1e-3
    assert cost.forwards == 1 + 3


def test_a_network_that_fails_on_every_batch_raises_its_own_error():
    class Fragile(GapNet):
        broken = False

        def forward(self, images):
            if self.broken:
                raise RuntimeError("the forward broke")
            return super().forward(images)

    subject = tiny_subject(Fragile(), "relu")
    rec = record(subject, some_images(1))
    subject.module.broken = True
    with pytest.raises(RuntimeError, match="the forward broke"):
        run_suffix(subject, rec.images, rec.activations.expand(3, -1, -1, -1), layer="relu")


def test_asking_counts_what_it_asks():
    rec = record(tiny_subject(GapNet(), "relu"), some_images(3), chunk=2)
    with metered() as cost:
        ask.scores(rec, some_images(5), torch.zeros(5, dtype=torch.long))
    assert (cost.forwards, cost.backwards) == (5, 0)
    with metered() as cost:
        ask.pixel_gradients(rec, some_images(5), torch.zeros(5, dtype=torch.long))
    assert (cost.forwards, cost.backwards) == (5, 5)


def test_forwards_take_as_many_images_as_the_recording_says():
    rec = record(tiny_subject(GapNet(), "relu"), some_images(3), chunk=2)
    assert [part.tolist() for part in ask.chunks(rec, 5)] == [[0, 1], [2, 3], [4]]
    assert ask.chunk_of(replace(rec, chunk=None)) >= 1  # measured


@every_net
def test_asking_leaves_no_trace(net, layer):
    subject = tiny_subject(net(), layer)
    rec, before = record(subject, some_images(2), chunk=2), traces(subject.module)
    ask.scores(rec, rec.images, torch.arange(2))
    ask.pixel_gradients(rec, rec.images, torch.arange(2))
    ask.suffix_scores(rec, 0, rec.activations)
    assert traces(subject.module) == before


@pytest.mark.parametrize(
    "call", [ask.chunk_of, lambda rec: ask.scores(rec, rec.images, torch.arange(2)), ask.subject_of]
)
def test_a_recording_made_by_hand_has_nobody_to_ask(call):
    rec = record(tiny_subject(GapNet(), "relu"), some_images(2))
    with pytest.raises(ValueError, match=r"no model to ask again; make it with camcore\.record"):
        call(replace(rec, subject=None))


@pytest.mark.parametrize(
    ("net", "layer", "linear"),
    [
        (GapNet, "relu", True),
        (GapNet, "conv2", False),  # a ReLU follows
        (GapNet, "conv1", False),
        (FlatNet, "relu", True),
        (FlatNet, "conv", False),
        (InPlaceNet, "conv", False),
        (TokenNet, "block2.norm1", False),
        (ChannelsLastNet, "norm", False),
        (TupleNet, "body", False),
    ],
)
def test_a_score_is_called_affine_only_if_it_is(net, layer, linear):
    for behind in (None, upper_half):
        rec = record(tiny_subject(net(), layer), some_images(2), behind=behind)
        assert rec.linear is linear


class GatedNet(GapNet):
    """A product of two numbers that both depend on the features: not affine, and no ReLU to be seen."""

    def forward(self, images):
        found = self.relu(self.conv2(self.conv1(images)))
        return self.head(found.mean((2, 3)) * found.amax((2, 3)))


@given(seed=st.integers(0, 1000), scale=st.floats(-2, 2))
@settings(max_examples=25)
def test_where_the_score_is_called_affine_one_gradient_says_what_any_change_does(seed, scale):
    rec = record(tiny_subject(FlatNet().double(), "relu", seed=seed), some_images(2, seed=seed).double())
    assert rec.linear
    change = scale * torch.randn(rec.activations[0].shape, generator=generator(seed, "change"), dtype=torch.float64)
    found = ask.suffix_scores(rec, 0, torch.stack([rec.activations[0], rec.activations[0] + change]))
    torch.testing.assert_close(found[1] - found[0], (rec.gradients[0] * change).sum(), rtol=1e-9, atol=1e-9)


def test_a_product_of_features_is_not_called_affine():
    assert not record(tiny_subject(GatedNet(), "relu"), some_images(2)).linear
