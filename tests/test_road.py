import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camcore.perturbations import noisy_linear, rank_pixels
from camcore.perturbations.road import WEIGHTS
from camcore.seeds import generator
from tests.oracles import road as oracle
from tests.tiny import some_images


def one_each(count, purpose="noise"):
    return [generator(0, purpose, str(index)) for index in range(count)]


def some_holes(count=2, *, size=16, share=0.3, seed=0):
    saliency = torch.rand(count, size, size, generator=generator(seed, "holes"))
    return rank_pixels(saliency, generators=one_each(count, "ties")) < round(share * size * size)


def filled(images, gone, noise=0.0):
    return noisy_linear(images, gone, generators=one_each(len(images)), noise=noise)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(2, 7), st.floats(0.05, 0.95))
def test_imputation_is_the_papers_system_solved_densely(seed, height, width, share):
    draws = generator(seed, "road")
    image = torch.rand(1, 3, height, width, generator=draws, dtype=torch.float64)
    gone = torch.rand(1, height, width, generator=draws) < share
    gone[0, 0, 0] = False
    expected = oracle.imputed(image[0].numpy(), gone[0].numpy())
    np.testing.assert_allclose(filled(image, gone)[0].numpy(), expected, atol=1e-9)


def test_the_eight_neighbours_weigh_one_together():
    assert 2 * sum(WEIGHTS.values()) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_slope_is_restored_exactly_inside_and_a_flat_image_everywhere(share):
    # a linear image is its own weighted mean wherever all eight neighbours exist
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    slope = (0.2 + 0.02 * rows + 0.03 * columns).expand(1, 3, -1, -1) / 2
    gone = some_holes(1, share=share)
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(filled(flat, gone), flat)
    gone[:, [0, -1]] = gone[:, :, [0, -1]] = False
    torch.testing.assert_close(filled(slope, gone), slope)


def test_no_value_leaves_the_range_of_what_is_left():
    images, gone = some_images(2), some_holes(share=0.8)
    found = filled(images, gone)
    for index in range(2):
        left = images[index][:, ~gone[index]]
        new = found[index][:, gone[index]]
        assert (new >= left.amin(1, keepdim=True) - 1e-6).all()
        assert (new <= left.amax(1, keepdim=True) + 1e-6).all()


def test_pixels_that_are_left_are_returned_as_they_are_and_the_images_alone():
    images, gone = some_images(2), some_holes()
    copy = images.clone()
    found = filled(images, gone, noise=0.1)
    assert torch.equal(images, copy)
    assert torch.equal(found.where(~gone[:, None], 0), images.where(~gone[:, None], 0))
    assert not torch.equal(found, images)


def test_nothing_gone_is_nothing_done():
    images = some_images(2)
    assert torch.equal(filled(images, torch.zeros(2, 16, 16, dtype=torch.bool), noise=0.1), images)


def test_noise_has_the_deviation_asked_for_and_stays_in_range():
    images, gone = torch.full((1, 3, 64, 64), 0.5), some_holes(1, size=64, share=0.6)
    off = (filled(images, gone, noise=0.02) - 0.5)[0][:, gone[0]]
    # the deviation of 7372 draws is known to 0.8 %
    assert off.std().item() == pytest.approx(0.02, rel=0.04)
    assert off.mean().abs() < 0.001
    loud = filled(images, gone, noise=5.0)
    assert (loud.min(), loud.max()) == (0, 1)


def test_an_image_has_its_own_noise_whatever_its_batch():
    images, gone = some_images(3), some_holes(3)
    together = filled(images, gone, noise=0.1)
    alone = noisy_linear(images[1:2], gone[1:2], generators=one_each(3)[1:2], noise=0.1)
    assert torch.equal(alone[0], together[1])
    before = torch.get_rng_state()
    filled(images, gone, noise=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_factorisation_serves_the_three_channels(monkeypatch):
    import scipy.sparse.linalg

    solves, factorise = [], scipy.sparse.linalg.splu

    class Counted:
        def __init__(self, *args, **options):
            self.factors = factorise(*args, **options)

        def solve(self, right):
            solves.append(right.shape)
            return self.factors.solve(right)

    monkeypatch.setattr(scipy.sparse.linalg, "splu", Counted)
    gone = some_holes(2)
    filled(some_images(2), gone)
    assert solves == [(int(one.sum()), 3) for one in gone]


def test_an_image_of_which_nothing_is_left_is_refused():
    gone = torch.stack([torch.ones(16, 16, dtype=torch.bool), torch.zeros(16, 16, dtype=torch.bool)])
    with pytest.raises(ValueError, match="needs at least one pixel of each image to go by"):
        filled(some_images(2), gone)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs, with numpy 2
def test_it_equals_what_pytorch_grad_cam_has_without_noise():
    peer = pytest.importorskip("pytorch_grad_cam.metrics.road")
    images, gone = some_images(2), some_holes(share=0.6)
    theirs = [peer.NoisyLinearImputer(noise=0.0)(one, (~hole).float()) for one, hole in zip(images, gone, strict=True)]
    torch.testing.assert_close(filled(images, gone), torch.stack(theirs))
