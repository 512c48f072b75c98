from math import ceil, floor, inf, isnan, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camcore.statistics import confidence_sequence, equivalence_p_value, n_needed, p_value
from camcore.statistics.capital import FRACTIONS, log_capital
from camcore.statistics.multiplicity import simultaneous_level
from tests.oracles.betting import mixture_capitals, plug_in_capitals, scanned_interval
from tests.oracles.populations import POPULATIONS

# an endpoint is known to 6e-14 of the range; where every value is the same, the capital is all but flat at its end
TOLERANCE = 1e-9
unit_values = st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=1, max_size=40)
levels = st.sampled_from([0.5, 0.8, 0.95, 0.9975])
properties = settings(derandomize=True, deadline=None, max_examples=60)


def ends(values, **options):
    estimate = confidence_sequence(values, **{"level": 0.95} | options)
    return estimate.low, estimate.high


@pytest.mark.parametrize("name", POPULATIONS)
def test_interval_is_the_set_of_means_that_neither_gambler_refutes(name):
    population = POPULATIONS[name]
    smallest, largest = population.bounds
    values = population.draw(np.random.default_rng(0), (1, 60))[0]
    x = [(value - smallest) / (largest - smallest) for value in values]
    low, high = scanned_interval(
        x, lambda v, m: mixture_capitals(v, m, list(FRACTIONS)), alpha=0.05, breaks=200
    )  # the slow way, on a grid
    step = (largest - smallest) / 200
    ours = confidence_sequence(values, level=0.95, bounds=population.bounds)
    assert smallest + (largest - smallest) * low - step <= ours.low <= smallest + (largest - smallest) * low
    assert smallest + (largest - smallest) * high <= ours.high <= smallest + (largest - smallest) * high + step


@properties
@given(unit_values, st.floats(0.001, 0.999))
def test_log_capital_is_the_log_of_the_product_as_written(values, m):
    above, below = mixture_capitals(values, m, list(FRACTIONS))
    x, end = np.array(values), np.array([len(values)])
    assert log_capital(x, m, end)[0] == pytest.approx(log(above), abs=1e-8)
    assert log_capital(1 - x, 1 - m, end)[0] == pytest.approx(log(below), abs=1e-8)


def test_expected_capital_is_one_at_the_true_mean_for_any_two_point_population():
    for p in (0.02, 0.3, 0.9):
        one, zero = (np.exp(log_capital(np.array([x]), p, np.array([1]))[0]) for x in (1.0, 0.0))
        assert p * one + (1 - p) * zero == pytest.approx(1, abs=1e-12)


@properties
@given(unit_values, st.floats(0.01, 0.98), st.floats(0.001, 0.01))
def test_capital_falls_in_the_mean_it_doubts(values, m, more):
    x, end = np.array(values), np.array([len(values)])
    assert log_capital(x, m + more, end)[0] <= log_capital(x, m, end)[0]


@properties
@given(unit_values, levels)
def test_interval_at_one_look_contains_the_mean_and_lies_within_bounds(values, level):
    estimate = confidence_sequence(values, level=level)
    assert 0 <= estimate.low <= estimate.point <= estimate.high <= 1
    assert (estimate.n, estimate.level) == (len(values), level)


@properties
@given(unit_values, st.lists(st.integers(1, 40), max_size=5))
def test_interval_never_has_its_ends_crossed_and_only_shrinks_with_more_looks(values, counts):
    counts = sorted({count for count in counts if count <= len(values)})
    low, high = ends(values, level=0.5, counts=counts)  # a low level, so that an empty intersection happens
    assert low <= high
    once = ends(values, level=0.5)
    assert (low >= once[0] and high <= once[1]) or (low, high) == once


def test_an_empty_intersection_gives_the_last_look_alone():
    values = [1.0] * 30 + [0.0] * 300
    assert ends(values, counts=[30]) == ends(values)


def test_an_early_interval_is_not_forgotten():
    values = [0.0, 1.0] * 40 + [1.0] * 12
    low, high = ends(values, counts=[80])
    assert (low, high) == (ends(values)[0], ends(values[:80])[1])


@properties
@given(unit_values, levels)
def test_interval_grows_with_the_level(values, level):
    low, high = ends(values, level=level)
    wider_low, wider_high = ends(values, level=(1 + level) / 2)
    assert wider_low <= low
    assert high <= wider_high


