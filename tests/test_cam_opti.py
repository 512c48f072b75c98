"""Opti-CAM, against its paper transcribed, and against what must hold of any optimum that is sought per image."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from camcore import ask, cam
from camcore.cam import opti
from camcore.cam.opti import _score, mask_of, opticam, opticam_weights
from camcore.cost import metered
from camcore.maps import is_constant, unit_range
from camcore.perturbations import mean_colour
from camcore.record import ZeroGradient, record
from camcore.seeds import generator
from camcore.subject import Normalise
from tests.oracles import opti as oracle
from tests.recorded import traces
from tests.test_cam_gradient import recording
from tests.tiny import CLASSES, ChannelsLastNet, FlatNet, GapNet, NoGradNet, TokenNet, some_images, tiny_subject
from tests.tiny import frozen as frozen_module

NETS = {
    "gap": (GapNet, "relu"),
    "before a relu": (GapNet, "conv2"),
    "flat": (FlatNet, "relu"),
    "tokens": (TokenNet, "block2.norm1"),
    "channels last": (ChannelsLastNet, "norm"),
}
every_net = pytest.mark.parametrize(("net", "layer"), NETS.values(), ids=NETS)
TO_THE_END = {"patience": 1000}
PATIENCE, TOLERANCE = 3, 0.1  # so impatient that tiny nets stop at different times


def asked_of(net, layer, dtype=torch.float64, *, count=2, seed=0, chunk=8, preprocess=None, **options):
    given = {} if preprocess is None else {"preprocess": preprocess}
    subject = tiny_subject(net().to(dtype), layer, seed=seed, **given)
    target = torch.arange(count) % CLASSES
    return record(subject, some_images(count, seed=seed).to(dtype), target, chunk=chunk, **options)


def asked_by_the_oracle(rec, index, behind=None):
    """What the oracle asks of one image, a score and its slopes: the model as anybody calls it, in float64."""
    module = deepcopy(rec.subject.module).double()
    target, against = int(rec.target[index]), None if rec.against is None else int(rec.against[index])

    def explained(pixels):
        given = rec.subject.preprocess(pixels[None])
        logits = (module(given) if behind is None else behind(module, given))[0]
        return logits[target] if against is None else logits[target] - logits[against]

    def score(image):
        with torch.no_grad():
            return float(explained(torch.tensor(image)))

    def slopes(image):
        pixels = torch.tensor(image, requires_grad=True)
        return torch.autograd.grad(explained(pixels), pixels)[0].numpy()

    return score, slopes


def oracle_path(rec, index, *, steps, rate=0.1, baseline=None, behind=None):
    """The oracle's way for one image."""
    score, slopes = asked_by_the_oracle(rec, index, behind)
    image = rec.images[index].double().numpy()
    baseline = np.zeros_like(image) if baseline is None else baseline[index].double().numpy()
    features = rec.activations[index].double().numpy()
    return oracle.trajectory(score, slopes, image, baseline, features, steps=steps, rate=rate), features


def assert_equals_oracle(rec, found, *, patience=1000, tolerance=1e-3, **path):
    for index, saliency in enumerate(found):
        steps, features = oracle_path(rec, index, **path)
        expected = oracle.opticam(steps, features, patience, tolerance)
        bound = 1e-5 if found.dtype == torch.float32 else 1e-9
        assert np.abs(saliency.double().numpy() - expected).max() <= bound * expected.max()


def masked_score(rec, weights):
    """The explained score of each image seen through these weights, asked for without the method."""
    features = rec.activations.relu()
    mask = mask_of(features, weights.log(), rec.images.shape[2:])[:, None]
    return ask.scores(rec, rec.images * mask, torch.arange(len(rec.images)))


# Adam's first steps are as long for a slope of 1e-6 as for one of 1, so float32's rounding turns some channel round in
# the end, and float32 and float64 go different ways: there, twenty steps are compared in one, and all fifty below.
STEPS = {torch.float32: 20, torch.float64: 50}


