import warnings
from functools import partial
from itertools import product
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from camcore import cam
from camcore.cam.masking import _draw, _squares, smooth_masks
from camcore.cost import metered
from camcore.perturbations import black, blur, mean_colour
from camcore.recording import record
from camcore.seeds import generator
from tests.oracles import masking as oracle
from tests.test_cam_pixels import NETS, LinearNet, as_array, asked, assert_close
from tests.tiny import CLASSES, SIZE, GapNet, some_images, tiny_subject


def scores_of(rec, index, *, probability=False):
    """What the network says of one image (an array), by a plain call in float64."""
    module, target = rec.subject.module.double(), int(rec.target[index])

    @torch.no_grad()
    def score(image):
        logits = module(torch.tensor(image, dtype=torch.float64)[None])[0]
        return float((logits.softmax(0) if probability else logits)[target])

    return score


def small(net=GapNet, *, size=4, dtype=torch.float64, chunk=500):
    """A network for images of a few pixels, of which everything can be enumerated."""
    subject = tiny_subject(net(), "relu" if net is GapNet else "body", size=size)
    subject.module.to(dtype)
    return record(subject, some_images(1, size=size).to(dtype), chunk=chunk)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("net", list(NETS))
def test_maps_equal_the_papers_equations(net, seed, dtype):
    rec = asked(net, NETS[net], seed=seed, count=2, dtype=dtype)
    occluded = cam.occlusion(rec, window=5, stride=4)
    options = {"masks": 9, "cells": 3, "keep": 0.4, "seed": seed}
    random = cam.rise(rec, **options)
    unsoftened = cam.rise(rec, **options, baseline=(0.5, 0.3, 0.1), weighting="logit")
    drawn = cam.rise(rec, **options, coverage="drawn")
    grids, shifts = _draw(9, 3, 0.4, (SIZE, SIZE), seed)
    grids, shifts = grids.numpy(), [tuple(pair) for pair in shifts.tolist()]
    colour = np.array([0.5, 0.3, 0.1])[:, None, None]
    for index in range(2):
        image = as_array(rec.images[index])
        score, chance = scores_of(rec, index), scores_of(rec, index, probability=True)
        mean = np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
        # a drop is a difference of scores: rounding is relative to these
        expected = torch.from_numpy(oracle.occlusion(score, image, 5, 4, mean))
        scale = max(abs(score(image)), float(expected.abs().max()))
        assert (occluded[index].double() - expected).abs().max() <= {4: 1e-5, 8: 1e-9}[dtype.itemsize] * scale
        assert_close(random[index], oracle.rise(chance, image, grids, shifts, 0.4, 0 * image))
        assert_close(drawn[index], oracle.rise_as_drawn(chance, image, grids, shifts, 0 * image))
        assert_close(unsoftened[index], oracle.rise(score, image, grids, shifts, 0.4, colour))


