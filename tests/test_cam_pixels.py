import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camcore import cam
from camcore.perturbations import black, mean_colour
from camcore.recording import record
from camcore.seeds import generator
from camcore.subject import Normalise
from tests.oracles import pixels as oracle
from tests.tiny import (
    CLASSES,
    SIZE,
    ChannelsLastNet,
    FlatNet,
    GapNet,
    InPlaceNet,
    TokenNet,
    some_images,
    tiny_subject,
)

NETS = {GapNet: "relu", FlatNet: "relu", InPlaceNet: "relu", TokenNet: "block1", ChannelsLastNet: "mix"}
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-9}  # of the map's largest magnitude


class LinearNet(nn.Module):
    """Linear in the pixels, without a bias; its body is there so that there is something to record."""

    def __init__(self, size=SIZE):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(4 * size**2, CLASSES, bias=False)

    def forward(self, images):
        return self.head(self.body(images).flatten(1))

    def weights(self, target, size=SIZE):
        """dS/dx, written out: the head's weights sent back through the convolution."""
        back = self.head.weight[target].view(1, 4, size, size)
        return nn.functional.conv_transpose2d(back, self.body.weight, padding=1)[0].detach()


class SmoothNet(GapNet):
    """No kink anywhere, so that quadrature converges fast."""

    def __init__(self):
        super().__init__()
        self.relu = nn.Tanh()


def asked(net=GapNet, layer="relu", *, seed=0, count=3, dtype=torch.float32, chunk=4, **options):
    subject = tiny_subject(net(), layer, seed=seed)
    subject.module.to(dtype)
    return record(subject, some_images(count, seed=seed).to(dtype), chunk=chunk, **options)


def slopes_of(rec, index):
    module = rec.subject.module
    module = module.double()
    against = None if rec.against is None else int(rec.against[index])
    return oracle.autograd_slopes(oracle.plain_score(module, int(rec.target[index]), against))


def as_array(image):
    return image.double().numpy()


def assert_close(found, expected, *, tolerance=None):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    tolerance = CLOSE[found.dtype] if tolerance is None else tolerance
    assert found.shape == expected.shape
    assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("net", list(NETS))
def test_maps_equal_the_papers_equations(net, seed, dtype):
    rec = asked(net, NETS[net], seed=seed, count=2, dtype=dtype)
    found = {
        "gradient": cam.gradient(rec),
        "largest": cam.gradient(rec, channels="largest"),
        "gradient_times_input": cam.gradient_times_input(rec),
        "smoothgrad": cam.smoothgrad(rec, samples=3, sigma=0.2, seed=seed),
        "largest smoothgrad": cam.smoothgrad(rec, samples=3, sigma=0.2, seed=seed, channels="largest"),
        "integrated_gradients": cam.integrated_gradients(rec, steps=5, baseline=mean_colour),
    }
    noises = [
        torch.randn(3, SIZE, SIZE, generator=generator(seed, "smoothgrad", str(n))).double().numpy() for n in range(3)
    ]
    for index in range(2):
        slopes, image = slopes_of(rec, index), as_array(rec.images[index])
        smooth = oracle.smoothgrad(slopes, image, noises, 0.2)
        baseline = np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
        expected = {
            "gradient": oracle.summed(slopes(image)),
            "largest": oracle.largest(slopes(image)),
            "gradient_times_input": oracle.gradient_times_input(slopes, image),
            "smoothgrad": oracle.summed(smooth),
            "largest smoothgrad": oracle.largest(smooth),
            "integrated_gradients": oracle.integrated_gradients(slopes, image, baseline, 5),
        }
        for name, saliency in found.items():
            assert_close(saliency[index], expected[name])