@every_net
@pytest.mark.parametrize("dtype", STEPS)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.slow
def test_map_equals_the_papers_optimisation(net, layer, dtype, seed):
    rec = asked_of(net, layer, dtype, seed=seed)
    found = opticam(rec, steps=STEPS[dtype], **TO_THE_END)
    assert found.dtype == dtype
    assert_equals_oracle(rec, found, steps=STEPS[dtype])


@every_net
@pytest.mark.slow
def test_each_of_fifty_steps_in_float32_and_the_map_at_their_end_are_the_papers(net, layer, monkeypatch):
    # wherever the way has led, what comes next there is what the paper says comes next
    rec = asked_of(net, layer, torch.float32, count=1)
    way, found = walked(rec, monkeypatch)
    image, features = rec.images[0].double().numpy(), rec.activations[0].double().numpy()
    score_of, slopes_of = asked_by_the_oracle(rec, 0)
    black = np.zeros_like(image)
    m, v = np.zeros(len(features)), np.zeros(len(features))
    live = np.ptp(np.maximum(features, 0), (1, 2)) > 0
    steepest = max(np.abs(slope).max() for _, _, slope in way)
    for t, (u, score, slope) in enumerate(way):
        assert abs(score - score_of(oracle.seen(image, black, features, u))) <= 1e-5 * max(1, abs(score))
        if t < 50:
            expected = oracle.slope(slopes_of, image, black, features, u)
            assert np.abs(slope - expected).max() <= 1e-5 * steepest
            following, m, v = oracle.adam(u, m, v, np.where(live, slope, 0), t + 1, 0.1)
            assert np.abs(way[t + 1][0] - following).max() <= 1e-5
    expected = oracle.opticam([(score, u) for u, score, _ in way], features, 1000, 1e-3)
    assert np.abs(found.double().numpy() - expected).max() <= 1e-5 * expected.max()


def walked(rec, monkeypatch):
    """(u, its score, its slope) before each of fifty steps of a single image and after the last, and the map."""
    way = []

    def watched(rec, features, pictures, u, rows, *, sloped):
        score, slope = _score(rec, features, pictures, u, rows, sloped=sloped)
        way.append((u[0].double().numpy(), float(score[0]), slope[0].double().numpy()))
        return score, slope

    monkeypatch.setattr(opti, "_score", watched)
    found = opticam(rec, steps=50, **TO_THE_END)[0]
    assert len(way) == 51
    return way, found


def test_pixels_are_masked_before_they_are_normalised():
    rec = asked_of(FlatNet, "relu", preprocess=Normalise())
    assert_equals_oracle(rec, opticam(rec, steps=3, **TO_THE_END), steps=3)


def test_another_baseline_is_what_masked_pixels_fade_to():
    rec = asked_of(FlatNet, "relu")
    found = opticam(rec, steps=3, baseline=mean_colour, **TO_THE_END)
    assert_equals_oracle(rec, found, steps=3, baseline=mean_colour(rec.images))
    assert not torch.allclose(found, opticam(rec, steps=3, **TO_THE_END), rtol=1e-2)


def test_a_contrast_is_optimised_as_a_contrast():
    rec = asked_of(GapNet, "relu", against=torch.tensor([4, 2]))
    assert_equals_oracle(rec, opticam(rec, steps=3, **TO_THE_END), steps=3)


def test_what_stood_behind_the_layer_stands_there_at_every_step():
    def upper_half(features):
        seen = torch.arange(features.shape[2]) < features.shape[2] // 2
        return torch.where(seen[:, None], features, 0)

    rec = asked_of(FlatNet, "relu", behind=upper_half)
    found = opticam(rec, steps=3, **TO_THE_END)
    assert_equals_oracle(
        rec,
        found,
        steps=3,
        behind=lambda module, pixels: module.dense(upper_half(module.conv(pixels).relu()).flatten(1)),
    )
    free = opticam(replace(rec, behind=None), steps=3, **TO_THE_END)
    assert not torch.allclose(found, free, rtol=1e-2)


