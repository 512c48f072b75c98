"""From the claims of a run to its verdict, its exit code, and what was not shown."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from audits import calibration, catalogue
from audits.encode import described, utf8
from audits.extensions import LOADED
from audits.plan import Audited, Plan, family_size
from audits.policy import Policy
from audits.question import audit_of, documentation
from camcore import statistics
from camcore.imagetext import TwoTowers
from camcore.subject import Ability

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
SCHEMA_VERSION = "1.2"
NAMED = 1000  # skipped files
KINDS = {"classes": "classifier", "captions": "images and captions", "boxes": "phrases in boxes"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What decides which claims a model has to answer."""

    subject: str  # its id
    cams: tuple[str, ...]  # the methods whose maps are judged
    able: tuple[Ability, ...]


def asked(plan: Plan) -> list[Asked]:
    """Of every model of a run."""
    return [Asked(subject=one.id, cams=tuple(one.cams), able=tuple(one.roles)) for one in plan.audited]


def expected_claims(policy: Policy, models: Sequence[Asked]) -> list[tuple[str, str, str]]:
    """(subject, claim id, severity) of every claim that the policy lists, of every model and its maps."""
    return [
        (model.subject, name, severity) for model in models for name, severity in catalogue.claims(policy, model.cams)
    ]


def decide(
    records: Sequence[Mapping[str, Any]],
    expected: Sequence[tuple[str, str, str]],
    *,
    required: Sequence[tuple[str, str]] = (),
) -> str:
    """Closed by default: a gating claim that did not pass, or has no record, keeps the run from passing.

    A claim that does not apply to a model is no obstacle, unless nothing that gates applies to it, or its audit is
    required and gave no verdict. One that is waived, and keeps to its waiver, counts as passed.

    Args:
        records: Of the claims that were concluded.
        expected: (subject, claim id, severity) of all that there should be.
        required: (audit, subject) that there must be a verdict about; the subject is empty for one about any model.
    """
    verdicts = {(record["subject"], record["id"]): _counts(record) for record in records}
    gating: dict[str, list[str]] = {subject: [] for subject, _, _ in expected}
    for subject, name, severity in expected:
        if severity == "gate":
            gating[subject].append(verdicts.get((subject, name), "MISSING"))
    if any(FAIL in found for found in gating.values()):
        return FAIL
    shown = [{*found} - {"NOT_APPLICABLE"} == {PASS} for found in gating.values()]  # of each model, by itself
    return PASS if shown and all(shown) and not unanswered(records, required) else INCONCLUSIVE


def _counts(record: Mapping[str, Any]) -> str:
    """A verdict as the run's takes it: of the claim itself, or waived, and beside the baseline if there is one."""
    waiver, beside = record.get("waiver"), record.get("baseline")
    own: str = PASS if waiver is not None and waiver["holds"] else record["verdict"]
    if beside is None or own in (FAIL, "ERROR") or beside["verdict"] == PASS:
        return own
    return FAIL if beside["verdict"] == FAIL else INCONCLUSIVE


