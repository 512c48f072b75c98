import warnings
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from camcore import cam, record
from camcore.cam.scoring import effective_channels, scorecam_weights
from camcore.cost import metered
from camcore.maps import rectify, unit_range
from camcore.seeds import generator
from camcore.subject import Normalise
from tests.oracles import scoring as oracle
from tests.questions import state_of
from tests.splits import CASES, SPLITS, Asked, Split, close, recorded, with_dead_channels
from tests.test_cam_gradient import recording
from tests.tiny import GapNet, some_images, tiny_subject

ASKING = ("scorecam", "ablationcam")


def check_scorecam(rec: Any, split: Split, dtype: torch.dtype, colour: list[float]) -> None:
    found, weights = cam.scorecam(rec), scorecam_weights(rec)
    for index in range(2):
        asked = Asked(split, rec, index)
        expected = oracle.scorecam_weights(asked.features, asked.pixels, asked.score_of_pixels, colour)
        close(weights[index], expected, dtype)
        close(found[index], oracle.weighted(expected, asked.features), dtype)
        assert effective_channels(weights)[index] == pytest.approx(oracle.effective_channels(expected), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", SPLITS)
def test_scorecam_equals_the_papers_equation(name, dtype):
    for seed in range(3):
        check_scorecam(recorded(name, dtype, seed=seed), SPLITS[name], dtype, [0.0] * 3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["gap", "before a relu", "tokens"])
def test_scorecam_explains_what_was_recorded(name, case):
    colour = list(Normalise().mean) if case == "a normalised input" else [0.0] * 3
    check_scorecam(recorded(name, torch.float64, **CASES[case]), SPLITS[name], torch.float64, colour)


@pytest.mark.parametrize("baseline", [0.0, 0.7, (0.1, 0.5, 0.9)])
def test_masked_pixels_fade_to_the_baseline_that_is_asked_for(baseline):
    rec = recorded("gap", torch.float64, preprocess=Normalise())
    colour = list(baseline) if isinstance(baseline, tuple) else [baseline] * 3
    asked = Asked(SPLITS["gap"], rec, 0)
    expected = oracle.scorecam_weights(asked.features, asked.pixels, asked.score_of_pixels, colour)
    close(scorecam_weights(rec, baseline=baseline)[0], expected, torch.float64)
    assert not torch.allclose(scorecam_weights(rec, baseline=baseline), scorecam_weights(rec), rtol=1e-3)


def test_the_default_baseline_masks_the_normalised_image():
    rec = recorded("gap", torch.float64, preprocess=Normalise())
    features, pixels = rec.activations[:1], rec.subject.preprocess(rec.images[:1])
    masks = unit_range(torch.tensor([oracle.upsample(plane, 16, 16) for plane in features[0].tolist()]))
    live = features[0].flatten(1).any(1)
    with torch.no_grad():
        logits = rec.subject.module(pixels * masks[live][:, None])[:, rec.target[0]]
    torch.testing.assert_close(scorecam_weights(rec)[0, live], logits.softmax(0))


@pytest.mark.parametrize("baseline", [1.5, -0.1, float("nan"), (0.0, 0.5, 1.01), (0.1, 0.2)])
def test_a_baseline_that_is_no_colour_is_refused(baseline):
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\], got|a grey or a colour of three numbers"):
        cam.scorecam(recorded("gap", torch.float32), baseline=baseline)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", ["gap", "flat", "tokens"])
def test_scorecam_by_probability_equals_the_authors_program(name, dtype):
    rec = recorded(name, dtype)
    found = cam.scorecam(rec, weighting="probability")
    for index in range(2):
        asked = Asked(SPLITS[name], rec, index)
        expected = oracle.scorecam_probabilities(
            asked.features, asked.pixels, asked.scores_of_pixels, asked.target, [0.0] * 3
        )
        close(scorecam_weights(rec, weighting="probability")[index], expected, dtype)
        close(found[index], oracle.weighted(expected, asked.features), dtype)


def test_a_probability_of_a_contrast_is_refused():
    with pytest.raises(ValueError, match="defined for one class, and this recording contrasts two"):
        cam.scorecam(recorded("gap", torch.float32, **CASES["a contrast"]), weighting="probability")


