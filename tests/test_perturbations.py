import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.functional import gaussian_blur

from camcore.perturbations import black, blur, mean_colour, noise, rank_pixels
from camcore.seeds import generator
from tests.tiny import some_images


def one_each(count, purpose="ties"):
    return [generator(0, purpose, str(index)) for index in range(count)]


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_every_rank_is_given_once_and_no_pixel_goes_before_a_more_salient_one(seed, count, height, width, levels):
    saliency = torch.randint(levels, (count, height, width), generator=generator(seed, "levels")).float()
    rank = rank_pixels(saliency, generators=one_each(count))
    pixels = height * width
    assert rank.shape == saliency.shape
    for one, ranks in zip(saliency.flatten(1), rank.flatten(1), strict=True):
        assert ranks.sort().values.tolist() == list(range(pixels))
        in_order = one[ranks.argsort()]
        assert (in_order.diff() <= 0).all()


@pytest.mark.parametrize("k", [0, 1, 60, 100, 170, 256])
def test_exactly_k_pixels_are_marked_under_heavy_ties(k):
    # a threshold on a percentile would mark all zeros at once: 62 % of this map
    saliency = (torch.rand(4, 16, 16, generator=generator(0, "zeros")) - 0.62).relu()
    rank = rank_pixels(saliency, generators=one_each(4))
    assert ((rank < k).flatten(1).sum(1) == k).all()


def test_ties_favour_no_place():
    # Half the pixels of a constant map go, each in half of 400 draws: 4.4 deviations of 10 allow for 64 pixels.
    saliency = torch.zeros(400, 8, 8)
    gone = (rank_pixels(saliency, generators=one_each(400)) < 32).double()
    assert (gone.sum(0) - 200).abs().max() < 44
    # the mean rank of the top half would be off by 16 if ties went by index; its deviation is 0.93 over 400 draws
    ranks = rank_pixels(saliency, generators=one_each(400)).double()
    assert abs(ranks[:, :4].mean() - 31.5) < 2


def test_ties_are_broken_within_and_not_across_levels():
    saliency = torch.zeros(1, 8, 8)
    saliency[0, 4:] = 1
    rank = rank_pixels(saliency, generators=one_each(1))[0]
    assert rank[4:].max() == 31
    assert rank[:4].min() == 32
    assert (rank[4:].flatten().diff() < 0).any()  # not in index order


def test_rank_of_an_image_does_not_depend_on_its_batch():
    saliency = torch.rand(3, 5, 5, generator=generator(0, "levels")).round(decimals=1)
    together = rank_pixels(saliency, generators=one_each(3))
    for index in range(3):
        alone = rank_pixels(saliency[index : index + 1], generators=one_each(3)[index : index + 1])
        assert torch.equal(alone[0], together[index])


@pytest.mark.parametrize(
    "rescale", [lambda x: 3 * x + 7, torch.exp, lambda x: x**3, torch.atan], ids=["line", "exp", "cube", "atan"]
)
def test_rank_does_not_change_under_a_monotone_rescaling(rescale):
    saliency = torch.randint(-3, 4, (2, 6, 6), generator=generator(0, "levels")).double()
    plain = rank_pixels(saliency, generators=one_each(2))
    assert torch.equal(rank_pixels(rescale(saliency), generators=one_each(2)), plain)


def test_rank_draws_no_global_random_number():
    before = torch.get_rng_state()
    rank_pixels(torch.zeros(1, 4, 4), generators=one_each(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (3, 5), (1, 1)])
def test_blur_keeps_a_flat_image_and_the_range_and_the_shape(size):
    flat = torch.full((2, 3, *size), 0.3)
    torch.testing.assert_close(blur(flat), flat)
    images = torch.rand(2, 3, *size, generator=generator(0, "blur"))
    found = blur(images)
    assert found.shape == images.shape
    assert found.min() >= images.min() - 1e-6
    assert found.max() <= images.max() + 1e-6


def test_blur_keeps_the_mean_away_from_the_border():
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 24:40, 24:40] = torch.rand(1, 3, 16, 16, generator=generator(0, "blur"))
    torch.testing.assert_close(blur(images).mean((2, 3)), images.mean((2, 3)))


def test_blur_spreads_a_point_as_a_gaussian_of_a_twentieth_of_the_shorter_side():
    images = torch.zeros(1, 3, 80, 101)
    images[:, :, 40, 50] = 1
    column = blur(images)[0, 0].sum(1)
    offsets = torch.arange(80) - 40.0
    assert (column * offsets).sum().item() == pytest.approx(0, abs=1e-4)
    # cut off at three deviations a Gaussian keeps 97.3 % of its variance: (0.986 * 4)²
    assert (column * offsets**2).sum().sqrt().item() == pytest.approx(0.986 * 0.05 * 80, rel=0.01)


def test_blur_removes_detail():
    images = some_images(2, size=32)
    assert blur(images).var() < 0.2 * images.var()


def test_blur_of_an_image_does_not_depend_on_its_batch():
    images = some_images(3)
    torch.testing.assert_close(blur(images)[1:2], blur(images[1:2]))


def test_mean_colour_is_each_images_own():
    images = some_images(2)
    found = mean_colour(images)
    assert found.shape == images.shape
    for index in range(2):
        for channel in range(3):
            expected = images[index, channel].mean().expand(16, 16)
            torch.testing.assert_close(found[index, channel], expected)


def test_black_is_zero_in_pixel_units():
    images = some_images(2)
    assert torch.equal(black(images), images * 0)


def test_noise_is_uniform_and_each_images_own():
    images = some_images(3, size=32)
    found = noise(images, generators=one_each(3, "noise"))
    assert found.shape == images.shape
    assert 0 <= found.min() <= found.max() < 1
    # the mean of 9216 uniform numbers has a deviation of 0.003, their variance one of 0.0008
    assert found.mean().item() == pytest.approx(0.5, abs=0.012)
    assert found.var().item() == pytest.approx(1 / 12, abs=0.0032)
    alone = noise(images[1:2], generators=one_each(3, "noise")[1:2])
    assert torch.equal(alone[0], found[1])


@pytest.mark.parametrize("baseline", [blur, mean_colour, black])
def test_baselines_leave_the_images_alone(baseline):
    images = some_images(2)
    copy = images.clone()
    baseline(images)
    assert torch.equal(images, copy)


@pytest.mark.parametrize(("sigma", "height", "width"), [(0.05, 32, 48), (0.2, 17, 16), (0.01, 64, 64)])
def test_the_blur_is_torchvisions(sigma, height, width):
    side = min(height, width)
    radius = min(round(3 * sigma * side), side - 1)
    images = torch.rand(2, 3, height, width, generator=generator(0, "blurred"))
    expected = gaussian_blur(images, [2 * radius + 1] * 2, [sigma * side] * 2)
    torch.testing.assert_close(blur(images, sigma=sigma), expected, rtol=0, atol=1e-6)