@pytest.mark.parametrize("net", list(NETS))
def test_autograds_slopes_are_those_of_central_differences(net):
    module = tiny_subject(net(), NETS[net]).module.double()
    image = as_array(some_images(1)[0])
    score = oracle.plain_score(module, 1)
    measured = oracle.slopes(lambda array: float(score(torch.from_numpy(array)).detach()), image)
    np.testing.assert_allclose(oracle.autograd_slopes(score)(image), measured, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_quadrature_is_exact_for_polynomials_up_to_twice_its_nodes(steps):
    for degree in range(2 * steps):
        total = sum(weight * alpha**degree for alpha, weight in oracle.gauss_legendre(steps))
        assert total == pytest.approx(1 / (degree + 1), abs=1e-13)


def test_linear_network_gives_its_weights():
    rec = asked(LinearNet, "body", dtype=torch.float64)
    weights = torch.stack([rec.subject.module.weights(int(target)) for target in rec.target])
    black_way = (weights * rec.images).sum(1)
    torch.testing.assert_close(cam.gradient(rec), weights.sum(1))
    torch.testing.assert_close(cam.gradient(rec, channels="largest"), weights.abs().amax(1))
    torch.testing.assert_close(cam.smoothgrad(rec, samples=3), weights.sum(1))
    torch.testing.assert_close(cam.gradient_times_input(rec), black_way)
    torch.testing.assert_close(cam.integrated_gradients(rec, steps=1), black_way)
    grey = cam.integrated_gradients(rec, steps=3, baseline=(0.2, 0.5, 0.7))
    colour = rec.images.new_tensor([0.2, 0.5, 0.7])[:, None, None]
    torch.testing.assert_close(grey, (weights * (rec.images - colour)).sum(1))
    torch.testing.assert_close(cam.gradient_times_input(rec).sum((1, 2)), rec.logits.amax(1))


def test_gradients_are_in_pixel_units():
    subject = tiny_subject(LinearNet(), "body", preprocess=Normalise(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4)))
    rec = record(subject, some_images(1), torch.tensor([2]))
    std = torch.tensor([0.1, 0.2, 0.4])[:, None, None]
    torch.testing.assert_close(cam.gradient(rec)[0], (subject.module.weights(2) / std).sum(0))