def test_options_that_do_not_exist_are_refused():
    rec = recorded("before a relu", torch.float32)
    with pytest.raises(ValueError, match='weighting must be "logit" or "probability", got \'softmax\''):
        cam.scorecam(rec, weighting="softmax")
    with pytest.raises(ValueError, match='fill must be "zero" or "mean", got \'blur\''):
        cam.ablationcam(rec, fill="blur")


@pytest.mark.parametrize("name", ASKING)
def test_a_recording_without_a_model_is_refused(name):
    drawn = torch.randn(2, 3, 4, 4, generator=generator(0, "by hand"))
    with pytest.raises(ValueError, match="this recording has no model to ask again"):
        cam.METHODS[name](recording(drawn, drawn))


@pytest.mark.parametrize(("layer", "value"), [("relu", -1.0), ("conv2", 0.0), ("conv2", 2.0)])
def test_a_constant_channel_has_no_weight_and_costs_nothing_in_scorecam(layer, value):
    rec = with_dead_channels(torch.float64, layer, value=value)
    live = rec.activations.flatten(2).amax(2) > rec.activations.flatten(2).amin(2)
    assert not live[:, [1, 4]].any()
    with metered() as cost:
        weights = scorecam_weights(rec)
    assert cost.forwards == live.sum()
    assert torch.equal(weights != 0, live)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64))


def test_an_image_without_a_live_channel_has_an_empty_map_and_leaves_its_neighbours_alone():
    rec = recorded("gap", torch.float64)
    dark = replace(rec, activations=torch.cat([rec.activations[:1], torch.zeros_like(rec.activations[:1])]))
    for name in ASKING:
        found = cam.METHODS[name](dark)
        assert torch.equal(found[1], torch.zeros(8, 8, dtype=torch.float64))
        torch.testing.assert_close(found[0], cam.METHODS[name](rec)[0])
    assert effective_channels(scorecam_weights(dark))[1] == 0


@pytest.mark.parametrize("name", ASKING)
def test_a_batch_without_a_live_channel_asks_nothing(name):
    rec = recorded("before a relu", torch.float32)
    with metered() as cost:
        found = cam.METHODS[name](replace(rec, activations=torch.zeros_like(rec.activations)))
    assert cost.forwards == 0
    assert not found.any()