@every_net
def test_the_oracles_slope_is_that_of_its_score(net, layer):
    rec = asked_of(net, layer)
    module, target = rec.subject.module, int(rec.target[0])
    image, features = rec.images[0].numpy(), rec.activations[0].numpy()
    black = np.zeros_like(image)
    u = torch.randn(len(features), generator=generator(0, "u"), dtype=torch.float64).numpy()

    def score(u):
        return float(module(torch.tensor(oracle.seen(image, black, features, u))[None])[0, target].detach())

    def slopes(image):
        pixels = torch.tensor(image, requires_grad=True)
        return torch.autograd.grad(module(pixels[None])[0, target], pixels)[0].numpy()

    found = oracle.slope(slopes, image, black, features, u)
    for k in range(len(u)):
        step = 1e-6 * (np.arange(len(u)) == k)
        expected = (score(u + step) - score(u - step)) / 2e-6
        assert found[k] == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("rate", [0.1, 5.0])
@every_net
def test_the_score_is_never_below_that_of_equal_weights(net, layer, rate):
    rec = asked_of(net, layer, torch.float32, count=4)
    start = masked_score(rec, torch.full_like(rec.activations[:, :, 0, 0], 1 / rec.activations.shape[1]))
    end = masked_score(rec, opticam_weights(rec, learning_rate=rate))
    assert (end >= start - 1e-6 * start.abs()).all()
    assert (end > start + 1e-3).any()


def test_the_best_weights_are_kept_where_the_last_step_went_astray():
    rec = asked_of(FlatNet, "relu", count=3)
    best = masked_score(rec, opticam_weights(rec, steps=5, learning_rate=5.0, **TO_THE_END))
    paths = [[score for score, _ in oracle_path(rec, index, steps=5, rate=5.0)[0]] for index in range(3)]
    torch.testing.assert_close(best, torch.tensor([max(path) for path in paths], dtype=torch.float64))
    assert any(max(path) > path[-1] + 0.01 for path in paths)


@every_net
def test_an_image_stops_when_its_own_score_no_longer_advances(net, layer):
    rec = asked_of(net, layer, count=3)
    for index in range(3):
        alone = only(rec, [index])
        with metered() as cost:
            found = opticam(alone, steps=20, patience=PATIENCE, tolerance=TOLERANCE)
        path, _ = oracle_path(rec, index, steps=20)
        asked = oracle.stop([score for score, _ in path], PATIENCE, TOLERANCE)
        assert (cost.forwards, cost.backwards) == (asked, min(asked, 20))
        expected = torch.tensor(oracle.opticam(path, alone.activations[0].numpy(), PATIENCE, TOLERANCE))
        torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-12)


def only(rec, rows):
    """The same recording of some of its images."""
    kept = {name: getattr(rec, name)[rows] for name in ("images", "logits", "target", "activations", "gradients")}
    return replace(rec, **kept)


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_map_does_not_depend_on_the_batch_whoever_stops_first(chunk):
    options = {"steps": 15, "patience": PATIENCE, "tolerance": TOLERANCE}
    rec = asked_of(FlatNet, "relu", count=3, chunk=chunk)
    with metered() as together:
        found = opticam(rec, **options)
    forwards = []
    for index in range(3):
        with metered() as cost:
            alone = opticam(only(rec, [index]), **options)
        forwards.append(cost.forwards)
        torch.testing.assert_close(alone[0], found[index], rtol=1e-9, atol=1e-12)
    assert len(set(forwards)) > 1  # else nobody has shown that a neighbour's end makes no difference
    assert together.forwards == sum(forwards)
    order = [2, 0, 1]
    torch.testing.assert_close(opticam(only(rec, order), **options), found[order], rtol=1e-9, atol=1e-12)


def test_without_patience_running_out_each_step_costs_a_forward_and_a_backward_and_the_last_a_forward_more():
    rec = asked_of(GapNet, "relu", torch.float32, count=3, chunk=2)
    seen = []
    handle = rec.subject.module.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    with metered() as cost:
        opticam(rec, steps=7, patience=7)
    handle.remove()
    assert (cost.forwards, cost.backwards) == (3 * 8, 3 * 7)
    assert seen == [2, 1] * 8


