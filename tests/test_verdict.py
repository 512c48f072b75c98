from math import nan

import pytest

from camcore.statistics import Estimate
from camcore.verdict import Claim, Outcome, judge


def claim(direction: str, margin: float) -> Claim:
    return Claim(
        id="a/b[c]",
        sentence="",
        kind="INV",
        measure="",
        unit="",
        margin=margin,
        margin_source="",
        severity="gate",
        direction=direction,  # type: ignore[arg-type]
        bounds=(-1.0, 1.0),
    )


def between(low: float, high: float) -> Estimate:
    return Estimate(point=(low + high) / 2, low=low, high=high, level=0.95, n=9, method="")


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.2, 0.4, Outcome.PASS),
        (0.1, 0.4, Outcome.INCONCLUSIVE),  # touching the margin is not above it
        (0.0, 0.4, Outcome.INCONCLUSIVE),
        (-0.3, 0.1, Outcome.FAIL),
        (-0.3, 0.0, Outcome.FAIL),
        (nan, 0.4, Outcome.ERROR),
        (0.2, nan, Outcome.ERROR),
    ],
)
def test_above_needs_the_whole_interval_above_the_margin(low: float, high: float, outcome: Outcome) -> None:
    assert judge(between(low, high), claim("above", 0.1)) is outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.05, 0.05, Outcome.PASS),
        (0.0, 0.1, Outcome.INCONCLUSIVE),
        (-0.1, 0.0, Outcome.INCONCLUSIVE),
        (-0.2, 0.2, Outcome.INCONCLUSIVE),  # no significant difference is never a pass
        (0.1, 0.3, Outcome.FAIL),
        (-0.3, -0.1, Outcome.FAIL),
        (0.05, 0.3, Outcome.INCONCLUSIVE),
    ],
)
def test_within_needs_the_whole_interval_inside_the_band(low: float, high: float, outcome: Outcome) -> None:
    assert judge(between(low, high), claim("within", 0.1)) is outcome


def test_only_gate_gates() -> None:
    gate = claim("above", 0.1)

    assert gate.gates
    for severity in ("warn", "info"):
        assert not Claim(**{**vars(gate), "severity": severity}).gates
