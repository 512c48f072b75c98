import warnings
from dataclasses import replace
from math import ceil
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore import cam, record
from camcore.cam import scoring
from camcore.cam.scoring import ablationcam_weights
from camcore.cost import metered
from camcore.maps import rectify
from tests.oracles import scoring as oracle
from tests.splits import CASES, SPLITS, TOLERANCE, Asked, Split, close, recorded, with_dead_channels
from tests.tiny import GapNet, some_images, tiny_subject


def check_ablation(rec: Any, split: Split, dtype: torch.dtype, fill: str = "zero", *, whole: bool = True) -> None:
    found, weights = cam.ablationcam(rec, fill=fill), ablationcam_weights(rec, fill=fill)
    for index in range(2):
        asked = Asked(split, rec, index)
        ratios = oracle.ablationcam_weights(asked.features, asked.score_of_features, fill=fill)
        # the paper divides by the score, we do not
        score = asked.score_of_features(asked.features)
        expected = [score * ratio for ratio in ratios]
        error = (weights[index] - torch.tensor(expected, dtype=torch.float64)).abs().max()
        # a weight is the difference of two scores, each as exact as its own size allows
        assert error <= TOLERANCE[dtype] * abs(score)
        if whole:
            close(found[index], oracle.weighted(expected, asked.features), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", SPLITS)
def test_ablationcam_equals_the_papers_equation(name, dtype):
    for seed in range(3):
        check_ablation(recorded(name, dtype, seed=seed), SPLITS[name], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", sorted(set(SPLITS) - {"gap"}))
def test_ablation_to_the_mean_equals_its_definition(name, dtype):
    for seed in range(3):
        # heads that average leave weights so much smaller than the score that float32 keeps few digits of their map
        whole = dtype == torch.float64 or name in ("flat", "before a relu")
        check_ablation(recorded(name, dtype, seed=seed), SPLITS[name], dtype, "mean", whole=whole)


def test_ablation_to_the_mean_is_refused_where_only_means_are_read():
    rec = recorded("gap", torch.float64)
    with pytest.raises(ValueError, match="changes no score where the head reads the means of 'relu' alone"):
        cam.ablationcam(rec, fill="mean")
    weights = ablationcam_weights(replace(rec, linear=False), fill="mean")  # what a map would have been made of
    assert weights.abs().max() < 1e-14


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["gap", "before a relu", "tokens"])
def test_ablationcam_explains_what_was_recorded(name, case):
    check_ablation(recorded(name, torch.float64, **CASES[case]), SPLITS[name], torch.float64)


@given(seed=st.integers(0, 1000), case=st.sampled_from([("gap", "zero"), ("flat", "zero"), ("flat", "mean")]))
def test_the_closed_form_of_ablationcam_is_what_asking_gives(seed, case):
    name, fill = case
    rec = recorded(name, torch.float64, seed=seed)
    assert rec.linear
    asked = ablationcam_weights(replace(rec, linear=False), fill=fill)
    torch.testing.assert_close(ablationcam_weights(rec, fill=fill), asked, rtol=1e-9, atol=1e-12)


def test_ablation_of_all_features_of_a_linear_head_adds_up_to_the_score_less_bias():
    rec = recorded("flat", torch.float64)
    scores = rec.logits.gather(1, rec.target[:, None])[:, 0] - rec.subject.module.dense.bias[rec.target]
    torch.testing.assert_close(ablationcam_weights(rec).sum(1), scores.detach())


@pytest.mark.parametrize("name", ["gap", "before a relu"])
def test_a_negative_score_does_not_turn_the_ablation_map_round(name):
    # a bias shifts the score and no weight; (y - y_k) / y would change sign with it
    rec = recorded(name, torch.float64)
    before = cam.ablationcam(rec)
    with torch.no_grad():
        rec.subject.module.head.bias -= 100
    lowered = record(rec.subject, rec.images, rec.target)
    assert lowered.logits.max() < 0
    torch.testing.assert_close(cam.ablationcam(lowered), before)


@pytest.mark.parametrize(("fill", "value", "skipped"), [("zero", 0.0, 2), ("zero", 2.0, 0), ("mean", 2.0, 2)])
def test_a_channel_that_ablation_would_not_change_has_weight_zero_and_is_not_asked(fill, value, skipped, monkeypatch):
    rec = with_dead_channels(torch.float32, "conv2", value=value)
    monkeypatch.setattr(scoring, "FEATURE_BYTES", rec.activations[0].nbytes)  # one channel at a time
    with metered() as cost:
        weights = ablationcam_weights(rec, fill=fill)
    assert cost.forwards == 2 * (6 - skipped)
    assert (weights[:, [1, 4]] == 0).all() == (skipped == 2)


def test_ablationcam_asks_nothing_where_the_score_is_affine():
    rec = recorded("flat", torch.float32)
    with metered() as cost:
        cam.ablationcam(rec)
    assert (cost.forwards, cost.backwards) == (0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7])
def test_ablationcam_sends_one_image_through_the_prefix_per_chunk_of_channels(size, monkeypatch):
    rec = recorded("before a relu", torch.float64)
    whole = ablationcam_weights(rec)
    monkeypatch.setattr(scoring, "FEATURE_BYTES", size * rec.activations[0].nbytes)
    seen: list[int] = []
    below = rec.subject.module.conv1.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    batches: list[int] = []
    above = rec.subject.module.head.register_forward_hook(lambda _module, args, _output: batches.append(len(args[0])))
    with metered() as cost:
        weights = ablationcam_weights(rec)
    below.remove()
    above.remove()
    assert cost.forwards == 2 * ceil(6 / size)
    assert seen == [1] * cost.forwards
    assert max(batches) == min(size, 6) + 1  # and the whole features
    torch.testing.assert_close(weights, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.slow  # imports the peer
def test_ablationcam_equals_pytorch_grad_cam_where_features_are_rectified():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("pytorch_grad_cam", exc_type=ImportError)
        image = pytest.importorskip("pytorch_grad_cam.utils.image")
        subject = tiny_subject(GapNet(), "relu")
        images = some_images(1)
        rec = record(subject, images)
        assert rec.activations.min() == 0  # elsewhere it ablates to minus ten million
        assert rec.logits.max() > 0  # it divides by the score
        with peer.AblationCAM(model=subject.module, target_layers=[subject.module.relu]) as method:
            theirs = method(images, [lambda logits: logits[rec.target[0]]])
    shown = rectify(cam.ablationcam(rec)).numpy()
    shown = image.scale_cam_image(image.scale_cam_image(shown, (16, 16)))
    assert abs(shown - theirs).max() < 1e-5