@properties
@given(unit_values, st.floats(-100, 100), st.floats(0.1, 100))
def test_interval_moves_and_stretches_with_the_bounds(values, shift, scale):
    low, high = ends(values)
    moved = [shift + scale * value for value in values]
    moved_low, moved_high = ends(moved, bounds=(shift, shift + scale))
    assert moved_low == pytest.approx(shift + scale * low, abs=1e-6 * scale + 1e-9)
    assert moved_high == pytest.approx(shift + scale * high, abs=1e-6 * scale + 1e-9)


@properties
@given(unit_values, st.randoms(use_true_random=False))
def test_interval_at_one_look_ignores_the_order(values, random):
    shuffled = random.sample(values, len(values))
    assert ends(shuffled) == pytest.approx(ends(values), abs=TOLERANCE)


@properties
@given(unit_values)
def test_interval_of_reflected_values_is_the_reflected_interval(values):
    low, high = ends(values)
    assert ends([1 - value for value in values]) == pytest.approx((1 - high, 1 - low), abs=TOLERANCE)


@properties
@given(unit_values, st.integers(1, 999).map(lambda k: k / 1000), levels)
def test_p_value_and_interval_agree(values, margin, level):
    low = confidence_sequence(values, level=level).low
    p = p_value(values, margin, bounds=(0, 1))
    assert 0 <= p <= 1
    if abs(low - margin) > TOLERANCE:
        assert (low > margin) == (p <= (1 - level) / 2)


@properties
@given(unit_values, st.integers(1, 999).map(lambda k: k / 1000), levels)
def test_equivalence_p_value_and_interval_agree(values, margin, level):
    differences = [2 * value - 1 for value in values]
    low, high = ends(differences, level=level, bounds=(-1, 1))
    p = equivalence_p_value(differences, margin, bounds=(-1, 1))
    if min(abs(low + margin), abs(high - margin)) > TOLERANCE:
        assert (-margin < low and high < margin) == (p <= (1 - level) / 2)


def test_equivalence_needs_no_proof_on_a_side_that_the_bounds_rule_out():
    assert equivalence_p_value([0.0] * 100, 0.1, bounds=(0, 1)) < 0.01
    assert equivalence_p_value([0.0] * 100, 0.1, bounds=(-1, 0)) < 0.01
    assert equivalence_p_value([-0.5] * 100, 0.1, bounds=(-1, 0)) == 1


def test_p_value_remembers_the_best_look():
    values = [1.0] * 20 + [0.0] * 60
    assert p_value(values, 0.5, bounds=(0, 1)) == 1
    assert p_value(values, 0.5, bounds=(0, 1), counts=[20]) == p_value(values[:20], 0.5, bounds=(0, 1)) < 0.01


def test_interval_of_constant_values_touches_the_bound_they_lie_on():
    assert ends([0.0] * 50)[0] == 0
    assert ends([1.0] * 50)[1] == 1
    assert ends([-1.0] * 50, bounds=(-1, 1))[0] == -1


def test_hundred_zeros_bound_the_mean_nearly_as_well_as_if_it_had_been_planned():
    exact = 1 - 0.025**0.01  # Clopper-Pearson at one look
    assert exact < ends([0.0] * 100)[1] < 1.6 * exact


def test_no_values_leave_everything_open():
    estimate = confidence_sequence([], level=0.95, bounds=(-1, 1))
    assert (estimate.low, estimate.high, estimate.n) == (-1, 1, 0)
    assert isnan(estimate.point)
    assert p_value([], 0, bounds=(-1, 1)) == equivalence_p_value([], 0.1, bounds=(-1, 1)) == 1
    assert n_needed([], 0, level=0.95, bounds=(-1, 1)) is None


def test_margins_on_the_bounds_are_decided_by_what_is_possible():
    assert p_value([0.0] * 9, 0, bounds=(0, 1)) == 1
    assert p_value([0.0] * 9 + [0.5], 0, bounds=(0, 1)) == 0  # a mean of zero allows no positive value at all
    assert p_value([1.0] * 99, 1, bounds=(0, 1)) == 1
    assert n_needed([0.0] * 9, 0, level=0.95, bounds=(0, 1)) is None


def test_values_off_by_rounding_are_taken_as_the_bound():
    assert ends([1 + 1e-7, 1.0, -1e-7]) == ends([1.0, 1.0, 0.0])


