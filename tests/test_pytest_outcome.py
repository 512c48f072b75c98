from typing import Any, Literal

import pytest

from audits.pytest_outcome import conclude, interval, sentence
from camcore.statistics import Estimate
from camcore.verdict import Claim, Outcome, Verdict


def verdict(
    outcome: Outcome,
    *,
    severity: Literal["gate", "warn", "info"] = "gate",
    direction: Literal["above", "within"] = "above",
    low: float = 0.0,
    bare: bool = False,
) -> Verdict:
    claim = Claim(
        id="wall/leakage[gradcam]",
        sentence="nothing leaks",
        kind="INV",
        measure="share",
        unit="1",
        margin=0.1,
        margin_source="ours",
        severity=severity,
        bounds=(low, 1.0),
        direction=direction,
    )
    estimate = None if bare else Estimate(point=0.3, low=0.25, high=0.41, level=0.9875, n=64, method="betting")
    return Verdict(claim=claim, outcome=outcome, reason="because", estimate=estimate)


def concluded(given: Verdict) -> tuple[str, dict[str, Any]]:
    """pytest's outcome, and the test's properties."""
    properties: dict[str, Any] = {}
    try:
        conclude(given, None, None, properties.__setitem__)
    except (pytest.fail.Exception, pytest.xfail.Exception, pytest.skip.Exception) as raised:
        return type(raised).__name__, properties
    return "passed", properties


@pytest.mark.parametrize("severity", ["gate", "warn", "info"])
@pytest.mark.parametrize("outcome", Outcome)
def test_only_what_gates_can_fail_a_test(outcome: Outcome, severity: Literal["gate", "warn", "info"]) -> None:
    reached = concluded(verdict(outcome, severity=severity))[0]

    if outcome is Outcome.PASS:
        assert reached == "passed"
    elif outcome is Outcome.NOT_APPLICABLE:
        assert reached == "Skipped"
    else:
        assert reached == ("Failed" if severity == "gate" else "XFailed")


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("outcome", Outcome)
def test_the_true_verdict_travels_in_the_properties_as_strings(outcome: Outcome, bare: bool) -> None:
    properties = concluded(verdict(outcome, bare=bare))[1]

    assert properties == {
        "audit_claim": "wall/leakage[gradcam]",
        "audit_verdict": outcome.value,
        "audit_estimate": "" if bare else "0.300 [0.250, 0.410]",
        "audit_margin": "0.1",
        "audit_reason": "because",
    }
    assert {type(value) for value in properties.values()} == {str}


def test_the_sentence_says_number_interval_level_n_and_what_was_needed() -> None:
    text = sentence(verdict(Outcome.FAIL))

    assert text == (
        "FAIL wall/leakage[gradcam]: nothing leaks - does not hold. "
        "0.300 [0.250, 0.410] (98.75% interval, n=64), needs > 0.1. because."
    )


def test_a_verdict_without_an_estimate_has_no_numbers() -> None:
    given = verdict(Outcome.ERROR, bare=True)

    assert interval(given) == ""
    assert sentence(given) == "ERROR wall/leakage[gradcam]: nothing leaks - could not be judged. because."


def test_equivalence_needs_the_margin_on_both_sides() -> None:
    assert "needs within ±0.1." in sentence(verdict(Outcome.PASS, direction="within", low=-1.0))
    assert "needs < 0.1." in sentence(verdict(Outcome.PASS, direction="within"))


def test_what_would_be_expected_to_fail_fails_where_pytest_expects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under --runxfail `pytest.xfail` does nothing at all."""

    def nothing(_reason: str) -> None:
        """What pytest puts in its place."""

    nothing.Exception = pytest.xfail.Exception  # type: ignore[attr-defined]
    monkeypatch.setattr(pytest, "xfail", nothing)

    assert concluded(verdict(Outcome.FAIL, severity="warn"))[0] == "Failed"
    assert concluded(verdict(Outcome.PASS, severity="warn"))[0] == "passed"
