"""The audits put to a model in one process, without a session of pytest: what `camcore.testing` opens a door to.

Each test of an audit puts one question through the `ask` that it is given, here as under pytest: the same seeds, the
same journal, the same verdicts. What differs is who is told: nobody raises.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from torch import nn

from audits import catalogue
from audits.ask import Ask
from audits.baseline import Compared
from audits.gate import assemble
from audits.in_hand import How, Model, as_data, as_subject, methods, module_of, spec_of
from audits.journal import Log, finished_claims
from audits.plan import Plan, asking, prepare, subject_ids
from audits.policy import Policy
from audits.question import Question, audit_of
from audits.roles import Given
from audits.waivers import Waived
from camcore.errors import BadInput, one_line
from camcore.subject import Classifier
from camcore.verdict import Verdict
from fixtures.subjects.registry import nearest

R = TypeVar("R")
Record = dict[str, Any]  # a claim, as results.json has it
Conclude = Callable[[Verdict, Waived | None, Compared | None], None]
STOPPED = 2  # exit code of what was interrupted, as pytest has it
WHOLE = "model"  # in the ids of tests, where the method stands if there is one


@dataclass(frozen=True, kw_only=True)
class Session:
    """One model, loaded and ready to be asked."""

    plan: Plan
    log: Log
    called: str  # what the caller would type to do the same, less the audits and the bracket
    fresh: list[Record]  # concluded, and not yet told

    def put(
        self,
        audits: Sequence[str] = (),
        *,
        only: tuple[str, str] | None = None,
        conclude: Conclude = lambda *_: None,
        on_claim: Callable[[Record], object] | None = None,
        on_progress: Callable[[str, int, int], object] | None = None,
    ) -> list[str]:
        """Put questions, each as its test does.

        Args:
            audits: Whose; none named: of all.
            only: The one question to put, by its name, and the method it is about (empty: the model).
            conclude: Called with what `Ask.conclude` is.
            on_claim: Called with the record of each claim that is concluded.
            on_progress: Called with the test's node id, images done and images planned.

        Returns:
            What broke before it put its question.
        """
        (audited,) = self.plan.audited
        modules = catalogue.audit_modules(self.plan.policy)
        broken = []
        for name in audits or modules:
            for title, test in catalogue.tests(modules[name]).items():
                of_map = "cam" in signature(test).parameters
                for cam in audited.cams if of_map else [""]:
                    node_id = f"audits/test_{name}.py::{title}[{audited.id}-{cam or WHOLE}]"
                    if only is not None and cam != only[1]:
                        continue
                    told = None if on_progress is None else _about(on_progress, node_id)
                    ask = asking(
                        self.plan,
                        audited,
                        modules[name].QUESTIONS[0].needs,
                        log=self.log,
                        node_id=node_id,
                        rerun=f"{self.called}, audits=[{name!r}])",
                        conclude=conclude,
                        watch=told,
                        progress=told,
                    )
                    ask = ask if only is None else OnlyOne(**vars(ask), only=only[0])
                    try:
                        with _asked(audited.subject.module, self.plan.device), warnings.catch_warnings():
                            warnings.simplefilter("default")  # a warning of the model's own code is no verdict
                            test(ask, *([cam] if of_map else []))
                    except Exception as problem:  # of the audit itself: what was concluded so far is kept
                        broken.append(f"{node_id}: stopped by {one_line(problem)}")
                    while self.fresh:
                        record = self.fresh.pop(0)
                        if on_claim is not None:
                            on_claim(record)
        return broken


@dataclass(frozen=True, kw_only=True)
class OnlyOne(Ask):
    """An ask that lets all questions pass by but one."""

    only: str

    def __call__(self, question: Question, cam: str = "", **how: Any) -> None:
        """Put the question if it is the one."""
        if question.name == self.only:
            super().__call__(question, cam, **how)


def begin(
    model: Model, how: How, *, report: Path, main: bool, name: str | None = None, resume: bool = False
) -> Session:
    """Load and check everything; a model that is given leaves as it came.

    Args:
        model: A module, a subject or a spec.
        how: What it is shown, and on which terms.
        report: Where the journal is written.
        main: Whether the folder is the caller's, to be made and cleared; else it is a passing one.
        name: What the model is called in the results.
        resume: Go on from the journal that lies there.

    Raises:
        BadInput: In one line.
    """
    spec, module = spec_of(model), module_of(model)
    device = how.device or ("auto" if module is None else _where(module))
    with _as_it_came(module):
        subject = None if isinstance(model, str) else as_subject(model, spec, how)
        if isinstance(subject, Classifier) and how.data is None:
            raise BadInput("say what the model is shown: data= a folder, (images, labels) or 'scenes'")
        given = Given(
            name=subject_ids([f"named:{name}" if name else spec])[0],
            subject=subject,
            cams=methods(spec, how),
            data=as_data(how, subject),
        )
        settings = how.settings(spec, report, device=device, resume=resume)
        plan = prepare(settings, batch_sizes={}, main=main, given=given)
    fresh: list[Record] = []
    log = Log(report, "master", run=uuid4().hex, resume=resume, on_claim=fresh.append)
    shown = repr(model) if isinstance(model, str) else f"<{spec.partition(':')[2] or spec}>"
    called = f"audit_model({', '.join([shown, *how.said])}"
    return Session(plan=plan, log=log, called=called, fresh=fresh)


def audit(
    model: Model,
    how: How,
    *,
    audits: Sequence[str],
    report: Path,
    main: bool,
    name: str | None,
    resume: bool,
    on_claim: Callable[[Record], object] | None,
    on_progress: Callable[[str, int, int], object] | None,
    finish: Callable[[dict[str, Any]], R],
) -> R:
    """Put the questions; returns what `finish` makes of what results.json holds.

    It is called as well before anything that stops the audit on its way is let out.
    """
    started = time.monotonic()
    session = begin(model, how, report=report, main=main, name=name, resume=resume)
    check_audits(audits, session.plan.policy)

    def results(broken: Sequence[str], *, interrupted: bool) -> dict[str, Any]:
        found = assemble(
            session.plan,
            finished_claims(report, run=session.log.run, interrupted=interrupted),
            command=f"{session.called}{f', audits={[*audits]}' if audits else ''})",
            seconds=time.monotonic() - started,
            interrupted=STOPPED if interrupted else 0,
        )
        return found | {"not_tested": [*broken, *found["not_tested"]]}

    try:
        broken = session.put(audits, on_claim=on_claim, on_progress=on_progress)
    except BaseException:  # Ctrl-C, or the caller's own function
        finish(results([], interrupted=True))
        raise
    return finish(results(broken, interrupted=False))


def check_audits(audits: Sequence[str], policy: Policy) -> None:
    """Raises BadInput if one of them is none."""
    if isinstance(audits, str):
        raise BadInput(f"audits must be a list of names, got {audits!r}; write [{audits!r}]")
    known = dict.fromkeys(map(audit_of, policy.claims))
    for name in audits:
        if name not in known:
            raise BadInput(f"there is no audit {name!r}; {nearest(name, known)}")


def _where(module: nn.Module) -> str:
    parameter = next(module.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)


@contextmanager
def _as_it_came(module: nn.Module | None) -> Iterator[None]:
    """Whatever is done inside, the caller's module is in the mode and on the device that it was in."""
    if module is None:
        yield
        return
    modes, device = [(part, part.training) for part in module.modules()], _where(module)
    try:
        yield
    finally:
        module.to(device)
        for part, training in modes:
            part.training = training


@contextmanager
def _asked(module: nn.Module, device: str) -> Iterator[None]:
    """In eval mode, on the device."""
    with _as_it_came(module):
        module.eval().to(device)
        yield


def _about(on_progress: Callable[[str, int, int], object], node_id: str) -> Callable[..., None]:
    def tell(done: int, planned: int, *_: object) -> None:
        on_progress(node_id, done, planned)

    return tell