@pytest.mark.parametrize("size", [1, 2, 5, 12, 64])
def test_scorecam_fills_its_chunks_across_images(size):
    rec = replace(recorded("before a relu", torch.float64), chunk=size)
    batches: list[int] = []
    hook = rec.subject.module.head.register_forward_hook(lambda _module, args, _output: batches.append(len(args[0])))
    weights = scorecam_weights(rec)
    hook.remove()
    assert batches == [min(size, 12 - start) for start in range(0, 12, size)]
    torch.testing.assert_close(weights, scorecam_weights(replace(rec, chunk=5)), rtol=1e-12, atol=1e-12)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = operation(*args, **(kwargs or {}))
        for tensor in given if isinstance(given, tuple | list) else (given,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return given


def test_scorecam_makes_no_tensor_that_grows_with_the_live_channels():
    rec = record(tiny_subject(GapNet(channels=40), "conv2"), some_images(2), torch.tensor([1, 3]), chunk=2)
    sizes = []
    for live in (2, 40):
        blanked = torch.where(torch.arange(40)[:, None, None] < live, rec.activations, 0)
        with Largest() as largest:
            scorecam_weights(replace(rec, activations=blanked))
        sizes.append(largest.elements)
    assert sizes[0] == sizes[1] == 2 * 40 * 8 * 8  # what the network itself makes of one chunk
    assert sizes[1] < 2 * 40 * 16 * 16  # all masks of all images


@pytest.mark.parametrize("layer", ["relu", "conv2"])
@pytest.mark.parametrize("name", ASKING)
def test_order_of_the_channels_does_not_matter(name, layer):
    subject = tiny_subject(GapNet(), layer)
    subject.module.double()
    rec = record(subject, some_images(2).double(), torch.tensor([1, 3]), chunk=4)
    found = cam.METHODS[name](rec)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    net = subject.module
    with torch.no_grad():
        for tensor in (net.conv2.weight, net.conv2.bias):
            tensor.copy_(tensor[order])
        net.head.weight.copy_(net.head.weight[:, order])
    permuted = record(subject, rec.images, rec.target, chunk=4)
    assert not torch.allclose(permuted.activations, rec.activations)
    torch.testing.assert_close(cam.METHODS[name](permuted), found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layer", ["relu", "conv2"])
@pytest.mark.parametrize("name", ASKING)
def test_map_of_an_image_does_not_depend_on_its_batch(name, layer):
    subject = tiny_subject(GapNet(), layer)
    images, target = some_images(4), torch.tensor([0, 1, 2, 3])
    together = cam.METHODS[name](record(subject, images, target, chunk=7))
    order = torch.tensor([3, 1, 0, 2])
    shuffled = cam.METHODS[name](record(subject, images[order], target[order], chunk=7))
    torch.testing.assert_close(shuffled, together[order], rtol=1e-4, atol=1e-5)
    alone = cam.METHODS[name](record(subject, images[2:3], target[2:3], chunk=7))
    torch.testing.assert_close(alone[0], together[2], rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100), offset=st.floats(-10, 10))
def test_scorecam_weights_do_not_depend_on_scale_and_offset_of_the_features(seed, factor, offset):
    rec = recorded("before a relu", torch.float64, seed=seed)
    moved = replace(rec, activations=factor * rec.activations + offset)
    torch.testing.assert_close(scorecam_weights(moved), scorecam_weights(rec), rtol=1e-6, atol=1e-9)


@given(seed=st.integers(0, 1000), count=st.integers(1, 50), factor=st.sampled_from([1e-30, 1.0, 1e30]))
def test_effective_channels_lie_between_one_and_all_and_forget_the_scale(seed, count, factor):
    weights = torch.rand(3, count, generator=generator(seed, "effective"), dtype=torch.float64) + 1e-3
    found = effective_channels(weights)
    assert ((found >= 1 - 1e-9) & (found <= count + 1e-9)).all()
    torch.testing.assert_close(effective_channels(weights * factor), found)
    torch.testing.assert_close(effective_channels(torch.full((1, count), factor)), torch.tensor([float(count)]))
    assert effective_channels(torch.eye(count)[:1]) == 1


@pytest.mark.parametrize("name", ASKING)
def test_the_model_leaves_as_it_came(name):
    rec = recorded("in place", torch.float32)
    module = rec.subject.module
    before, weights = state_of(module), deepcopy(module.state_dict())
    activations, random_state = rec.activations.clone(), torch.get_rng_state()
    found = cam.METHODS[name](rec)
    assert state_of(module) == before
    assert all(torch.equal(tensor, weights[key]) for key, tensor in module.state_dict().items())
    assert torch.equal(rec.activations, activations)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled()
    assert not found.requires_grad


def test_methods_that_all_does_not_mean():
    assert {"cam", *ASKING} <= set(cam.METHODS)
    assert not {"cam", *ASKING} & set(cam.RECORDED)


# Peers, where they are right: at a layer of the image's resolution, where it does not matter how (pytorch-grad-cam:
# corners aligned) or when (torchcam: after scaling) a mask is upsampled.
@pytest.mark.slow  # imports the peers
def test_scorecam_equals_the_peers_where_nothing_is_upsampled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("pytorch_grad_cam", exc_type=ImportError)
        other = pytest.importorskip("torchcam.methods", exc_type=ImportError)
        subject = tiny_subject(GapNet(), "conv1")
        images, target = some_images(1), torch.tensor([2])
        found = cam.scorecam(record(subject, images, target))
        with peer.ScoreCAM(model=subject.module, target_layers=[subject.module.conv1]) as method:
            theirs = method(images, [lambda logits: logits[2]])
        torch.testing.assert_close(unit_range(rectify(found)), torch.tensor(theirs), rtol=0, atol=1e-5)
        with other.ScoreCAM(subject.module, target_layer="conv1") as method:
            (theirs,) = method(2, subject.module(images), normalized=False)
        torch.testing.assert_close(rectify(found), theirs, rtol=0, atol=1e-5)
