"""`parametrize_with_audits`: every claim about a model a test of its own, in somebody else's suite."""

import atexit
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from audits import catalogue
from audits.baseline import Compared
from audits.extensions import Extension, loaded, registered
from audits.in_hand import How, methods, spec_of
from audits.in_process import Session, begin, check_audits
from audits.plan import subject_ids
from audits.policy import ANY, load_policy
from audits.pytest_outcome import conclude, sentence
from audits.question import audit_of, claim_id
from audits.waivers import Waived
from camcore.errors import BadInput
from camcore.subject import Subject
from camcore.verdict import Outcome, Verdict
from fixtures.subjects.registry import nearest

ARGUMENTS = ("model", "claim")


def parametrize_with_audits(
    models: Sequence[Any] | Mapping[str, Any],
    *,
    audits: Sequence[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    plugins: Sequence[Any] = (),
    **how: Any,
) -> pytest.MarkDecorator:
    """See `camcore.testing.parametrize_with_audits`."""
    terms = How(**how)
    expected = dict(expected_failures or {})
    named = _named(models)
    extensions = tuple(registered(plugins))
    with loaded(extensions):
        policy = load_policy(None if terms.policy is None else Path(terms.policy), profile=terms.profile)
        check_audits(audits, policy)
        listed = {
            name: [
                (question, cam, claim_id(question, cam))
                for question, of_map in ((one.name, one.of_map) for one in catalogue.questions(policy).values())
                if not audits or audit_of(question) in audits
                for cam in (methods(_spec(model), terms) if of_map else [""])
            ]
            for name, model in named.items()
        }
    known = dict.fromkeys(claim for claims in listed.values() for _, _, claim in claims)
    for claim, reason in expected.items():
        if claim not in known and claim not in {_any(one) for one in known}:
            raise BadInput(f"{claim!r} is expected to fail, which is no claim that is asked; {nearest(claim, known)}")
        if not isinstance(reason, str) or not reason.strip():
            raise BadInput(f"{claim!r} is expected to fail: say why, got {reason!r}")
    sessions = Sessions(how=terms, extensions=extensions)
    cases = [
        pytest.param(
            model,
            AskedClaim(
                id=claim,
                question=question,
                cam=cam,
                name=name,
                expected=expected.get(claim) or expected.get(_any(claim)),
                sessions=sessions,
            ),
            id=re.sub(r"[^\w.]+", "-", f"{name}-{claim}").strip("-"),
        )
        for name, model in named.items()
        for question, cam, claim in listed[name]
    ]
    cases += [
        pytest.param(
            model,
            RequiredAudit(audit=audit, name=name, alone=len(named) == 1, sessions=sessions),
            id=re.sub(r"[^\w.]+", "-", f"{name}-required-{audit}").strip("-"),
        )
        for name, model in named.items()
        for audit in policy.required
        if not audits or audit in audits
    ]
    return pytest.mark.parametrize(ARGUMENTS, cases)


@dataclass(kw_only=True)
class Sessions:
    """Models that are loaded, each when its first claim is asked: their claims share what is measured."""

    how: How
    extensions: tuple[Extension, ...]
    begun: list[tuple[Any, Session]] = field(default_factory=list)

    def of(self, model: Any, name: str) -> Session:
        """A model's, begun if need be; a function is called for its model."""
        for known, session in self.begun:
            if known is model:
                return session
        folder = Path(tempfile.mkdtemp(prefix="camcore-audits-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        session = begin(model() if _makes(model) else model, self.how, report=folder, main=False, name=name)
        self.begun.append((model, session))
        return session


@dataclass(frozen=True, kw_only=True)
class AskedClaim:
    """One claim about one model; call it with the model, and the test ends as the claim does."""

    id: str  # as in a report: "deletion/beats_random[hirescam]"
    question: str
    cam: str  # empty: about the model itself
    name: str  # of the model
    expected: str | None  # why it is known to fail
    sessions: Sessions = field(repr=False)

    def __call__(self, model: Any) -> Verdict:
        """Put the claim to a model.

        Returns:
            The verdict, if it is PASS.

        Raises:
            pytest.fail.Exception, pytest.xfail.Exception, pytest.skip.Exception: As `pytest audits` has it: what gates
                and does not pass fails, what does not gate and does not pass is xfailed, what does not apply is
                skipped. A failure that is expected is xfailed, and fails if it is none.
        """
        __tracebackhide__ = True
        told: list[tuple[Verdict, Waived | None, Compared | None]] = []
        try:
            with loaded(self.sessions.extensions):
                broken = self.sessions.of(model, self.name).put(
                    [audit_of(self.question)], only=(self.question, self.cam), conclude=lambda *one: told.append(one)
                )
        except BadInput as problem:
            pytest.fail(str(problem), pytrace=False)
        if not told:
            pytest.fail(f"{self.id}: no verdict. {'; '.join(broken)}".strip(), pytrace=False)
        verdict, waived, beside = told[0]
        if self.expected is not None:
            text = f"expected to fail ({self.expected}): {sentence(verdict)}"
            if verdict.outcome is Outcome.FAIL:
                pytest.xfail(text)
            if verdict.outcome is Outcome.PASS:
                pytest.fail(f"{text} Take it off the list.", pytrace=False)
        conclude(verdict, waived, beside, lambda _name, _value: None)
        return verdict


@dataclass(frozen=True, kw_only=True)
class RequiredAudit:
    """An audit that the policy requires; call it with the model, and it fails if no claim of it has a verdict.

    Each claim by itself may not apply, and is skipped: all of them skipped would be no failure.
    """

    audit: str
    name: str  # of the model
    alone: bool  # whether no other model could answer
    sessions: Sessions = field(repr=False)

    def __call__(self, model: Any) -> None:
        """Put the whole audit, of which what was asked before is known.

        Raises:
            pytest.fail.Exception, pytest.skip.Exception: There is no verdict; or the model is not of the kind that the
                audit is about, and others are asked.
        """
        __tracebackhide__ = True
        told: list[Verdict] = []
        try:
            with loaded(self.sessions.extensions):
                session = self.sessions.of(model, self.name)
                session.put([self.audit], conclude=lambda verdict, *_: told.append(verdict))
                needs = catalogue.audit_modules(session.plan.policy)[self.audit].QUESTIONS[0].needs
                able = needs in session.plan.audited[0].roles
        except BadInput as problem:
            pytest.fail(str(problem), pytrace=False)
        if any(one.outcome not in (Outcome.NOT_APPLICABLE, Outcome.ERROR) for one in told):
            return
        if not able and not self.alone:
            pytest.skip(f"{self.audit} is not about what {self.name} does")
        pytest.fail(f"{self.audit}, which the policy requires: no verdict about {self.name}", pytrace=False)


def _named(models: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """The models by ids that a test's name can hold."""
    if isinstance(models, str | nn.Module | Subject) or not isinstance(models, Sequence | Mapping) or not models:
        raise BadInput(f"models must be a list of models, or a mapping from names to models, got {models!r:.100}")
    given = list(models.values() if isinstance(models, Mapping) else models)
    names = [f"named:{name}" for name in models] if isinstance(models, Mapping) else list(map(_called, given))
    return dict(zip(subject_ids(names), given, strict=True))


def _makes(model: Any) -> bool:
    return callable(model) and not isinstance(model, nn.Module | Subject)


def _called(model: Any) -> str:
    return str(getattr(model, "__name__", type(model).__name__)) if _makes(model) else spec_of(model)


def _spec(model: Any) -> str:
    """What stands for the model while it is not loaded."""
    return "module:" if _makes(model) else spec_of(model)


def _any(claim: str) -> str:
    """The claim, of whichever method."""
    return f"{claim.partition('[')[0]}[{ANY}]"