@pytest.mark.parametrize("seed", range(3))
def test_gradient_adds_up_to_the_slope_as_the_whole_image_brightens(seed):
    rec = asked(SmoothNet, seed=seed, dtype=torch.float64)
    up, down = (rec.subject.logits(rec.images + step).gather(1, rec.target[:, None])[:, 0] for step in (1e-5, -1e-5))
    torch.testing.assert_close(cam.gradient(rec).sum((1, 2)), (up - down).detach() / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@given(seed=st.integers(0, 1000), colour=st.tuples(*[st.floats(0, 1)] * 3))
def test_integrated_gradients_add_up_to_what_the_score_gained(seed, colour):
    rec = asked(SmoothNet, seed=seed, dtype=torch.float64)
    baseline = rec.images.new_tensor(colour)[:, None, None].expand_as(rec.images)
    gained = (rec.logits - rec.subject.logits(baseline)).gather(1, rec.target[:, None])[:, 0].detach()
    found = cam.integrated_gradients(rec, steps=30, baseline=colour).sum((1, 2))
    assert (found - gained).abs().max() <= 1e-9 * rec.logits.abs().max()


@pytest.mark.slow
@given(seed=st.integers(0, 1000))
def test_integrated_gradients_turn_their_sign_with_their_way(seed):
    there = asked(seed=seed, dtype=torch.float64)
    start = some_images(3, seed=seed + 1).double()
    back = replace(there, images=start)
    forth = cam.integrated_gradients(there, steps=9, baseline=start)
    torch.testing.assert_close(cam.integrated_gradients(back, steps=9, baseline=there.images), -forth)


@pytest.mark.slow
def test_integrated_gradients_near_the_riemann_sum_of_the_paper():
    rec = asked(dtype=torch.float64)
    found = cam.integrated_gradients(rec, steps=200)
    for index in range(3):
        image = as_array(rec.images[index])
        # kinks: both sums are off by the jump of the gradient times the share of a step
        assert_close(found[index], oracle.riemann(slopes_of(rec, index), image, 0 * image, 2000), tolerance=0.01)


def test_pixels_that_equal_the_baseline_get_no_integrated_gradients():
    rec = asked()
    baseline = rec.images.clone()
    baseline[:, :, 4:9] = 0.5
    found = cam.integrated_gradients(rec, baseline=baseline)
    assert not found[:, :4].any()
    assert not found[:, 9:].any()
    assert found[:, 4:9].any()


def test_smoothgrad_without_noise_is_the_gradient():
    rec = asked()
    torch.testing.assert_close(cam.smoothgrad(rec, samples=3, sigma=0), cam.gradient(rec))
    assert not torch.allclose(cam.smoothgrad(rec, samples=3, sigma=0.5), cam.gradient(rec), rtol=1e-3)


def test_smoothgrad_scales_its_noise_with_the_range_of_each_image_and_does_not_clip_it():
    seen = []
    rec = asked(FlatNet, count=2)
    images = rec.images.clone()
    images[1] = 0.4 + 0.2 * (images[1] - images[1].min()) / (images[1].max() - images[1].min())
    subject = replace(rec.subject, preprocess=lambda given: (seen.append(given.detach()), given)[1])
    cam.smoothgrad(replace(rec, images=images, subject=subject), samples=20, sigma=0.15)
    shown = torch.cat(seen)
    assert len(shown) == 40
    assert shown.min() < -0.1
    for row in range(2):
        noise = (shown[row::2] - images[row]) / (images[row].max() - images[row].min())
        assert noise.std() == pytest.approx(0.15, rel=0.02)


def test_smoothgrad_draws_its_noise_from_the_seed():
    rec = asked()
    first = cam.smoothgrad(rec, samples=4, seed=1)
    assert torch.equal(cam.smoothgrad(rec, samples=4, seed=1), first)
    assert not torch.equal(cam.smoothgrad(rec, samples=4, seed=2), first)


def test_largest_channel_loses_the_sign_that_the_sum_keeps():
    rec = asked()
    assert (cam.gradient(rec) < 0).any()
    assert (cam.gradient(rec, channels="largest") >= 0).all()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (cam.gradient, {"channels": "mean"}, "channels must be 'sum' or 'largest', got 'mean'"),
        (cam.smoothgrad, {"samples": 0}, "got samples=0"),
        (cam.smoothgrad, {"sigma": -0.1}, "sigma=-0.1"),
        (cam.smoothgrad, {"sigma": float("nan")}, "sigma=nan"),
        (cam.integrated_gradients, {"steps": 0}, "got 0"),
        (cam.integrated_gradients, {"baseline": (0.5, 0.5)}, r"got shape \(2,\)"),
        (cam.integrated_gradients, {"baseline": (0.0, 0.0, 255.0)}, r"images must be in \[0, 1\]"),
        (cam.integrated_gradients, {"baseline": torch.zeros(2, 3, SIZE, SIZE)}, r"got shape \(2, 3, 16, 16\)"),
    ],
)
def test_options_out_of_range_are_refused(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(asked(), **options)


def test_baselines_of_every_kind_are_understood():
    rec = asked()
    zeros = cam.integrated_gradients(rec, steps=4)
    for same in (black, (0.0, 0.0, 0.0), torch.zeros(3), torch.zeros(3, 3, SIZE, SIZE)):
        assert torch.equal(cam.integrated_gradients(rec, steps=4, baseline=same), zeros)
    assert not torch.equal(cam.integrated_gradients(rec, steps=4, baseline=mean_colour), zeros)


@pytest.mark.slow
@pytest.mark.parametrize("net", list(NETS))
def test_captum_agrees(net):
    attr = pytest.importorskip("captum.attr")
    rec = asked(net, NETS[net], dtype=torch.float64)
    module, target = rec.subject.module, rec.target
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's own
        gradients = attr.Saliency(module).attribute(rec.images.clone(), target, abs=False)
        products = attr.InputXGradient(module).attribute(rec.images.clone(), target)
        integrated = attr.IntegratedGradients(module).attribute(
            rec.images.clone(), torch.full_like(rec.images, 0.3), target, n_steps=20, method="gausslegendre"
        )
    # captum rounds to float32 on the way
    for ours, theirs in (
        (cam.gradient(rec), gradients.sum(1)),
        (cam.gradient(rec, channels="largest"), gradients.abs().amax(1)),
        (cam.gradient_times_input(rec), products.sum(1)),
        (cam.integrated_gradients(rec, steps=20, baseline=(0.3,) * 3), integrated.sum(1)),
    ):
        assert_close(ours, theirs.detach(), tolerance=1e-5)
