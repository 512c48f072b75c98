import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from audits.shares import exact_share, share_so_far
from camcore.statistics import confidence_sequence

RUNS, LOOKS = 100, range(16, 129, 4)


@settings(max_examples=20)
@given(hits=st.lists(st.booleans(), min_size=1, max_size=60), digits=st.integers(1, 4))
def test_a_share_stands_in_its_interval(hits: list[bool], digits: int) -> None:
    exact = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="exact")
    betting = confidence_sequence(hits, level=0.95)
    for written, found in ((exact_share, exact), (share_so_far, betting)):
        expected = f"{sum(hits) / len(hits):.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
        assert written(torch.tensor(hits, dtype=torch.float64), digits=digits) == expected


@pytest.mark.parametrize("hits", [[], [float("nan")]])
def test_what_was_not_judged_is_in_no_share(hits: list[float]) -> None:
    more = torch.tensor([*hits, 1.0, 0.0])
    for written in (exact_share, share_so_far):
        assert written(torch.tensor(hits)) == "none"
        assert written(more) == written(more[-2:])


@pytest.mark.slow
def test_who_stops_when_it_looks_good_needs_the_wider_interval() -> None:
    draws = torch.rand(RUNS, max(LOOKS), generator=torch.Generator().manual_seed(0)) < 0.5
    missed = {exact_share: 0, share_so_far: 0}
    for hits in draws.double():
        # two standard errors off one half: certain enough to stop, for somebody who looks again and again
        good = [n for n in LOOKS if abs(hits[:n].mean() - 0.5) > n**-0.5]
        seen = hits[: good[0] if good else max(LOOKS)]
        for written in missed:
            low, high = map(float, re.findall(r"\d\.\d+", written(seen, digits=4))[1:])
            missed[written] += not low <= 0.5 <= high

    assert missed[exact_share] > 0.05 * RUNS
    assert missed[share_so_far] <= 0.05 * RUNS