def test_a_score_that_cannot_change_is_asked_for_until_patience_runs_out():
    rec = asked_of(GapNet, "relu", count=2)
    with torch.no_grad():
        rec.subject.module.head.weight.zero_()
    with metered() as cost:
        weights = opticam_weights(rec, patience=4)
    assert torch.equal(weights, torch.full_like(weights, 1 / 6))
    assert cost.forwards == 2 * (1 + 4)


def circular(value):
    """One grey image, of which a circular net makes constant features, between two others."""
    subject = tiny_subject(GapNet(padding_mode="circular").double(), "relu")
    images = some_images(3).double()
    images[1] = value
    return record(subject, images, torch.tensor([1, 3, 2]), chunk=8)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_image_whose_channels_are_all_constant_costs_nothing_and_disturbs_nobody(value):
    rec = circular(value)
    with metered() as cost:
        found = opticam(only(rec, [1]))
    assert (cost.forwards, cost.backwards) == (0, 0)
    torch.testing.assert_close(found[0], rec.activations[1].relu().mean(0))
    assert is_constant(found).all()
    alone = opticam(only(rec, [0, 2]), steps=5)
    torch.testing.assert_close(opticam(rec, steps=5)[[0, 2]], alone, rtol=1e-9, atol=1e-12)


def test_a_dead_image_gives_a_map_of_zeros():
    rec = asked_of(GapNet, "relu")
    assert torch.equal(opticam(replace(rec, activations=-rec.activations.abs())), torch.zeros(2, 8, 8).double())


class ComplementNet(nn.Module):
    """Two channels, red and what is not red, which sum to the same everywhere."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, CLASSES)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])[:, :, None, None])
            self.conv.bias.copy_(torch.tensor([0.0, 1]))
            self.head.weight.copy_(torch.arange(CLASSES)[:, None] * torch.tensor([1.0, 0]))  # all are for red
            self.head.bias.zero_()

    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_that_is_constant_though_its_channels_are_not_is_left_at_the_first_step(dtype):
    subject = tiny_subject(ComplementNet().eval().to(dtype), "conv", seed=None)
    rec = record(subject, some_images(2).to(dtype), chunk=8)
    equal = torch.full_like(rec.activations[:, :, 0, 0], 0.5)
    assert is_constant(torch.einsum("bk,bkij->bij", equal, rec.activations)).all()
    weights = opticam_weights(rec)
    assert torch.isfinite(weights).all()
    assert (masked_score(rec, weights) > masked_score(rec, equal) + 0.01).all()
    assert not is_constant(opticam(rec)).any()


@pytest.mark.parametrize("height", [0.0, 1e-30, 0.3, 1e30])
def test_the_mask_of_a_constant_map_is_empty_and_has_a_finite_slope(height):
    u = torch.zeros(1, 3, requires_grad=True)
    mask = mask_of(torch.full((1, 3, 4, 4), height), u, (16, 16))
    assert mask.detach().abs().max() <= 1e-6
    assert torch.isfinite(
        torch.autograd.grad((mask * torch.rand(16, 16, generator=generator(0, "mask"))).sum(), u)[0]
    ).all()


def test_the_mask_reaches_from_0_to_1():
    features = torch.rand(3, 5, 4, 4, generator=generator(0, "mask"))
    mask = mask_of(features, torch.randn(3, 5, generator=generator(1, "mask")), (16, 16))
    assert torch.equal(mask.amin((1, 2)), torch.zeros(3))
    assert torch.equal(mask.amax((1, 2)), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_does_not_move_the_weights_of_channels_that_cannot_matter(dtype):
    rec = asked_of(GapNet, "relu", dtype)
    features = rec.activations.clone()
    features[:, 1:3] = 0
    features[:, 3] = 0.7
    weights = opticam_weights(replace(rec, activations=features), steps=10)
    assert torch.equal(weights[:, 1], weights[:, 2])
    assert torch.equal(weights[:, 1], weights[:, 3])
    assert not torch.isclose(weights[:, 0], weights[:, 1]).any()


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**40])
def test_the_scale_of_the_features_does_not_matter_to_the_weights(factor):
    rec = asked_of(FlatNet, "relu", torch.float32)
    scaled = replace(rec, activations=rec.activations * factor)
    assert torch.equal(opticam_weights(scaled, steps=10), opticam_weights(rec, steps=10))


def test_the_order_of_the_channels_does_not_matter():
    rec = asked_of(FlatNet, "relu")
    order = torch.tensor([2, 0, 3, 1])
    permuted = opticam(replace(rec, activations=rec.activations[:, order]), steps=10)
    torch.testing.assert_close(permuted, opticam(rec, steps=10), rtol=1e-8, atol=1e-10)


class ObjectNet(nn.Module):
    """Sees red, green and blue by themselves, and every fourth channel nothing; class 0 is red, and against blue."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(4, 3)[:, :, None, None].expand(-1, -1, 4, 4) / 16)
            self.head.weight.copy_(torch.tensor([[1.0, 0, -1, 0], [-1, 0, 1, 0]]))

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


