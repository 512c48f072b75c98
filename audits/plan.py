"""The plan of a run: settings looked up and loaded, everything that can be wrong found before anything is measured."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from audits import catalogue, journal, report_folder
from audits.ask import Ask
from audits.baseline import Baseline, Compared, find_baseline
from audits.options import Settings
from audits.policy import Policy, load_policy
from audits.roles import ROLES, Asked, Given, Role, through_captions, trying
from audits.waivers import Waived
from audits.xfails import Expected, read_xfails
from camcore import statistics
from camcore.cam import METHODS, RECORDED, CamMethod, find_cam
from camcore.engine import Terms, Watch
from camcore.errors import BadInput
from camcore.images import Dataset, Progress
from camcore.subject import Ability, Subject, abilities
from camcore.verdict import Verdict
from fixtures.artefacts import Artefact, library, read_artefact
from fixtures.controls.registry import control_of
from fixtures.datasets.captions import Captions
from fixtures.subjects.factory import NO_NETWORK
from fixtures.subjects.spec import find_any, first_ability, made_ready

DEFAULT_CAM = "hirescam"


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One model in all its roles, and the methods whose maps are judged."""

    id: str
    roles: Mapping[Ability, Role]  # the first is what it was made for
    cams: Mapping[str, CamMethod]
    baseline: Baseline | None = None  # of an earlier run, that it must not be worse than

    @property
    def subject(self) -> Any:
        """The model as what it was made for."""
        return next(iter(self.roles.values())).subject


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run needs, in order."""

    settings: Settings
    policy: Policy
    device: str
    audited: tuple[Audited, ...]
    artefacts: tuple[Artefact, ...]  # stuck into pictures when bias is looked for
    xfails: tuple[Expected, ...] = ()  # what is known to fail
    until: float | None = None  # of `time.monotonic()`: when the run's seconds are spent
    earlier: str = ""  # what became of the runs that the report's folder held

    @property
    def batch_sizes(self) -> dict[str, dict[str, int]]:
        """By the model's id and by ability."""
        return {one.id: {name: role.terms.batch_size for name, role in one.roles.items()} for one in self.audited}

    @property
    def models(self) -> dict[str, str]:
        """By the model's id a hash of what its answers depend on."""
        return {one.id: f"{one.subject.sha256}{one.subject.settings}" for one in self.audited}


def subject_ids(models: Sequence[str]) -> list[str]:
    """A short name for each spec, free of slashes and colons, no two alike; known before anything is loaded."""
    ids: list[str] = []
    for spec in models:
        prefix, _, rest = spec.rpartition(":") if spec.startswith("py:") else spec.partition(":")
        rest = "-".join(map(_last, rest.split("@")))
        short = f"{prefix.split('/')[-1].removeprefix('py:')}-{rest}" if spec.startswith("py:") else rest or prefix
        short = re.sub(r"[^\w.-]+", "-", short).strip("-") or "model"
        name, count = short, 1
        while name in ids:
            count += 1
            name = f"{short}.{count}"
        ids.append(name)
    return ids


def _last(part: str) -> str:
    """A path by its last name; anything else as it is."""
    return part.rstrip("/").split("/")[-1] if part.startswith(("/", "./", "../", "~")) else part


def chosen_cams(spec: str, names: Sequence[str]) -> dict[str, CamMethod]:
    """The methods to judge on one model: the user's, else the control's own, else the default.

    Raises:
        BadInput: An unknown name.
    """
    if first_ability(spec) == "boxes":
        return {}
    if "all" in names:
        return dict(sorted(RECORDED.items()))
    if names:
        return {name: find_cam(name) for name in names}
    made = control_of(spec)
    return dict(made.cams) if made is not None and made.cams else {DEFAULT_CAM: METHODS[DEFAULT_CAM]}


