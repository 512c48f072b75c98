"""The plan of a run: settings looked up and loaded, everything that can be wrong found before anything is measured."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from audits import catalogue, journal
from audits.ask import Established
from audits.options import Settings
from audits.policy import Policy, load_policy
from audits.question import Ability
from camcore import statistics
from camcore.cam import METHODS, PARTIAL, RECORDED, CamMethod, find_cam
from camcore.engine import Terms
from camcore.errors import BadInput, Undefined, one_line
from camcore.images import Dataset
from camcore.record import record
from camcore.subject import Classifier
from camcore.throughput import fastest_batch_size
from fixtures.artefacts import Artefact, library, read_artefact
from fixtures.controls import CONTROLS, Control
from fixtures.datasets.binding_scenes import Bindings, binding_scenes
from fixtures.datasets.cue_conflict import Conflicts, find_conflicts
from fixtures.subjects.spec import split

DEFAULT_CAM = "hirescam"
CAPTIONERS = ("hf", "open_clip")  # families whose models score captions
PAIRS = 8  # groups at a time


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One model, the images it is asked about, and the methods whose maps are judged."""

    id: str
    subject: Any  # a Classifier, or an ImageText
    dataset: Dataset
    cams: Mapping[str, CamMethod]
    terms: Terms
    undefined: Mapping[str, str]  # methods that this model has no such map of, with the reason
    conflicts: Conflicts | None = None  # pictures with two cues, if there are any for its classes
    bindings: Bindings | None = None  # groups of pictures and captions, if it scores captions
    premises: dict[str, Established] = field(default_factory=dict)  # established once for all methods

    @property
    def shown(self) -> tuple[Dataset, ...]:
        """Everything that the model is asked about."""
        return (self.dataset,) if self.conflicts is None else (self.dataset, self.conflicts.dataset)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run needs, in order."""

    settings: Settings
    policy: Policy
    device: str
    audited: tuple[Audited, ...]
    artefacts: tuple[Artefact, ...]  # stuck into pictures when bias is looked for


def subject_ids(models: Sequence[str]) -> list[str]:
    """A short name for each spec, free of slashes and colons, no two alike; known before anything is loaded."""
    ids: list[str] = []
    for spec in models:
        prefix, _, rest = spec.rpartition(":") if spec.startswith("py:") else spec.partition(":")
        short = f"{prefix.split('/')[-1].removeprefix('py:')}-{rest}" if spec.startswith("py:") else rest or prefix
        short = re.sub(r"[^\w.-]+", "-", short).strip("-") or "model"
        name, count = short, 1
        while name in ids:
            count += 1
            name = f"{short}.{count}"
        ids.append(name)
    return ids


def chosen_cams(spec: str, names: Sequence[str]) -> dict[str, CamMethod]:
    """The methods to judge on one model: the user's, else the control's own, else the default.

    Raises:
        BadInput: An unknown name.
    """
    if scored(spec) == "captions":
        return {}
    if "all" in names:
        return dict(sorted(RECORDED.items()))
    if names:
        return {name: find_cam(name) for name in names}
    made = _control(spec)
    return dict(made.cams) if made is not None and made.cams else {DEFAULT_CAM: METHODS[DEFAULT_CAM]}


def scored(spec: str) -> Ability:
    """What a model scores, by its spec alone."""
    made = _control(spec)
    return made.scores if made is not None else "captions" if split(spec)[0] in CAPTIONERS else "classes"


def _control(spec: str) -> Control | None:
    return CONTROLS.get(spec.removeprefix("control:")) if spec.startswith("control:") else None


def prepare(settings: Settings, *, batch_sizes: Mapping[str, int], main: bool = True) -> Plan:
    """Load and check everything that the settings name.

    Args:
        settings: What the user asked for.
        batch_sizes: Already measured by the main process, for its workers, by the model's id.
        main: Whether this process owns the report's folder (a worker does not).

    Raises:
        BadInput: In one line.
    """
    from fixtures.datasets.find import default_data, find_dataset
    from fixtures.subjects.spec import find_subject

    policy = load_policy(settings.policy, profile=settings.profile)
    device = resolve_device(settings.device)
    artefacts = (*library(), *map(read_artefact, settings.artefacts))
    methods = [chosen_cams(spec, settings.cams) for spec in settings.models]
    if main:
        with _writing(settings.report):
            journal.make(settings.report)
    audited = []
    for spec, name, cams in zip(settings.models, subject_ids(settings.models), methods, strict=True):
        if scored(spec) == "captions":
            audited.append(_of_captions(settings, policy, spec, name, device, batch_sizes.get(name)))
            continue
        with _trying(spec):
            subject = find_subject(spec, weights=settings.weights, device=device, layer=settings.layer)
        subject = replace(subject, name=name)
        if settings.cams and subject.target_layer is None:
            raise BadInput(
                f"--cam {settings.cams[0]} needs a map of features, and {spec!r} has no layer that gives one; "
                "leave --cam out, or name a layer with --audit-layer"
            )
        data = settings.data or default_data(spec, settings.weights)
        made = _control(spec)
        if made is not None and made.data is not None and settings.data is None:
            dataset = made.data(policy.images, settings.seed)
        else:
            dataset = find_dataset(data, subject=subject, n=policy.images, seed=settings.seed)
        with _trying(spec):
            size = settings.batch_size or batch_sizes.get(name) or fastest_batch_size(subject)
            undefined = undefined_methods(subject, cams)
        terms = Terms(
            level=statistics.simultaneous_level(policy.level, family_size(policy, cams)),
            budget=policy.images,
            seed=settings.seed,
            batch_size=size,
            min_images=policy.min_images,
            max_degenerate=policy.max_degenerate,
        )
        audited.append(
            Audited(
                id=name,
                subject=subject,
                dataset=dataset,
                cams=cams,
                terms=terms,
                undefined=undefined,
                conflicts=find_conflicts(settings.cues, subject=subject, n=policy.images, seed=settings.seed),
            )
        )
    if main and not settings.resume:
        with _writing(settings.report):
            journal.forget(settings.report)
    return Plan(settings=settings, policy=policy, device=device, audited=tuple(audited), artefacts=artefacts)


def _of_captions(
    settings: Settings, policy: Policy, spec: str, name: str, device: str, batch_size: int | None
) -> Audited:
    """A model of images and captions, and the groups that it is asked about."""
    from fixtures.subjects.spec import find_image_text

    if settings.data is not None:
        raise BadInput(f"--data {settings.data!r} has no captions for {spec!r}; leave it out: binding scenes are drawn")
    with _trying(spec):
        subject = replace(find_image_text(spec, weights=settings.weights, device=device), name=name)
    bindings = binding_scenes(policy.images, seed=settings.seed, size=max(subject.geometry.crop))
    terms = Terms(
        level=statistics.simultaneous_level(policy.level, family_size(policy, {}, "captions")),
        budget=policy.images,
        seed=settings.seed,
        batch_size=settings.batch_size or batch_size or PAIRS,
        min_images=policy.min_images,
        max_degenerate=policy.max_degenerate,
    )
    return Audited(
        id=name, subject=subject, dataset=bindings.first, cams={}, terms=terms, undefined={}, bindings=bindings
    )


def undefined_methods(subject: Classifier, cams: Mapping[str, CamMethod]) -> dict[str, str]:
    """Those of the chosen methods that the model has no such map of, found by trying them on a blank image."""
    tried = {name: cam for name, cam in cams.items() if name in PARTIAL and subject.target_layer is not None}
    reasons: dict[str, str] = {}
    if tried:
        rec = record(subject, torch.full((1, 3, *subject.geometry.crop), 0.5, device=subject.device), chunk=1)
        for name, cam in tried.items():
            try:
                cam(rec)
            except Undefined as problem:
                reasons[name] = str(problem)
    return reasons


@contextmanager
def _writing(report: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise BadInput(
            f"cannot write the report to {str(report)!r} ({problem.strerror}); "
            "give a folder that can be written with --audit-report"
        ) from None


@contextmanager
def _trying(spec: str) -> Iterator[None]:
    """The model's own code can raise anything while it is loaded, probed and timed; a warning is no obstacle."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    except BadInput:
        raise
    except Exception as problem:
        raise BadInput(
            f"the model {spec!r} does not run ({one_line(problem)}); "
            "it must take batches of any size, and give one row of scores per image"
        ) from problem


def family_size(policy: Policy, cams: Mapping[str, CamMethod], needs: Ability = "classes") -> int:
    """Gating claims of one model: all that the policy lists, of it and of every chosen method, selected with -k or not.

    But for those that are about something that it does not score. At least 1, since claims that do not gate need a
    level too.
    """
    return max(1, sum(severity == "gate" for _, severity in catalogue.claims(policy, cams, needs=needs)))


def resolve_device(name: str) -> str:
    """`auto` looked up; anything else checked.

    Raises:
        BadInput: Not a device, or none that this machine has.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError) as problem:
        message = str(problem).splitlines()[0]
        raise BadInput(f"--audit-device {name!r} cannot be used here ({message}); pass cpu or auto") from None
    return name