def unanswered(records: Sequence[Mapping[str, Any]], required: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those (audit, subject) of which every claim broke, is missing, or does not apply."""
    answered = {
        (audit_of(record["id"]), subject)
        for record in records
        if record["verdict"] not in ("NOT_APPLICABLE", "ERROR")
        for subject in (record["subject"], "")
    }
    return [one for one in required if one not in answered]


def required_of(policy: Policy, models: Sequence[Asked]) -> list[tuple[str, str]]:
    """(audit, subject) of the audits that the policy requires, for each model that has the ability that they need.

    Where none has it the subject is empty: what nobody can answer was not shown either.
    """
    needs = {audit_of(name): question.needs for name, question in catalogue.questions(policy).items()}
    found = []
    for name in policy.required:
        able = [model.subject for model in models if needs[name] in model.able]
        found += [(name, subject) for subject in able or [""]]
    return found


def assemble(
    plan: Plan,
    records: Sequence[Mapping[str, Any]],
    *,
    command: str,
    seconds: float,
    interrupted: int,
) -> dict[str, Any]:
    """Everything that results.json holds.

    Args:
        plan: Of the run.
        records: Finished claims, in any order.
        command: As it was typed.
        seconds: Since the start.
        interrupted: The exit code of a run that was stopped before its end, 0 of any other.
    """
    decided = summed_up(plan.policy, asked(plan), records, interrupted=bool(interrupted))
    decided["exit_code"] = interrupted or decided["exit_code"]
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run": {
            "id": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "git": _git(),
            "seed": plan.settings.seed,
            "profile": plan.settings.profile,
            "policy_sha256": plan.policy.sha256,
            "policy_path": plan.policy.path,
            "per_image": plan.policy.per_image,
            "device": plan.device,
            "versions": versions(),
            "family": decided.pop("family"),
            "seconds": seconds,
            "interrupted": bool(interrupted),
        },
        "subjects": [_subject(audited) for audited in plan.audited],
        "data": _data(plan),
        **decided,
    }
    return dict(utf8(found))


def summed_up(
    policy: Policy, models: Sequence[Asked], records: Sequence[Mapping[str, Any]], *, interrupted: bool
) -> dict[str, Any]:
    """What the policy makes of the finished claims: keys of results.json, and `family`, which belongs to `run`.

    A run that was stopped passes nothing, whatever it had shown by then.
    """
    expected = expected_claims(policy, models)
    place = {(subject, name): index for index, (subject, name, _) in enumerate(expected)}
    claims = sorted(
        ({**record} for record in records if (record["subject"], record["id"]) in place),
        key=lambda record: place[record["subject"], record["id"]],
    )
    modules = catalogue.audit_modules(policy)
    documented = {name: documentation(module.__doc__ or "") for name, module in modules.items()}
    sizes = {model.subject: family_size(policy, model.cams, model.able) for model in models}
    for model in models:
        answered = {name for name, _ in catalogue.claims(policy, model.cams, able=model.able)}
        family = [one for one in claims if one["subject"] == model.subject and one["gates"] and one["id"] in answered]
        absent = [None] * (sizes[model.subject] - len(family))
        adjusted = statistics.holm([*(claim["p"] for claim in family), *absent])
        for claim, p_holm in zip(family, adjusted, strict=False):
            claim["p_holm"] = p_holm
    for claim in claims:
        claim["controls"] = _names(documented[claim["audit"]]["caught_by"])
    required = required_of(policy, models)
    verdict = decide(claims, expected, required=required)
    if interrupted and verdict == PASS:
        verdict = INCONCLUSIVE
    shown = {(claim["subject"], claim["id"]) for claim in claims}
    return {
        "family": {
            "level": policy.level,
            "per_claim_level": statistics.simultaneous_level(policy.level, max(sizes.values(), default=1)),
            "claims": sum(sizes.values()),
        },
        "audits": [
            {
                "name": name,
                "version": module.VERSION,
                **documented[name],
                "caught_by": _names(documented[name]["caught_by"]),
                "calibration": calibration.of_audit(name, module.VERSION),
            }
            for name, module in modules.items()
        ],
        "claims": claims,
        "not_tested": [
            *(
                f"{name}, which the policy requires: no verdict{subject and f' about {subject}'}"
                for name, subject in unanswered(claims, required)
            ),
            *(f"{name} on {subject}: no verdict" for subject, name, _ in expected if (subject, name) not in shown),
        ],
        "verdict": verdict,
        "exit_code": {PASS: 0, FAIL: 1, INCONCLUSIVE: policy.inconclusive_exit}[verdict],
    }


def versions() -> dict[str, str]:
    """Of what the numbers depend on, plugins that added audits, controls or models among them."""
    found = {"python": platform.python_version()}
    for package in ("camcore", "torch", "torchvision", "numpy", "scipy", "pytest"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {f"plugin {name}": extension.version for name, extension in LOADED.items()}


def _subject(audited: Audited) -> dict[str, Any]:
    subject = audited.subject
    geometry = subject.geometry
    resize = f"resize {geometry.resize} ({geometry.interpolation}), " if geometry.resize else ""
    fitted = f"{resize}{'squash to' if geometry.squash else 'crop'} {geometry.crop[0]}x{geometry.crop[1]}"
    fed = subject.fed if isinstance(subject, TwoTowers) else ""
    return {
        "spec": subject.spec,
        "id": audited.id,
        "sha256": subject.sha256,
        "weights": subject.weights,
        "arch": type(subject.module).__name__,
        "n_params": sum(parameter.numel() for parameter in subject.module.parameters()),
        "kind": ", ".join(KINDS[ability] for ability in audited.roles),
        "abilities": list(audited.roles),
        "cams": list(audited.cams),
        "data": list(dict.fromkeys(shown.sha256 for role in audited.roles.values() for shown in role.shown)),
        "target_layer": subject.target_layer,
        "preprocess": f"{fitted}, {described(subject.preprocess)}" + (f" ({fed})" if fed else ""),
        "unsafe": list(subject.unsafe),
    }


def _data(plan: Plan) -> list[dict[str, Any]]:
    found = {}
    for dataset in (shown for audited in plan.audited for role in audited.roles.values() for shown in role.shown):
        found[dataset.sha256] = {
            "spec": dataset.spec,
            "sha256": dataset.sha256,
            "n": len(dataset),
            "classes": list(dataset.classes),
            "skipped": _skipped(dataset.skipped),
        }
    return list(found.values())


def _skipped(files: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """By name as many as anybody reads."""
    named = [{"file": file, "reason": reason} for file, reason in files[:NAMED]]
    more = len(files) - len(named)
    return [*named, {"file": f"and {more:,} more files", "reason": "are skipped as well"}] if more else named


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _git() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
