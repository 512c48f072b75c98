import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.metrics.complexity import complexity_rise, histogram_entropy
from camcore.metrics.likeness import hog_likeness, rank_likeness, structural_similarity, unsigned_rank_likeness
from camcore.seeds import generator
from tests.oracles import randomisation as oracle

FUNCTIONS = (rank_likeness, unsigned_rank_likeness, structural_similarity, hog_likeness)
values = st.lists(st.integers(-4, 4), min_size=12, max_size=12)


def noise(name, *shape):
    return torch.rand(*shape, generator=generator(0, "likeness", name))


@given(values, values)
def test_rank_likeness_is_the_correlation_of_ranks_ties_and_all(x, y):
    found = rank_likeness(*(torch.tensor(v, dtype=torch.float32).view(1, 3, 4) for v in (x, y))).item()
    unsigned = unsigned_rank_likeness(*(torch.tensor(v, dtype=torch.float32).view(1, 3, 4) for v in (x, y))).item()
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(oracle.spearman(x, y), abs=1e-9)
    if len({abs(v) for v in x}) > 1 and len({abs(v) for v in y}) > 1:
        assert unsigned == pytest.approx(oracle.spearman([abs(v) for v in x], [abs(v) for v in y]), abs=1e-9)
    else:
        assert math.isnan(unsigned)


def test_a_map_that_is_constant_to_within_rounding_ranks_nothing():
    flat = torch.ones(1, 5, 5) + 1e-7 * noise("flat", 1, 5, 5)
    assert rank_likeness(flat, noise("other", 1, 5, 5)).isnan().all()


def test_signs_count_in_one_and_not_in_the_other():
    saliency = noise("signed", 2, 6, 6) - 0.5
    torch.testing.assert_close(rank_likeness(saliency, -saliency), -torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(unsigned_rank_likeness(saliency, -saliency), torch.ones(2, dtype=torch.float64))


def test_ssim_equals_a_walk_over_all_windows():
    one, other = noise("a", 2, 11, 9), noise("b", 2, 11, 9)
    found = structural_similarity(one, 0.5 * one + 0.5 * other)
    for index in range(2):
        slow = oracle.ssim(one[index].tolist(), (0.5 * one + 0.5 * other)[index].tolist())
        # scikit-image leaves the border out that has no whole window, as the walk does
        assert found[index].item() == pytest.approx(slow, abs=1e-5)


@pytest.mark.parametrize("likeness", FUNCTIONS)
def test_a_map_is_like_itself_and_unlike_noise(likeness):
    one, other = noise("a", 3, 64, 64), noise("b", 3, 64, 64)
    torch.testing.assert_close(likeness(one, one), torch.ones(3, dtype=torch.float64))
    assert (likeness(one, other).abs() < 0.3).all()
    torch.testing.assert_close(likeness(one, other), likeness(other, one))


@pytest.mark.parametrize("likeness", FUNCTIONS)
def test_the_likeness_of_a_pair_does_not_depend_on_its_batch(likeness):
    one, other = noise("a", 3, 64, 64), noise("b", 3, 64, 64)
    torch.testing.assert_close(likeness(one, other)[1:2], likeness(one[1:2], other[1:2]))
    assert likeness(one[:0], other[:0]).shape == (0,)


def test_hog_ignores_contrast_and_sees_a_turn():
    ramp = torch.linspace(0, 1, 64).expand(1, 64, 64) ** 2
    wave = torch.sin(torch.arange(64) / 5.0).expand(1, 64, 64) / 2 + 0.5
    torch.testing.assert_close(hog_likeness(wave, wave * 0.5), torch.ones(1, dtype=torch.float64), atol=1e-3, rtol=0)
    assert hog_likeness(wave, wave.transpose(1, 2)) < 0.2
    assert hog_likeness(ramp, torch.zeros_like(ramp)).isnan().all()


def test_maps_that_are_not_finite_give_nothing():
    one = noise("a", 2, 64, 64)
    broken = one.clone()
    broken[0, 3, 3] = torch.nan
    for likeness in FUNCTIONS:
        found = likeness(one, broken)
        assert found[0].isnan()
        assert not found[1].isnan()


@given(st.lists(st.integers(-50, 50), min_size=12, max_size=12).filter(lambda v: len(set(v)) > 1), st.integers(2, 9))
def test_entropy_equals_counting(values, bins):
    found = histogram_entropy(torch.tensor(values, dtype=torch.float64).view(1, 3, 4), bins=bins)
    assert found.item() == pytest.approx(oracle.entropy(values, bins), abs=1e-9)


def test_entropy_of_an_even_spread_is_the_logarithm_of_the_bins_and_of_two_values_that_of_two():
    even = torch.arange(400.0).view(1, 20, 20)
    halves = (torch.arange(400) % 2).float().view(1, 20, 20)
    assert histogram_entropy(even).item() == pytest.approx(math.log(100))
    assert histogram_entropy(halves).item() == pytest.approx(math.log(2))
    assert histogram_entropy(torch.ones(1, 4, 4)).isnan().all()


def test_entropy_ignores_scale_and_place():
    saliency = noise("a", 2, 16, 16)
    turned = (5 * saliency - 3).flip(1, 2)
    torch.testing.assert_close(histogram_entropy(saliency), histogram_entropy(turned), atol=0.05, rtol=0)


def test_the_rise_is_relative_to_the_original():
    even = torch.arange(400.0).view(1, 20, 20)
    halves = (torch.arange(400) % 2).float().view(1, 20, 20)
    expected = (math.log(100) - math.log(2)) / math.log(2)
    assert complexity_rise(halves, even).item() == pytest.approx(expected)
    assert complexity_rise(even, even).item() == 0


@pytest.mark.slow
def test_the_library_is_imported_without_scikit_image():
    code = (
        "import sys, camcore, camcore.cascade, camcore.metrics.likeness, camcore.metrics.complexity; "
        "print([m for m in ('skimage', 'quantus') if m in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
