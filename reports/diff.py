"""Two runs beside each other: which verdicts changed, what moved, and what cannot be compared.

Models are paired by their ids; where each run has only one, those two are, however they are called. Claims are paired
by their ids. Whatever differs in data, seed, profile, version of the audit or measure is not comparable: its verdicts
are still shown, its numbers are not subtracted.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from reports.paired import Paired, paired
from reports.schema import Claim, Results, Subject
from reports.terms import SHORT, apart, hashes, terms

RANK = {"PASS": 2, "INCONCLUSIVE": 1, "ERROR": 1, "FAIL": 0}  # of one answer against another; N/A answers nothing


@dataclass(frozen=True, kw_only=True)
class Change:
    """A claim that both runs judged."""

    old: Claim
    new: Claim
    apart: tuple[str, ...]  # why the numbers are not comparable; empty if they are
    paired: Paired | None  # None when they are not, or when nothing was measured
    tested: str  # what the new run itself says of the claim beside the old run; empty if it was not asked

    @property
    def turned(self) -> bool:
        """Whether the verdict is another, or counts for another (waivers, a baseline)."""
        return (self.old.verdict, self.old.counts) != (self.new.verdict, self.new.counts)

    @property
    def worse(self) -> bool:
        """Whether a claim that gates in one of the runs is answered worse than it was.

        A claim that passed and gates no more, or no more applies, is not shown any longer: that is worse as well. So is
        one that did not apply, kept nobody back, and now gates and does not pass. One that is answered as before and
        gates by now is not: the policy changed, and not the answer.
        """
        if self.old.gates and self.old.counts == "PASS":
            return self.new.counts != "PASS" or not self.new.gates
        if self.old.counts == "NOT_APPLICABLE":
            return self.new.holds_back
        if self.old.counts not in RANK or self.new.counts not in RANK:
            return False
        return (self.old.gates or self.new.gates) and RANK[self.new.counts] < RANK[self.old.counts]

    @property
    def judged_otherwise(self) -> list[str]:
        """What the policy has changed about it."""
        pairs = [("margin", f"{self.old.margin:g}", f"{self.new.margin:g}")]
        pairs += [("severity", self.old.severity, self.new.severity)]
        return [f"{what} {old}, then {new}" for what, old, new in pairs if old != new]


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What became of a run's claims in another."""

    old: Results
    new: Results
    models: tuple[tuple[str, str], ...]  # ids of those that are compared
    provenance: tuple[tuple[str, str, str], ...]  # what, of old, of new
    changes: tuple[Change, ...]  # verdicts that changed come first, then what moved most
    gone: tuple[Claim, ...]
    come: tuple[Claim, ...]

    @property
    def turned(self) -> tuple[Change, ...]:
        """Claims whose verdict changed."""
        return tuple(change for change in self.changes if change.turned)

    @property
    def moved(self) -> tuple[Change, ...]:
        """Claims of which some unit's value changed."""
        return tuple(c for c in self.changes if c.paired and any(unit.change for unit in c.paired.units))

    @property
    def unlike(self) -> tuple[Change, ...]:
        """Claims whose numbers are not comparable."""
        return tuple(change for change in self.changes if change.apart)

    @property
    def worse(self) -> tuple[Claim, ...]:
        """Claims that gate and are answered worse than before, or passed and are gone, or are new and do not pass."""
        return (*(change.new for change in self.changes if change.worse), *self.dropped, *self.added)

    @property
    def dropped(self) -> tuple[Claim, ...]:
        """Claims that gated and passed, and are not asked any more."""
        return tuple(claim for claim in self.gone if claim.gates and claim.counts == "PASS")

    @property
    def added(self) -> tuple[Claim, ...]:
        """Claims that only the new run judged, that gate and do not pass, where the old run passed as a whole.

        Nothing kept that release back, and they keep this one: that counts as worse, though nobody knows what they
        would have been then (of another model, say, or of a longer policy). Where the old run did not pass they may be
        among what it was not asked, and a whole run is no worse than a part of it.
        """
        if self.old.verdict != "PASS":
            return ()
        return tuple(claim for claim in self.come if claim.holds_back)