@pytest.mark.parametrize(("target", "colour"), [(0, 0), (1, 2)])
def test_the_mask_ends_up_on_the_object_of_the_class(target, colour):
    images = 0.2 * torch.rand(1, 3, 32, 32, generator=generator(0, "objects"))
    images[:, 0, 4:12, 4:12] = 1  # red above left, blue below right
    images[:, 2, 20:28, 16:28] = 1
    subject = tiny_subject(ObjectNet().eval(), "conv", size=32, seed=None, classes=2)
    rec = record(subject, images, torch.tensor([target]), chunk=8)
    own, other = images[0, colour, ::4, ::4] == 1, images[0, 2 - colour, ::4, ::4] == 1
    start, end = unit_range(rec.activations.mean(1))[0], unit_range(opticam(rec))[0]
    assert start[other].min() > 0.9
    assert end[own].min() > 0.9
    assert end[~own].max() < 0.2
    assert opticam_weights(rec)[0].argmax() == colour


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("freeze", [False, True])
def test_the_callers_mode_makes_no_difference_and_nothing_is_left_behind(mode, freeze):
    subject = tiny_subject(FlatNet(), "relu")
    if freeze:
        frozen_module(subject.module)
    expected = opticam(record(subject, some_images(2), chunk=8), steps=3)
    before = traces(subject.module)
    with mode():
        rec = record(subject, some_images(2), chunk=8)
        activations, images = rec.activations.clone(), rec.images.clone()
        found = opticam(rec, steps=3)
        assert torch.equal(rec.activations, activations)
        assert torch.equal(rec.images, images)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert traces(subject.module) == before


def test_a_model_that_switches_gradients_off_is_optimised_like_any_other():
    found = [
        opticam(record(tiny_subject(net(), "relu"), some_images(2), chunk=8), steps=3) for net in (NoGradNet, GapNet)
    ]
    assert torch.equal(*found)


class DetachedNet(GapNet):
    def forward(self, images):
        return super().forward(images.detach())


def test_a_model_that_cuts_its_scores_off_from_its_input_is_refused():
    rec = asked_of(GapNet, "relu", torch.float32)
    cut = tiny_subject(DetachedNet(), "relu")
    with pytest.raises(ZeroGradient, match="cut off from its input"):
        opticam(replace(rec, subject=cut))


def test_a_recording_made_by_hand_is_refused():
    features = torch.rand(1, 2, 4, 4, generator=generator(0, "by hand"))
    with pytest.raises(ValueError, match="no model to ask again"):
        opticam(recording(features, features))


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"patience": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"tolerance": -0.1},
        {"tolerance": 1.0},
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        opticam(asked_of(GapNet, "relu"), **options)


def test_it_is_found_by_name_and_is_not_among_those_that_cost_nothing():
    assert cam.find_cam("Opti-CAM".lower().replace("-", "")) is opticam
    assert "opticam" not in cam.RECORDED
