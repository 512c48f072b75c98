"""Waivers: a claim that does not pass and that someone answers for, by name, until a day, down to a bound.

A waived claim is judged again with the waiver's bound in place of the margin. While that passes, it keeps nobody back:
its verdict stays what it is, and is shown as waived. A waiver that has expired, or whose bound does not hold either,
waives nothing: closed by default.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from audits.policy import Policy, Waiver
from camcore.verdict import Outcome, Verdict, judge


@dataclass(frozen=True, kw_only=True)
class Waived:
    """What a waiver comes to for one verdict."""

    waiver: Waiver
    holds: bool
    said: str  # one sentence for whoever reads the verdict

    def record(self) -> dict[str, Any]:
        """As results.json has it."""
        of = self.waiver
        return {
            "holds": self.holds,
            "said": self.said,
            "bound": of.bound,
            "reason": of.reason,
            "owner": of.owner,
            "expires": of.expires.isoformat(),
        }


def waived(verdict: Verdict, subject: str, waivers: Sequence[Waiver], *, today: date) -> Waived | None:
    """What the first waiver that covers a verdict comes to; None where there is none or the claim passes without.

    An ERROR, or a claim without an estimate, is never waived: nothing was shown of it.
    """
    found = next((one for one in waivers if one.covers(verdict.claim.id, subject)), None)
    if found is None or verdict.outcome not in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR):
        return None
    until = f"until {found.expires} by {found.owner}: {found.reason}"
    if today > found.expires:
        return Waived(waiver=found, holds=False, said=f"was waived {until}; that day is past")
    if verdict.outcome is Outcome.ERROR or verdict.estimate is None:
        return Waived(waiver=found, holds=False, said=f"would be waived {until}; but nothing was shown of it")
    if judge(verdict.estimate, replace(verdict.claim, margin=found.bound)) is not Outcome.PASS:
        return Waived(
            waiver=found,
            holds=False,
            said=f"would be waived {until}; but only down to {found.bound:g}, and the interval does not keep to that",
        )
    return Waived(waiver=found, holds=True, said=f"is waived {until}")


def unmatched(policy: Policy, expected: Iterable[tuple[str, str, str]]) -> list[str]:
    """What is to be said of waivers that are for no claim of the run; `expected` as `audits.gate` lists them."""
    claims = [(name, subject) for subject, name, _ in expected]
    return [
        f"warning: {policy.path}: the waiver of {waiver.claim!r} on {waiver.subject!r} matches no claim of this run"
        for waiver in policy.waivers
        if not any(waiver.covers(*one) for one in claims)
    ]
