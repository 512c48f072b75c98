"""`--audit-baseline results.json`: is the model no worse than the last release, picture by picture?

Each claim that both runs measured is compared on the pictures that both asked about: the mean of new less old, signed
so that more supports the claim, has to lie wholly above minus what the policy calls worse. That is asked beside the
claim itself, and what gates has to pass both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audits.encode import estimated, recorded_estimate
from camcore import statistics
from camcore.engine import looked_at
from camcore.errors import BadInput
from camcore.verdict import Claim, Outcome, judge

SAID = {
    Outcome.PASS: "no worse than the baseline",
    Outcome.FAIL: "worse than the baseline",
    Outcome.INCONCLUSIVE: "not shown to be no worse than the baseline",
}


DECIDED = {
    Outcome.PASS: "the whole interval of the paired differences lies above that",
    Outcome.FAIL: "the whole interval of the paired differences lies below that",
    Outcome.INCONCLUSIVE: "the interval of the paired differences straddles that; measure both runs in full "
    "(--audit-full)",
}


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The claims of one model in an earlier run."""

    run: str  # its id
    subject: str
    claims: Mapping[str, Mapping[str, Any]]  # by id, as results.json has them

    def measured(self, claim: str) -> bool:
        """Whether it has values of a claim: a model that the claim no longer applies to is not shown to be no worse."""
        return bool(self.claims.get(claim, {}).get("values"))


