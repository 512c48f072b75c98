"""How a verdict becomes one of the outcomes that pytest knows; the true one travels in the test's properties."""

from collections.abc import Callable, Sequence

import pytest

from audits.baseline import SAID, Compared
from audits.waivers import Waived
from audits.xfails import Expected
from camcore.errors import printable
from camcore.verdict import Claim, Outcome, Verdict


def conclude(
    verdict: Verdict, waived: Waived | None, beside: Compared | None, record_property: Callable[[str, object], None]
) -> None:
    """PASS passes; a gating FAIL, INCONCLUSIVE or ERROR fails; N/A is skipped.

    What would fail is xfailed if it does not gate, or if it is waived. What is not shown to be no worse than the
    baseline does not pass either, waived or not.

    Raises:
        pytest.fail.Exception, pytest.xfail.Exception, pytest.skip.Exception: As above.
    """
    __tracebackhide__ = True
    # printable: pytest writes it on the terminal as it is, and a class may be called anything
    text = printable(sentence(verdict) if waived is None else f"{sentence(verdict)} It {waived.said}.")
    # strings only: workers can send nothing else
    record_property("audit_claim", verdict.claim.id)
    record_property("audit_verdict", verdict.outcome.value)
    record_property("audit_estimate", interval(verdict))
    record_property("audit_margin", f"{verdict.claim.margin:g}")
    record_property("audit_reason", printable(verdict.reason))
    no_worse = beside is None or beside.outcome is Outcome.PASS
    if beside is not None:
        record_property("audit_beside", SAID[beside.outcome])
        text = printable(f"{text} It is {beside.said}.")
    if verdict.outcome is Outcome.PASS and no_worse:
        return
    if verdict.outcome is Outcome.NOT_APPLICABLE and no_worse:
        pytest.skip(text)
    if verdict.claim.gates and not (waived is not None and waived.holds and no_worse):
        pytest.fail(text, pytrace=False)
    pytest.xfail(text)
    pytest.fail(text, pytrace=False)  # under --runxfail, which makes of the line above nothing at all


def expect(test: pytest.Item, verdict: Verdict, xfails: Sequence[Expected]) -> None:
    """Mark a test whose claim is listed as expected to fail: pytest tells one that passes from one that does not."""
    for one in xfails:
        if one.covers(verdict.claim.id, test.nodeid):
            test.add_marker(pytest.mark.xfail(reason=one.reason, strict=False))
            return


def interval(verdict: Verdict) -> str:
    """`0.312 [0.270, 0.350]`, or nothing."""
    estimate = verdict.estimate
    return "" if estimate is None else f"{estimate.point:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def needs(claim: Claim) -> str:
    """What the whole interval must do."""
    if claim.direction == "above":
        return f"> {claim.margin:g}"
    return f"< {claim.margin:g}" if claim.bounds[0] >= 0 else f"within ±{claim.margin:g}"


def sentence(verdict: Verdict) -> str:
    """What a stranger needs to know, in one line."""
    claim, estimate = verdict.claim, verdict.estimate
    verb = {
        Outcome.PASS: "holds",
        Outcome.FAIL: "does not hold",
        Outcome.INCONCLUSIVE: "undecided",
        Outcome.ERROR: "could not be judged",
        Outcome.NOT_APPLICABLE: "not applicable",
    }[verdict.outcome]
    numbers = ""
    if estimate is not None:
        numbers = f" {interval(verdict)} ({estimate.level:.2%} interval, n={estimate.n}), needs {needs(claim)}."
    return f"{verdict.outcome.value} {claim.id}: {claim.sentence} - {verb}.{numbers} {verdict.reason}."
