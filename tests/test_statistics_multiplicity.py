from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camcore.statistics import holm, simultaneous_level
from tests.oracles.holm import holm_rejects

families = st.lists(st.none() | st.integers(0, 200).map(lambda k: k / 200), max_size=12)
properties = settings(derandomize=True, deadline=None)


def test_level_of_one_claim_is_the_level_and_of_twenty_shares_the_error():
    assert simultaneous_level(0.95, 1) == pytest.approx(0.95, abs=1e-15)
    assert simultaneous_level(0.95, 20) == pytest.approx(0.9975, abs=1e-15)


@pytest.mark.parametrize(("level", "claims"), [(95, 3), (0.95, 0), (1.0, 3)])
def test_a_family_without_claims_or_level_is_refused(level, claims):
    with pytest.raises(ValueError, match=r"got (95|0|1\.0)"):
        simultaneous_level(level, claims)


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@properties
@given(families, st.sampled_from([0.013, 0.053, 0.203, 0.503]))  # levels that no product of the p-values hits
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    rejected = {i for i, p in enumerate(holm(p_values)) if p is not None and p <= level}
    assert rejected == holm_rejects(p_values, level)


@properties
@given(families)
def test_holm_lies_between_the_raw_and_the_bonferroni_value(p_values):
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        if raw is None:
            assert adjusted is None
        else:
            assert raw <= adjusted <= min(1.0, raw * len(p_values))


@properties
@given(families, st.randoms(use_true_random=False))
def test_holm_follows_its_claims_wherever_they_stand(p_values, random):
    order = random.sample(range(len(p_values)), len(p_values))
    adjusted = holm(p_values)
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]


def test_a_missing_answer_costs_what_an_answer_costs():
    assert holm([0.01, None, None]) == [pytest.approx(0.03), None, None]
    assert holm([0.01, 1.0, 1.0])[0] == holm([0.01, None, None])[0]


@pytest.mark.parametrize("bad", [nan, -0.1, 1.1])
def test_holm_refuses_what_is_no_probability(bad):
    with pytest.raises(ValueError, match=rf"got {bad} at position 1"):
        holm([0.5, bad])
