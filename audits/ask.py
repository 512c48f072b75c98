"""`ask`: put one question to one subject, journal it, and keep the record that results.json is made of."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from audits.baseline import Baseline, Compared, compared
from audits.encode import claim_record, described, recorded_estimate
from audits.journal import CUT_SHORT, VANISHED, Journal, Log, Unwritable
from audits.policy import Policy
from audits.question import Question
from audits.waivers import Waived, waived
from camcore.cam import CamMethod
from camcore.cost import Cost, metered
from camcore.engine import OUT_OF_TIME, Doubt, Measure, Show, Terms, Watch, evaluate, shuffled
from camcore.errors import Undefined, Unreliable, one_line
from camcore.images import Dataset, Images, Progress, load
from camcore.imagetext import CaptionScorer, TwoTowers
from camcore.subject import Ability
from camcore.verdict import Claim, Outcome, Verdict
from fixtures.artefacts import Artefact
from fixtures.controls.registry import control_of
from fixtures.datasets.binding_scenes import Bindings
from fixtures.datasets.captions import Captions
from fixtures.datasets.cue_conflict import Conflicts
from fixtures.datasets.grounding_scenes import GroundingScenes
from fixtures.datasets.phrases import Phrases

Premise = Callable[[Images], Mapping[str, Any]]
Among = Callable[[Dataset, Mapping[str, Any]], Dataset]
LATE = f"{OUT_OF_TIME} before anything was measured; the profile grants no more seconds"
PROBES = 4  # images that a premise is established on


@dataclass(frozen=True, kw_only=True)
class Established:
    """What a premise gave, and what it cost."""

    given: Mapping[str, Any]
    cost: Cost
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Everything a question needs to be put to one subject; calling it puts the question."""

    subject: Any  # in the role that the question needs, if the model has it
    ability: Ability = "classes"  # what it is asked as
    dataset: Dataset
    cams: Mapping[str, CamMethod]
    policy: Policy
    terms: Terms
    log: Log
    profile: str
    rerun: str  # what repeats the claim, as one would type it
    node_id: str
    conclude: Callable[[Verdict, Waived | None, Compared | None], None]  # tells pytest
    premises: dict[str, Established] = field(default_factory=dict)  # shared by all questions to the subject
    bindings: Bindings | None = None  # drawn groups of pictures and captions, if the model scores captions
    captions: Captions | None = None  # the same, or what the user brings
    scenes: GroundingScenes | None = None  # groups of pictures with phrases, if the model finds what they name
    phrases: Phrases | None = None  # or photographs of the user's with phrases
    artefacts: Sequence[Artefact] = ()  # what is stuck into pictures when bias is looked for
    conflicts: Conflicts | None = None  # pictures with two cues, if there are any for the model's classes
    undefined: Mapping[str, str] = field(default_factory=dict)  # why a chosen method has no maps of this model
    watch: Watch | None = None  # told how the measuring goes
    progress: Progress | None = None  # told how a search goes that comes before it
    baseline: Baseline | None = None  # an earlier run, that the model must not be worse than
    full: bool = False  # whether what gates is measured on all images, certain or not
    until: float | None = None  # of `time.monotonic()`: nothing is begun later

    @property
    def defined(self) -> Mapping[str, CamMethod]:
        """The chosen methods that the model has maps of: what one measurement serves."""
        if self.subject.target_layer is None:
            return {}
        return {name: cam for name, cam in self.cams.items() if name not in self.undefined}

    def __call__(
        self,
        question: Question,
        cam: str = "",
        *,
        measure: Callable[..., Mapping[str, torch.Tensor]],
        column: str,
        show: Callable[..., Any],
        version: str,
        premise: Premise | None = None,
        among: Among | None = None,
        doubt: Doubt | None = None,
        apart: str = "",
        early: bool = True,
    ) -> None:
        """Put the question and conclude.

        Args:
            question: What is claimed.
            cam: For which of the chosen methods; empty if it is about the model itself.
            measure: As `camcore.engine.Measure`, with room for what the premise gives.
            column: The measure's column that the claim is about.
            show: As `camcore.engine.Show`, likewise.
            version: Of the audit: part of the key of everything journalled.
            premise: What must hold before the question makes sense, established on a few images; what it returns is
                handed to measure and show by keyword. If it raises `Undefined`, the question does not apply and the
                verdict is NOT APPLICABLE; if `Unreliable`, INCONCLUSIVE; if anything else, ERROR.
            among: Which of the images the claim is about, once the premise has been established; all, if not given.
            doubt: As `camcore.engine.Doubt`.
            apart: What the claim is about, where an audit's claims share neither a premise nor measured rows; claims
                with the same word share both.
            early: Whether a verdict that is certain stops the measuring; not where what is shown beside it is quoted as
                the score of a whole set.
        """
        claim = question.claim(cam, self.policy.claims[question.name])
        measurement = self._key(question.audit, version, apart)
        # the name: two models of one run may be the same, and each has a verdict of its own
        terms = (self.policy.sha256, self.terms.level, self.terms.budget, self.full or self.baseline is not None)
        key = "|".join(map(str, (measurement, self.subject.name, claim.id, *terms)))
        known = self.log.claims.get(key)
        if known is not None and known.keys() == _keys(claim) and not _to_be_tried_again(known):
            self._conclude(key, concluded(claim, known), known)
            return
        in_full = claim.gates and (self.full or self.baseline is not None)
        asked = replace(self, terms=replace(self.terms, early=False)) if in_full or not early else self
        recorded = partial(
            claim_record,
            subject=self.subject.name,
            node_id=self.node_id,
            version=version,
            rerun=self.rerun,
        )
        verdict = Verdict(claim=claim, outcome=Outcome.ERROR, reason=VANISHED)
        with suppress(Unwritable):  # what cannot be journalled is told where the first row cannot
            self.log.begin(key, recorded(verdict))

        def watched(done: int, planned: int, so_far: Verdict) -> None:
            nonlocal verdict
            verdict = so_far
            if self.watch is not None:
                self.watch(done, planned, so_far)

        try:
            verdict = replace(asked, watch=watched)._verdict(
                question,
                claim,
                cam,
                measurement=measurement,
                premise_key=f"{question.audit} {apart}",
                premise=premise,
                among=among,
                measure=measure,
                column=column,
                doubt=doubt,
                show=show,
            )
        except KeyboardInterrupt:
            seen = f"after {len(verdict.values)} images" if verdict.values else "before enough images were measured"
            stopped = replace(
                verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{CUT_SHORT} {seen}; --audit-resume goes on"
            )
            with suppress(Unwritable):
                self.log.claim(key, recorded(stopped))
            raise
        self._conclude(key, verdict, recorded(verdict))

    def _conclude(self, key: str, verdict: Verdict, record: Mapping[str, Any]) -> None:
        """Journal the record and tell pytest, with what a waiver and a baseline come to."""
        found = waived(verdict, self.subject.name, self.policy.waivers, today=datetime.now(UTC).date())
        beside = self._compared(verdict, record)
        also = {
            "waiver": None if found is None else found.record(),
            "baseline": None if beside is None else beside.record(),
        }
        try:
            self.log.claim(key, {**record, **also})
        except Unwritable as problem:  # and no other OSError: who is told of the claim may have lost a connection
            verdict, found = replace(verdict, outcome=Outcome.ERROR, reason=f"the verdict is lost: {problem}"), None
        self.conclude(verdict, found, beside)

    def _compared(self, verdict: Verdict, record: Mapping[str, Any]) -> Compared | None:
        """What the claim comes to beside the baseline, if there is one; what applied to neither has no comparison."""
        if self.baseline is None or verdict.outcome is Outcome.ERROR:
            return None
        if verdict.outcome is Outcome.NOT_APPLICABLE and not self.baseline.measured(verdict.claim.id):
            return None
        return compared(
            verdict.claim,
            # in doubt: nothing was shown that could be no worse
            {} if record["estimate"] is None else dict(zip(record["units"], record["values"], strict=True)),
            record["audit_version"],
            self.baseline,
            worse=self.policy.worse,
            level=self.terms.level,
            least=self.terms.min_images,
        )

    def _verdict(
        self,
        question: Question,
        claim: Claim,
        cam: str,
        *,
        measurement: str,
        premise_key: str,
        premise: Premise | None,
        among: Among | None,
        measure: Callable[..., Mapping[str, torch.Tensor]],
        column: str,
        doubt: Doubt | None,
        show: Callable[..., Any],
    ) -> Verdict:
        if question.needs != self.ability:
            reason = f"{self.subject.name} scores {self.ability}, and the question is about {question.needs}"
            if question.needs == "classes" and may_classify(self.subject):
                reason += "; --data with named classes asks it through captions of them"
            return Verdict(claim=claim, outcome=Outcome.NOT_APPLICABLE, reason=reason)
        if cam and self.subject.target_layer is None:
            reason = f"{self.subject.name} has no map of features, so it has no saliency map to judge"
            return Verdict(claim=claim, outcome=Outcome.NOT_APPLICABLE, reason=reason)
        if cam in self.undefined:
            return Verdict(claim=claim, outcome=Outcome.NOT_APPLICABLE, reason=self.undefined[cam])
        if self.until is not None and time.monotonic() > self.until:
            return Verdict(claim=claim, outcome=Outcome.INCONCLUSIVE, reason=LATE)
        before = Established(given={}, cost=Cost(), seconds=0.0)
        dataset = self.dataset
        if premise is not None:
            try:
                before = self._established(premise_key, premise)
                dataset = dataset if among is None else among(dataset, before.given)
            except Undefined as problem:
                return Verdict(claim=claim, outcome=Outcome.NOT_APPLICABLE, reason=str(problem))
            except Unreliable as problem:
                return Verdict(claim=claim, outcome=Outcome.INCONCLUSIVE, reason=str(problem))
            except KeyboardInterrupt:
                raise
            except BaseException as problem:  # the model's own code can raise anything
                return Verdict(claim=claim, outcome=Outcome.ERROR, reason=one_line(problem))
        ready: Measure = partial(measure, **before.given)
        shown: Show = partial(show, **before.given)
        verdict = evaluate(
            claim,
            ready,
            self.subject,
            dataset,
            column=column,
            terms=self.terms,
            journal=Journal(self.log, measurement),
            doubt=doubt,
            show=shown,
            progress=self.watch,
            until=self.until,
        )
        return replace(
            verdict,
            forwards=verdict.forwards + before.cost.forwards,
            backwards=verdict.backwards + before.cost.backwards,
            seconds=verdict.seconds + before.seconds,
        )

    def _established(self, key: str, premise: Premise) -> Established:
        """The premise's result, established once for all methods."""
        if key not in self.premises:
            ids = shuffled(self.dataset, self.terms.seed)[:PROBES]
            batch = load(self.dataset, ids, self.subject.geometry, seed=self.terms.seed, device=self.subject.device)
            started = time.monotonic()
            with metered() as cost:
                given = premise(batch.images)
            self.premises[key] = Established(given=given, cost=cost, seconds=time.monotonic() - started)
        return self.premises[key]

    def _key(self, audit: str, version: str, apart: str) -> str:
        """Whatever the measured rows depend on."""
        parts = (
            # not the weights alone: two models may share them and differ in their code or their preprocessing
            self.subject.spec,
            self.subject.sha256,
            self.subject.settings,
            *self.subject.unsafe,  # the hash of a factory's code
            self.subject.target_layer,
            self.subject.geometry,
            described(self.subject.preprocess),
            audit,
            version,
            apart,
            ",".join(self.cams),
            self.policy.chance_draws,
            self.policy.attacks,
            self.dataset.sha256,
            self.terms.seed,
            self.profile,
            torch.__version__,  # the report tells that of now
        )
        return "|".join(map(str, parts))


