"""Opti-CAM against its paper transcribed: the way that it goes, the map at its end, and where it ends."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from camcore.cam import opti
from camcore.cam.opti import _score, opticam, opticam_weights
from camcore.cost import metered
from camcore.perturbations import mean_colour
from camcore.seeds import generator
from camcore.subject import Normalise
from tests.opti_asked import PATIENCE, TO_THE_END, TOLERANCE, asked_of, every_net, masked_score, only
from tests.oracles import opti as oracle
from tests.tiny import FlatNet, GapNet


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
