"""Error rates by simulation: everybody looks after every value and stops when it suits them."""

from math import exp, log

import numpy as np
import pytest
from scipy.stats import binom

from camcore.statistics import confidence_sequence, holm, simultaneous_level
from tests.oracles.populations import POPULATIONS, evidence, first

LEVEL = 0.95
RICHES = log(2 / (1 - LEVEL))
REPETITIONS, N = 1000, 300


def most(rate: float, repetitions: int = REPETITIONS) -> int:
    """The largest count that a true rate of `rate` still explains, up to one chance in ten thousand."""
    return int(binom.ppf(1 - 1e-4, repetitions, rate))


@pytest.fixture(params=POPULATIONS, scope="module")
def walked(request):
    """A population, values drawn from it, and the evidence against its own mean: the null, at its boundary."""
    population = POPULATIONS[request.param]
    rng = np.random.default_rng(sorted(POPULATIONS).index(request.param))
    values = population.draw(rng, (REPETITIONS, N))
    return population, values, *evidence(values, population.mean, population.bounds)


@pytest.mark.slow
def test_populations_have_the_mean_they_claim(walked):
    population, values, _, _ = walked
    assert abs(values.mean() - population.mean) < 5 * values.std() / np.sqrt(values.size)


@pytest.mark.slow
def test_interval_covers_the_mean_at_all_looks_together(walked):
    _, _, above, below = walked
    missed = np.maximum(above, below)[:, -1] >= RICHES
    assert missed.sum() <= most(1 - LEVEL)


@pytest.mark.slow
@pytest.mark.parametrize("away", [-0.03, 0.03])
def test_interval_covers_the_mean_where_it_first_excludes_a_margin(walked, away):
    population, values, above, below = walked
    smallest, largest = population.bounds
    margin = min(max(population.mean + away * (largest - smallest), smallest), largest)
    passes, fails = evidence(values, margin, population.bounds)
    stop = first((passes >= RICHES) | (fails >= RICHES))
    missed = np.take_along_axis(np.maximum(above, below), stop[:, None], axis=-1) >= RICHES
    assert missed.sum() <= most(1 - LEVEL)


@pytest.mark.slow
def test_false_pass_is_rarer_than_half_the_level_at_any_stopping_time(walked):
    _, _, above, _ = walked
    assert (above[:, -1] >= RICHES).sum() <= most((1 - LEVEL) / 2)


@pytest.mark.slow
def test_false_fail_is_rarer_than_half_the_level_at_any_stopping_time(walked):
    _, _, _, below = walked
    assert (below[:, -1] >= RICHES).sum() <= most((1 - LEVEL) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("u", [0.5, 0.2, 0.1, 0.05, 0.01])
def test_p_values_are_super_uniform_under_the_null(walked, u):
    _, _, above, _ = walked
    p = np.exp(-np.maximum(above[:, -1], 0))
    assert (p <= u).sum() <= most(u)


@pytest.mark.slow
def test_simulation_is_what_the_public_interval_says(walked):
    population, values, above, below = walked
    looks = range(1, N + 1)
    for row in range(0, REPETITIONS, 250):
        interval = confidence_sequence(values[row], level=LEVEL, bounds=population.bounds, counts=looks)
        covered = max(above[row, -1], below[row, -1]) < RICHES
        assert covered == (interval.low <= population.mean <= interval.high)


def test_an_interval_made_for_one_look_fails_this_simulation():
    values = POPULATIONS["Bernoulli(0.5)"].draw(np.random.default_rng(1), (REPETITIONS, N))
    n = np.arange(1, N + 1)
    mean = values.cumsum(axis=-1) / n
    z = np.abs(mean - 0.5) * np.sqrt(n) / 0.5
    assert (z[:, 20:] > 1.96).any(axis=-1).sum() > 4 * most(1 - LEVEL)
    assert (z[:, -1] > 1.96).sum() <= most(0.06)  # the same interval at one look: the normal approximation is fair here


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bernoulli(0.5)", "Bernoulli(0.1)", "difference of two uniforms"])
def test_twenty_true_nulls_rarely_give_any_false_pass(name):
    population, families, claims, n = POPULATIONS[name], 200, 20, 150
    values = population.draw(np.random.default_rng(2), (families * claims, n))
    above, _ = evidence(values, population.mean, population.bounds)
    best = above[:, -1].reshape(families, claims)
    alone, together = RICHES, log(2 / (1 - simultaneous_level(LEVEL, claims)))
    assert (best >= together).any(axis=-1).sum() <= most(1 - LEVEL, families)
    assert (best >= alone).any(axis=-1).sum() > (best >= together).any(axis=-1).sum()

    adjusted = [holm([exp(-max(0.0, log_capital)) for log_capital in family]) for family in best]
    assert sum(min(family) <= 1 - LEVEL for family in adjusted) <= most(1 - LEVEL, families)


def test_holm_holds_the_familywise_error_whatever_share_of_nulls_is_true():
    rng, families, claims = np.random.default_rng(3), 2000, 20
    for true_nulls in (20, 10, 1):
        p = rng.random((families, claims))
        p[:, true_nulls:] *= 1e-6
        false_alarms = sum(min(holm(list(row))[:true_nulls]) <= 0.05 for row in p)
        assert false_alarms <= most(0.05, families)
        assert false_alarms >= binom.ppf(1e-4, families, 0.04)  # and spends what it may, unlike Bonferroni