def may_classify(subject: Any) -> bool:
    """Whether it can be asked about classes through captions: two towers, and scorers of the user's.

    Those of controls read captions of drawn scenes and nothing else.
    """
    return isinstance(subject, TwoTowers) or (isinstance(subject, CaptionScorer) and control_of(subject.spec) is None)


def _to_be_tried_again(record: Mapping[str, Any]) -> bool:
    """Whether a resumed run may get further: what broke may work by now, and there is time again."""
    return (
        record["verdict"] == Outcome.ERROR or record["reason"].startswith(CUT_SHORT) or OUT_OF_TIME in record["reason"]
    )


def _keys(claim: Claim) -> set[str]:
    """Of a record as this version writes it: one of another version is judged again, from its rows."""
    empty = Verdict(claim=claim, outcome=Outcome.INCONCLUSIVE, reason="")
    return {*claim_record(empty, subject="", node_id="", version="", rerun=""), "waiver", "baseline"}


def concluded(claim: Claim, record: Mapping[str, Any]) -> Verdict:
    """As much of a verdict as pytest needs, from the record of a run that was resumed."""
    verdict = Verdict(
        claim=claim, outcome=Outcome(record["verdict"]), reason=record["reason"], n_needed=record["n_needed"]
    )
    if record["estimate"] is None:
        return verdict
    return replace(verdict, estimate=recorded_estimate(record["estimate"]))
