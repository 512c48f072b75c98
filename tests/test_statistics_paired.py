import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camcore.statistics import cluster_means, paired_differences


def test_differences_are_found_by_name_in_our_order():
    assert paired_differences({"b": 0.75, "a": 0.5}, {"a": 0.25, "b": 1.0}) == [-0.25, 0.25]


def test_differences_of_sequences_go_by_position():
    assert paired_differences([1, 0.5], [0.25, 0.5]) == [0.75, 0.0]


def test_other_units_are_refused_by_name():
    with pytest.raises(ValueError, match="only ours: 'cat 3'; only theirs: 'dog 1', 'dog 2', 'dog 3' and 1 more"):
        paired_differences({"cat 3": 1.0, "x": 1.0}, {"x": 1.0} | {f"dog {k}": 0.0 for k in (1, 2, 3, 4)})
    with pytest.raises(ValueError, match="only ours: 'a'; only theirs: none"):
        paired_differences({"a": 1.0}, {})


def test_other_numbers_of_units_are_refused():
    with pytest.raises(ValueError, match="got 2 and 1 values"):
        paired_differences([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="one mapping and one sequence"):
        paired_differences({"a": 1.0}, [1.0])


def test_repeats_are_averaged_in_order_of_first_appearance():
    assert cluster_means([1, 2, 3, 4], ["b", "a", "b", "b"]) == [8 / 3, 2]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=20), st.integers(1, 5))
def test_repeating_every_unit_alike_changes_nothing(values, times):
    repeated = [value for value in values for _ in range(times)]
    units = [unit for unit in range(len(values)) for _ in range(times)]
    assert cluster_means(repeated, units) == pytest.approx(values, abs=1e-12)


def test_a_value_without_a_cluster_is_refused():
    with pytest.raises(ValueError, match="got 2 values and 1 clusters"):
        cluster_means([1.0, 2.0], ["a"])