@pytest.mark.parametrize("bad", [nan, inf, -inf, 1.001, -0.5])
@pytest.mark.parametrize(
    "ask",
    [
        lambda values: confidence_sequence(values, level=0.95),
        lambda values: p_value(values, 0.5, bounds=(0, 1)),
        lambda values: equivalence_p_value(values, 0.5, bounds=(0, 1)),
        lambda values: n_needed(values, 0.5, level=0.95, bounds=(0, 1)),
    ],
    ids=["interval", "p", "equivalence", "n_needed"],
)
def test_values_that_cannot_be_are_refused_with_their_position(ask, bad):
    with pytest.raises(ValueError, match=rf"within bounds \(0.*\), got {bad} at position 2"):
        ask([0.1, 0.2, bad, 0.3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 95}, r"level must be in \(0, 1\), got 95"),
        ({"level": 1.0}, "level must be"),
        ({"bounds": (1.0, 0.0)}, "bounds must be two finite numbers in increasing order"),
        ({"bounds": (0.0, inf)}, "bounds must be"),
        ({"counts": [0, 2]}, "counts must increase from at least 1 to at most n=3, got"),
        ({"counts": [2, 2]}, "counts must increase"),
        ({"counts": [2, 4]}, "counts must increase"),
    ],
)
def test_impossible_questions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        confidence_sequence([0.1, 0.2, 0.3], **{"level": 0.95} | options)


def test_repeats_are_refused_rather_than_counted_as_units():
    with pytest.raises(ValueError, match=r"one number per unit, got an array of shape \(2, 2\)"):
        confidence_sequence([[0.1, 0.2], [0.3, 0.4]], level=0.95)


def test_a_margin_that_no_value_could_miss_is_refused():
    with pytest.raises(ValueError, match="margin must lie within bounds"):
        p_value([0.5], -0.1, bounds=(0, 1))
    with pytest.raises(ValueError, match="margin must lie within bounds"):
        n_needed([0.5], 1.1, level=0.95, bounds=(0, 1))
    for margin in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="margin must be positive"):
            equivalence_p_value([0.5], margin, bounds=(-1, 1))


@pytest.mark.parametrize(
    ("pattern", "margin", "direction"),
    [
        ([1.0, 1.0, 0.0], 0.5, "above"),
        ([0.0, 0.0, 0.0, 0.0, 1.0], 0.5, "above"),
        ([0.03, -0.03], 0.1, "within"),
        ([0.4, 0.2], 0.1, "within"),
        ([-0.4, -0.2], 0.1, "within"),
    ],
)
def test_n_needed_is_where_values_that_go_on_as_they_began_decide(pattern, margin, direction):
    def decided(n):
        low, high = ends((pattern * n)[:n], bounds=(-1, 1))
        if direction == "above":
            return low > margin or high < margin
        return (-margin < low and high < margin) or low > margin or high < -margin

    needed = n_needed(pattern * 2, margin, level=0.95, bounds=(-1, 1), direction=direction)
    assert needed > 2 * len(pattern)
    assert decided(-(-needed // len(pattern)) * len(pattern))  # whole repetitions: the mean is that of the pattern
    assert not decided((needed - 1) // len(pattern) * len(pattern))


def test_n_needed_asks_for_at_least_one_more_and_gives_up_where_there_is_no_effect():
    assert n_needed([1.0] * 500, 0.5, level=0.95, bounds=(0, 1)) == 501
    assert n_needed([0.0, 1.0] * 50, 0.5, level=0.95, bounds=(0, 1)) is None
    assert n_needed([0.0, 1.0] * 50, 0.5001, level=0.95, bounds=(0, 1)) is None  # over ten million


def test_n_needed_grows_with_the_family():
    values = [1.0, 1.0, 0.0] * 5
    alone, together = (
        n_needed(values, 0.5, level=level, bounds=(0, 1)) for level in (0.95, simultaneous_level(0.95, 20))
    )
    assert alone < together < 3 * alone


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 200])
@pytest.mark.parametrize("name", POPULATIONS)
def test_interval_is_at_most_a_fifth_wider_than_with_the_bets_of_the_paper(name, n):
    population, breaks = POPULATIONS[name], 300
    smallest, largest = population.bounds
    x = (population.draw(np.random.default_rng(0), (10, n)) - smallest) / (largest - smallest)
    ours = theirs = 0
    for row in x:
        low, high = ends(row)
        ours += floor(high * breaks) - ceil(low * breaks)  # on the grid of the transcription, or the grid would decide
        low, high = scanned_interval(row, lambda v, m: plug_in_capitals(v, m, 0.05), alpha=0.05, breaks=breaks)
        theirs += round((high - low) * breaks)
    assert ours <= 1.2 * theirs