def diff(old: Results, new: Results) -> Diff:
    """Compare two runs."""
    models = _models(old, new)
    named = dict(models)
    before = {(named.get(claim.subject, claim.subject), claim.id): claim for claim in old.claims}
    after = {(claim.subject, claim.id): claim for claim in new.claims}
    changes = [_change(old, new, before[key], claim) for key, claim in after.items() if key in before]
    return Diff(
        old=old,
        new=new,
        models=models,
        provenance=tuple((*item,) for item in _provenance(old, new, models)),
        changes=tuple(sorted(changes, key=_order)),
        gone=tuple(claim for key, claim in before.items() if key not in after),
        come=tuple(claim for key, claim in after.items() if key not in before),
    )


def _models(old: Results, new: Results) -> tuple[tuple[str, str], ...]:
    before, after = ([subject.id for subject in run.subjects] for run in (old, new))
    if len(before) == len(after) == 1:
        return ((before[0], after[0]),)
    return tuple((name, name) for name in before if name in after)


def _change(old: Results, new: Results, before: Claim, after: Claim) -> Change:
    unlike = tuple(apart(terms(old, before), terms(new, after)))
    beside = after.baseline
    return Change(
        old=before,
        new=after,
        apart=unlike,
        paired=paired(before, after) if not unlike and before.values and after.values else None,
        tested=beside.said if beside is not None and beside.run == old.run.id else "",
    )


def _order(change: Change) -> tuple[bool, bool, bool, bool, float]:
    """Verdicts that changed, of those what gates and got worse; then what moved, by the share of its range."""
    numbers = change.paired
    share = 0.0 if numbers is None or numbers.mean is None else abs(numbers.mean) / numbers.scale
    gates = change.old.gates or change.new.gates
    return (not change.turned, not change.worse, not gates, not (numbers and numbers.moved), -share)


def _provenance(old: Results, new: Results, models: tuple[tuple[str, str], ...]) -> Iterable[tuple[str, str, str]]:
    """What else differs between the runs: each may be the reason for whatever moved."""
    runs = (_told_of_run(old), _told_of_run(new))
    for what in dict.fromkeys([*runs[0], *runs[1]]):
        before, after = (told.get(what, "none") for told in runs)
        if before != after:
            yield what, before, after
    first, second = ({subject.id: subject for subject in run.subjects} for run in (old, new))
    for name, other in models:
        pairs = zip(_told_of_model(old, first[name]), _told_of_model(new, second[other]), strict=True)
        for (what, before), (_, after) in pairs:
            if before != after:
                yield f"{other}: {what}" if len(models) > 1 else what, before, after


def _told_of_run(results: Results) -> dict[str, str]:
    run = results.run
    return {
        "git": run.git or "none",
        "seed": str(run.seed),
        "profile": run.profile,
        "policy": f"{run.policy_path} ({run.policy_sha256[:SHORT]})",
        "device": run.device,
        "interrupted": "yes" if run.interrupted else "no",
        **{f"version of {name}": version for name, version in run.versions.items()},
    }


def _told_of_model(results: Results, subject: Subject) -> list[tuple[str, str]]:
    specs = {data.sha256: f"{data.spec} ({data.sha256[:SHORT]}), {data.n} images" for data in results.data}
    return [
        ("name of the model", subject.id),
        ("model", subject.spec),
        ("weights", f"{subject.weights} ({subject.sha256[:SHORT]})"),
        ("architecture", f"{subject.arch}, {subject.n_params:,} parameters"),
        ("target layer", subject.target_layer or "none"),
        ("preprocessing", subject.preprocess),
        ("unsafe opt-ins", "; ".join(subject.unsafe) or "none"),
        ("data", ", ".join(specs.get(sha, sha[:SHORT]) for sha in hashes(results, subject)) or "none"),
    ]
