import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from audits.exact import exact_share


@given(hits=st.lists(st.booleans(), min_size=1, max_size=60), digits=st.integers(1, 4))
def test_a_share_stands_in_its_exact_interval(hits: list[bool], digits: int) -> None:
    exact = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="exact")
    expected = f"{sum(hits) / len(hits):.{digits}f} [{exact.low:.{digits}f}, {exact.high:.{digits}f}]"

    assert exact_share(torch.tensor(hits, dtype=torch.float64), digits=digits) == expected


@pytest.mark.parametrize(
    ("hits", "text"), [([], "none"), ([float("nan")], "none"), ([1.0, float("nan")], "1.00 [0.03, 1.00]")]
)
def test_what_was_not_judged_is_in_no_share(hits: list[float], text: str) -> None:
    assert exact_share(torch.tensor(hits)) == text