def prepare(
    settings: Settings,
    *,
    batch_sizes: Mapping[str, Mapping[str, int]],
    main: bool = True,
    baseline: Mapping[str, Any] | None = None,
    given: Given | None = None,
) -> Plan:
    """Load and check everything that the settings name.

    Args:
        settings: What the user asked for.
        batch_sizes: `Plan.batch_sizes` of the main process, for its workers.
        main: Whether this process owns the report's folder (a worker does not).
        baseline: What the results.json of an earlier run holds, if the models are to be compared with it.
        given: What the caller has in hand of the only model.

    Raises:
        BadInput: In one line.
    """
    policy = load_policy(settings.policy, profile=settings.profile, under=settings.laid_under)
    catalogue.check_margins(policy)
    xfails = read_xfails(settings.xfails)
    device = resolve_device(settings.device)
    artefacts = (*library(), *map(read_artefact, settings.artefacts))
    names = subject_ids(settings.models) if given is None else [given.name]
    methods = [given.cams] if given and given.cams else [chosen_cams(spec, settings.cams) for spec in settings.models]
    if main:
        with _writing(settings.report):
            report_folder.make(settings.report)
    audited = []
    for spec, name, cams in zip(settings.models, names, methods, strict=True):
        with trying(spec):
            if given is None or given.subject is None:
                subject = find_any(spec, weights=settings.weights, device=device, layer=settings.layer)
            else:
                subject = made_ready(given.subject, spec, device=device, layer=settings.layer)
        sizes, data = batch_sizes.get(name, {}), None if given is None else given.data
        if settings.resume and NO_NETWORK in subject.unsafe:
            raise BadInput(f"{spec!r} {NO_NETWORK}; leave --audit-resume out")
        roles = _roles(replace(subject, name=name), spec, cams, settings, policy, sizes, data)
        beside = None if baseline is None else _beside(baseline, name, roles, settings, policy)
        audited.append(Audited(id=name, roles=roles, cams=cams, baseline=beside))
    if settings.templates and not any({"captions", "classes"} <= one.roles.keys() for one in audited):
        raise BadInput(
            f"--audit-template {settings.templates[0]!r} is for a model of captions that is asked about classes: "
            "give one with --model, and --data"
        )
    earlier = ""
    if main:
        with _writing(settings.report):
            earlier = report_folder.set_aside(settings.report, resume=settings.resume)
    return Plan(
        settings=settings,
        policy=policy,
        device=device,
        audited=tuple(audited),
        artefacts=artefacts,
        xfails=xfails,
        until=time.monotonic() + policy.seconds,
        earlier=earlier,
    )


def _beside(
    results: Mapping[str, Any], name: str, roles: Mapping[Ability, Role], settings: Settings, policy: Policy
) -> Baseline:
    shown = dict.fromkeys(data.sha256 for role in roles.values() for data in role.shown)
    return find_baseline(
        results,
        name,
        only=len(settings.models) == 1,
        seed=settings.seed,
        profile=settings.profile,
        per_image=policy.per_image,
        data=list(shown),
    )


def _roles(
    subject: Subject,
    spec: str,
    cams: Mapping[str, CamMethod],
    settings: Settings,
    policy: Policy,
    batch_sizes: Mapping[str, int],
    data: Dataset | Captions | None,
) -> dict[Ability, Role]:
    able = (*abilities(subject), *through_captions(subject, settings))
    level = statistics.simultaneous_level(policy.level, family_size(policy, cams, able))

    def terms(batch_size: int) -> Terms:
        return Terms(
            level=level,
            budget=policy.images,
            seed=settings.seed,
            batch_size=batch_size,
            min_images=policy.min_images,
            max_degenerate=policy.max_degenerate,
        )

    return {
        ability: ROLES[ability](
            Asked(
                subject=subject,
                spec=spec,
                cams=cams,
                settings=settings,
                policy=policy,
                terms=terms,
                batch_size=settings.batch_size or batch_sizes.get(ability),
                data=data,
            )
        )
        for ability in able
    }


@contextmanager
def _writing(report: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise BadInput(
            f"cannot write the report to {str(report)!r} ({problem.strerror}); "
            "give a folder that can be written with --audit-report"
        ) from None


def asking(
    plan: Plan,
    audited: Audited,
    needs: Ability,
    *,
    log: journal.Log,
    node_id: str,
    rerun: str,
    conclude: Callable[[Verdict, Waived | None, Compared | None], None],
    watch: Watch | None,
    progress: Progress | None,
) -> Ask:
    """What puts the questions of one audit to one model, in the role that they need if it has it."""
    ability = needs if needs in audited.roles else next(iter(audited.roles))
    role = audited.roles[ability]
    return Ask(
        subject=role.subject,
        ability=ability,
        dataset=role.dataset,
        cams=audited.cams,
        undefined=role.undefined,
        policy=plan.policy,
        terms=role.terms,
        log=log,
        profile=plan.settings.profile,
        rerun=rerun,
        node_id=node_id,
        conclude=conclude,
        premises=role.premises,
        artefacts=plan.artefacts,
        conflicts=role.conflicts,
        bindings=role.bindings,
        captions=role.captions,
        scenes=role.scenes,
        phrases=role.phrases,
        watch=watch,
        progress=progress,
        until=plan.until,
        baseline=audited.baseline,
        full=plan.settings.full,
    )


def family_size(policy: Policy, cams: Collection[str], able: Collection[Ability]) -> int:
    """Gating claims of one model: all that the policy lists, of it and of every chosen method, selected with -k or not.

    But for those that are about something that it does not score. At least 1, since claims that do not gate need a
    level too.
    """
    return max(1, sum(severity == "gate" for _, severity in catalogue.claims(policy, cams, able=able)))


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