def find_baseline(
    results: Mapping[str, Any],
    subject: str,
    *,
    only: bool,
    seed: int,
    profile: str,
    per_image: Mapping[str, Any],
    data: Sequence[str],
) -> Baseline:
    """The model of an earlier run that a model is compared with.

    Args:
        results: What results.json holds.
        subject: The model's id.
        only: Whether it is the only model of its run: then the only model of the other is its baseline, however called.
        seed: Of this run; another draws other pictures.
        profile: Of this run.
        per_image: What this run's policy does to each image; values of another number of draws are others.
        data: SHA-256 of all that the model is asked about.

    Raises:
        BadInput: The two are not comparable.
    """
    run, models = results["run"], {one["id"]: one for one in results["subjects"]}
    where = f"the baseline {run['id']!r:.100}"
    if subject not in models and not (only and len(models) == 1):
        raise BadInput(f"{where} has no model {subject!r}; it has {', '.join(map(repr, models))}: not comparable")
    found = models[subject] if subject in models else next(iter(models.values()))
    for what, ours, theirs in (("seed", seed, run["seed"]), ("profile", profile, run["profile"])):
        if ours != theirs:
            raise BadInput(
                f"{where} was run with {what} {theirs!r:.100}, this run with {ours!r}: not comparable; use the same"
            )
    if run["per_image"] != per_image:
        raise BadInput(
            f"{where} did more or less to each image (draws, steps of attacks: run.per_image) than this run's policy "
            f"asks for under the profile {profile!r}: not comparable; use the same policy, or make the baseline anew"
        )
    if sorted(data) != sorted(found.get("data") or ()):
        raise BadInput(f"{where} asked {found['id']!r} about other data: not comparable; use the same --data")
    claims = {claim["id"]: claim for claim in results["claims"] if claim["subject"] == found["id"]}
    return Baseline(run=run["id"], subject=found["id"], claims=claims)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What beside a baseline a claim comes to."""

    outcome: Outcome
    reason: str  # one sentence
    baseline: Baseline
    worse: float = 0.0  # as much less as is still no worse, in the measure's unit
    estimate: statistics.Estimate | None = None  # of new less old
    mcnemar: float | None = None  # two-sided exact p, where both sides are outcomes

    @property
    def said(self) -> str:
        """For whoever reads the verdict."""
        numbers = ""
        if self.estimate is not None:
            one = self.estimate
            numbers = f" by {one.point:+.3f} [{one.low:+.3f}, {one.high:+.3f}], needs > {-self.worse:g}, n={one.n}"
        return f"{SAID[self.outcome]} {self.baseline.run}{numbers}: {self.reason}"

    def record(self) -> dict[str, Any]:
        """As results.json has it."""
        return {
            "run": self.baseline.run,
            "subject": self.baseline.subject,
            "verdict": self.outcome.value,
            "said": self.said,
            "worse": self.worse,
            "estimate": estimated(self.estimate),
            "mcnemar": self.mcnemar,
        }


def compared(
    claim: Claim,
    values: Mapping[str, float | None],
    version: str,
    baseline: Baseline,
    *,
    worse: float,
    level: float,
    least: int,
) -> Compared:
    """One claim beside its baseline.

    Args:
        claim: Of both runs.
        values: Unit -> value of this run.
        version: Of its audit.
        baseline: The model to compare with.
        worse: Share of the range of the claim's values: less than that is no worse.
        level: Of the interval.
        least: Pictures that both must have.
    """
    old = baseline.claims.get(claim.id)
    if old is None or not values or not old["values"]:
        return _undecided(baseline, "one of the two did not measure it")
    if old["audit_version"] != version:
        theirs = old["audit_version"]
        return _undecided(baseline, f"measured by version {theirs!r} of the audit, and this is {version!r}")
    before = dict(zip(old["units"], old["values"], strict=True))
    both = [unit for unit in values if unit in before]
    if len(both) < least:
        return _undecided(baseline, f"both measured {len(both)} of the same units, at least {least} are needed")
    new = [_supporting(values[unit], claim) for unit in both]
    differences = [one - _supporting(before[unit], claim) for one, unit in zip(new, both, strict=True)]
    low, high = _range(claim)
    estimate = statistics.confidence_sequence(
        differences, level=level, bounds=(low - high, high - low), counts=looked_at(len(both), least=least)
    )
    mcnemar = _mcnemar([values[unit] for unit in both], [before[unit] for unit in both])
    return _decided(claim, estimate, baseline, worse=worse, mcnemar=mcnemar)


def compared_again(record: Mapping[str, Any], claim: Claim, *, worse: float, level: float) -> dict[str, Any]:
    """The record of a comparison (`Compared.record`), judged by what counts as worse now.

    The baseline is not read again. The interval is that of then: at a higher level it shows nothing.
    """
    baseline = Baseline(run=record["run"], subject=record["subject"], claims={})
    found = record["estimate"]
    if found is None:
        return dict(record)
    if found["level"] < level - 1e-9:
        why = f"its interval is one of {found['level']:.2%}, and {level:.2%} are asked for; run the audit again"
        return _undecided(baseline, why).record()
    return _decided(claim, recorded_estimate(found), baseline, worse=worse, mcnemar=record["mcnemar"]).record()


def _decided(
    claim: Claim, estimate: statistics.Estimate, baseline: Baseline, *, worse: float, mcnemar: float | None
) -> Compared:
    """What an interval of new less old comes to."""
    low, high = _range(claim)
    margin = worse * (high - low)
    outcome = judge(estimate, replace(claim, margin=-margin, direction="above"))
    return Compared(
        outcome=outcome, reason=DECIDED[outcome], baseline=baseline, worse=margin, estimate=estimate, mcnemar=mcnemar
    )


def _undecided(baseline: Baseline, why: str) -> Compared:
    return Compared(outcome=Outcome.INCONCLUSIVE, reason=f"not comparable: {why}", baseline=baseline)


def _supporting(value: float | None, claim: Claim) -> float:
    """A value signed so that more supports the claim; what could not be measured is the worst there is."""
    low, high = _range(claim)
    if value is None or not np.isfinite(value):
        return low
    return min(max(-abs(value) if claim.direction == "within" else value, low), high)


def _range(claim: Claim) -> tuple[float, float]:
    low, high = claim.bounds
    return (-max(abs(low), abs(high)), 0.0) if claim.direction == "within" else (low, high)


def _mcnemar(new: Sequence[float | None], old: Sequence[float | None]) -> float | None:
    """Exact two-sided p of "as many turned right as turned wrong" (McNemar 1947); None where values are no outcomes."""
    pairs = list(zip(new, old, strict=True))
    if any(value not in (0.0, 1.0) for pair in pairs for value in pair):
        return None
    from scipy.stats import binomtest  # slow to import, and every run would

    better = sum(one == 1 and other == 0 for one, other in pairs)
    changed = sum(one != other for one, other in pairs)
    return float(binomtest(better, changed, 0.5).pvalue) if changed else 1.0