@given(
    cells=st.integers(1, 5),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
    seed=st.integers(0, 1000),
)
def test_masks_equal_the_papers_construction_at_every_size_and_shift(cells, height, width, seed):
    reach = [ceil(side / cells) for side in (height, width)]
    shifts = torch.tensor([(0, 0), (reach[0] - 1, reach[1] - 1), (reach[0] // 2, reach[1] // 3)])
    grids = torch.rand(3, cells, cells, generator=generator(seed, "masks"), dtype=torch.float64).round()
    found = smooth_masks(grids, shifts, (height, width))
    for index in range(3):
        expected = oracle.mask(grids[index].numpy(), tuple(shifts[index].tolist()), (height, width))
        np.testing.assert_allclose(found[index].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("keep", [0.3, 0.5])
def test_the_mean_mask_is_the_share_kept_at_every_pixel(cells, keep):
    mean = sum(chance * mask for mask, chance in oracle.every_mask(cells, (4, 5), keep))
    np.testing.assert_allclose(mean, keep, atol=1e-12)


@pytest.mark.parametrize("weighting", ["probability", "logit"])
@pytest.mark.parametrize("net", [LinearNet, GapNet])
def test_rise_over_all_masks_alike_is_the_mean_over_their_enumeration(net, weighting, monkeypatch):
    rec = small(partial(net, size=4) if net is LinearNet else net)
    grids = torch.tensor(list(product((False, True), repeat=4))).view(-1, 2, 2)
    shifts = torch.tensor(list(product(range(2), range(2))))
    every = grids.repeat_interleave(len(shifts), 0), shifts.repeat(len(grids), 1)
    monkeypatch.setattr("camcore.cam.masking._draw", lambda *_args: every)
    found = cam.rise(rec, masks=len(every[0]), cells=2, weighting=weighting)[0]
    score = scores_of(rec, 0, probability=weighting == "probability")
    image = as_array(rec.images[0])
    assert_close(found, oracle.rise_moments(score, image, 2, 0.5, 0 * image)[0])


@pytest.mark.parametrize("keep", [0.3, 0.5])
@pytest.mark.parametrize("weighting", ["probability", "logit"])
def test_rise_is_within_its_standard_error_of_the_enumeration(weighting, keep):
    rec = small()
    found = cam.rise(rec, masks=20_000, cells=2, keep=keep, weighting=weighting)[0]
    score = scores_of(rec, 0, probability=weighting == "probability")
    image = as_array(rec.images[0])
    mean, variance = oracle.rise_moments(score, image, 2, keep, 0 * image)
    # 16 pixels, each beyond five standard errors once in two million draws
    assert (np.abs(found.numpy() - mean) <= 5 * np.sqrt(variance / 20_000)).all()
    # and the standard error resolves the map, else the line above says nothing
    assert 5 * np.sqrt(variance.max() / 20_000) < np.ptp(mean)


def test_rise_that_keeps_everything_is_the_probability_everywhere():
    rec = asked()
    chance = rec.logits.softmax(1).amax(1)[:, None, None].expand(-1, SIZE, SIZE)
    torch.testing.assert_close(cam.rise(rec, masks=5, keep=1), chance)


def test_rise_of_a_score_that_masking_does_not_move_is_flat_once_divided_by_the_coverage_drawn():
    rec = asked(dtype=torch.float64)
    with torch.no_grad():
        rec.subject.module.head.weight.zero_()
    chance = rec.subject.logits(rec.images).softmax(1).gather(1, rec.target[:, None]).detach()
    flat = chance[:, :, None].expand(-1, SIZE, SIZE)
    torch.testing.assert_close(cam.rise(rec, masks=50, coverage="drawn"), flat)
    grids, shifts = _draw(50, 7, 0.5, (SIZE, SIZE), 0)
    share = smooth_masks(grids.double(), shifts, (SIZE, SIZE)).mean(0) / 0.5
    torch.testing.assert_close(cam.rise(rec, masks=50), flat * share)
    assert share.std() > 0.05


def test_a_pixel_that_no_mask_left_has_no_value():
    grids, shifts = _draw(1, 2, 0.5, (SIZE, SIZE), 0)
    unseen = smooth_masks(grids.double(), shifts, (SIZE, SIZE))[0] == 0
    assert unseen.any()
    found = cam.rise(asked(dtype=torch.float64), masks=1, cells=2, coverage="drawn")
    assert torch.isfinite(found).all()
    assert torch.equal(found == 0, unseen.expand_as(found))


def test_rise_draws_its_masks_from_the_seed_and_calls_no_pixel_unseen():
    rec = asked()
    first = cam.rise(rec, masks=30, seed=1)
    assert torch.equal(cam.rise(rec, masks=30, seed=1), first)
    assert not torch.allclose(cam.rise(rec, masks=30, seed=2), first)
    assert (first > 0).all()


@given(keep=st.floats(0.1, 0.9), cells=st.integers(1, 8), seed=st.integers(0, 1000))
def test_masks_are_drawn_with_the_share_kept_and_every_shift(keep, cells, seed):
    grids, shifts = _draw(2000, cells, keep, (15, 20), seed)
    share = grids.double().mean()
    # five standard errors
    assert abs(float(share) - keep) <= 5 * (keep * (1 - keep) / grids.numel()) ** 0.5
    for axis, side in enumerate((15, 20)):
        assert set(shifts[:, axis].tolist()) == set(range(ceil(side / cells)))


def test_occlusion_of_a_linear_network_by_single_pixels_is_its_integrated_gradients():
    rec = asked(LinearNet, "body", dtype=torch.float64)
    for baseline in (black, mean_colour, (0.1, 0.8, 0.4)):
        found = cam.occlusion(rec, window=1, stride=1, baseline=baseline)
        torch.testing.assert_close(found, cam.integrated_gradients(rec, steps=1, baseline=baseline))


def test_occlusion_of_a_linear_network_is_the_mean_over_squares_of_their_sums():
    rec = asked(LinearNet, "body", dtype=torch.float64)
    single = cam.integrated_gradients(rec, steps=1, baseline=mean_colour)
    found = cam.occlusion(rec, window=4, stride=4)
    sums = torch.nn.functional.avg_pool2d(single, 4) * 16
    torch.testing.assert_close(found, sums.repeat_interleave(4, 1).repeat_interleave(4, 2))


def test_occlusion_of_everything_is_the_score_less_that_of_the_baseline():
    rec = asked(dtype=torch.float64)
    score = rec.subject.logits(mean_colour(rec.images)).gather(1, rec.target[:, None])[:, 0]
    drop = (rec.logits.amax(1) - score).detach()[:, None, None].expand(-1, SIZE, SIZE)
    with metered() as cost:
        torch.testing.assert_close(cam.occlusion(rec, window=SIZE, stride=1), drop)
    assert cost.forwards == 3


@given(seed=st.integers(0, 1000), window=st.integers(1, SIZE), stride=st.integers(1, SIZE))
def test_occlusion_by_what_is_there_anyway_drops_nothing(seed, window, stride):
    assume(stride <= window)
    rec = asked(seed=seed, count=1, dtype=torch.float64, chunk=256)
    found = cam.occlusion(rec, window=window, stride=stride, baseline=rec.images)
    assert found.abs().max() <= 1e-12 * rec.logits.abs().max()


@given(side=st.integers(1, 60), window=st.integers(1, 60), stride=st.integers(1, 60))
def test_every_pixel_is_covered_and_every_square_is_whole(side, window, stride):
    assume(stride <= window <= side)
    hidden = _squares(side, window, stride)
    assert (hidden.sum(1) == window).all()
    assert hidden.any(0).all()
    assert [int(row.nonzero()[0]) for row in hidden] == oracle.corners(side, window, stride)


@pytest.mark.parametrize("size", [28, 56])
def test_an_image_is_occluded_by_13_x_13_squares_if_nothing_else_is_asked(size):
    rec = small(size=size, dtype=torch.float32)
    with metered() as cost:
        assert cam.occlusion(rec).shape == (1, size, size)
    assert cost.forwards == 13 * 13


def test_oblong_images_are_covered_too():
    subject = tiny_subject(GapNet(), "relu")
    images = torch.rand(2, 3, 10, 25, generator=generator(0, "oblong"))
    rec = record(subject, images, chunk=4)
    with metered() as cost:
        found = cam.occlusion(rec, window=0.4, stride=0.3)
    assert cost.forwards == 2 * 3 * 8  # squares of 4 every 3 pixels: 0, 3, 6 down and 0, 3, ..., 21 across
    assert found.shape == cam.rise(rec, masks=5).shape == (2, 10, 25)
    image = as_array(images[1])
    mean = np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
    assert_close(found[1], oracle.occlusion(scores_of(rec, 1), image, 4, 3, mean), tolerance=1e-4)


def test_occlusion_flips_with_the_image_where_squares_end_flush():
    rec = asked(dtype=torch.float64)
    with torch.no_grad():
        for layer in (rec.subject.module.conv1, rec.subject.module.conv2):
            layer.weight.copy_((layer.weight + layer.weight.flip(3)) / 2)
        rec.subject.module.conv2.stride = (1, 1)  # a stride of two starts at one side
    views = (rec.images, rec.images.flip(3))
    maps = [cam.occlusion(record(rec.subject, view), window=4, stride=2) for view in views]
    torch.testing.assert_close(maps[1], maps[0].flip(2))


@pytest.mark.slow
def test_baselines_of_every_kind_are_understood():
    rec = asked()
    for method in (partial(cam.occlusion, window=4), partial(cam.rise, masks=6)):
        dark = method(rec, baseline=black)
        for same in ((0.0, 0.0, 0.0), torch.zeros(3), torch.zeros(3, 3, SIZE, SIZE)):
            assert torch.equal(method(rec, baseline=same), dark)
        assert not torch.equal(method(rec, baseline=partial(blur, sigma=0.2)), dark)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (cam.occlusion, {"window": 17}, "a window of 17 pixels does not fit in an image of 16x16"),
        (cam.occlusion, {"window": 4, "stride": 5}, "a stride of 5 pixels with a window of 4 leaves pixels uncovered"),
        (cam.occlusion, {"window": 0}, "window must be a share .* got 0"),
        (cam.occlusion, {"window": 2.5}, "window must be a share .* got 2.5"),
        (cam.occlusion, {"stride": -1}, "stride must be a share .* got -1"),
        (cam.occlusion, {"stride": float("nan")}, "stride must be a share .* got nan"),
        (cam.occlusion, {"baseline": (0.5, 0.5)}, r"got shape \(2,\)"),
        (cam.rise, {"masks": 0}, "got masks=0"),
        (cam.rise, {"cells": 0}, "cells=0"),
        (cam.rise, {"keep": 0}, "keep=0"),
        (cam.rise, {"keep": 1.1}, "keep=1.1"),
        (cam.rise, {"weighting": "softmax"}, "weighting must be 'probability' or 'logit', got 'softmax'"),
        (cam.rise, {"coverage": "none"}, "coverage must be 'expected' or 'drawn', got 'none'"),
        (cam.rise, {"baseline": (0.0, 0.0, -1.0)}, r"images must be in \[0, 1\]"),
    ],
)
def test_options_out_of_range_are_refused(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(asked(), **options)


@pytest.mark.parametrize("stride", [2, 4])
def test_captum_agrees_on_occlusion_where_squares_end_flush(stride):
    attr = pytest.importorskip("captum.attr")
    rec = asked(dtype=torch.float64, target=torch.arange(3) % CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's own
        theirs = attr.Occlusion(rec.subject.module).attribute(
            rec.images, (3, 4, 4), (3, stride, stride), target=rec.target
        )
    assert_close(cam.occlusion(rec, window=4, stride=stride, baseline=black), theirs[:, 0], tolerance=1e-5)
