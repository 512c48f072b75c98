import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from camcore.statistics import clopper_pearson, confidence_sequence


@pytest.mark.parametrize("n", [1, 5, 20, 59, 137])
@pytest.mark.parametrize("p", [0.001, 0.05, 0.17, 0.5, 0.83, 0.999])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_coverage_is_at_least_nominal_by_enumeration(n, p, level):
    intervals = [clopper_pearson(k, n, level=level) for k in range(n + 1)]
    chance = binom.pmf(np.arange(n + 1), n, p)
    covered = [interval.low <= p <= interval.high for interval in intervals]
    assert chance[covered].sum() >= level - 1e-12


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_interval_is_the_one_of_the_reference_library(counts, level):
    estimate = clopper_pearson(*counts, level=level)
    theirs = binomtest(*counts).proportion_ci(level, method="exact")
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert estimate.low <= estimate.point <= estimate.high


def test_none_and_all_reach_the_ends_and_follow_the_closed_form():
    none, every = clopper_pearson(0, 59, level=0.9), clopper_pearson(59, 59, level=0.9)
    assert (none.low, every.high) == (0, 1)
    assert none.high == pytest.approx(1 - 0.05 ** (1 / 59), abs=1e-12)  # "zero of 59" shows a rate below 5 %
    assert every.low == pytest.approx(1 - none.high, abs=1e-12)


def test_no_trials_leave_everything_open():
    estimate = clopper_pearson(0, 0, level=0.95)
    assert (estimate.low, estimate.high, estimate.n) == (0, 1, 0)
    assert np.isnan(estimate.point)


def test_the_price_of_looking_at_any_time_is_a_wider_interval():
    for k in (5, 50, 95):
        once = clopper_pearson(k, 100, level=0.95)
        always = confidence_sequence([1.0] * k + [0.0] * (100 - k), level=0.95)
        assert once.high - once.low < always.high - always.low < 2 * (once.high - once.low)


@pytest.mark.parametrize(("k", "n", "level"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 95)])
def test_impossible_counts_and_levels_are_refused(k, n, level):
    with pytest.raises(ValueError, match=r"got (-1 of 5|6 of 5|0\.0|95)"):
        clopper_pearson(k, n, level=level)
