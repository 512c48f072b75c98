"""`--audit-rejudge results.json`: a finished run under another policy, without the model.

Margins, severities, level, waivers and what is required come from the policy; the values are those that were measured.
A claim that the new policy would have measured on more images may come out inconclusive, with the number it needs. One
that would have done more to each image (draws, steps of an attack) has to measure anew.
"""

from collections.abc import Mapping
from datetime import date
from math import nan
from typing import Any

from audits import catalogue, gate
from audits.baseline import compared_again
from audits.encode import estimated, finite
from audits.plan import family_size
from audits.policy import Policy
from audits.question import Question, taken_apart
from audits.waivers import waived
from camcore import statistics
from camcore.engine import DEGENERATE_MAPS, Terms, judged_again
from camcore.errors import BadInput, one_line, shown
from camcore.verdict import Outcome, Verdict


def judge_again(results: Mapping[str, Any], policy: Policy, *, command: str, today: date) -> dict[str, Any]:
    """The same run under another policy.

    Args:
        results: What results.json holds, already checked against its schema.
        policy: What counts now.
        command: As it was typed.
        today: The day on which waivers are looked at.

    Raises:
        BadInput: A claim was measured by another version of its audit, so that its margin may mean something else; the
            policy does more, or less, to each image than was done; or the results do not fit together.
    """
    if results["run"]["per_image"] != policy.per_image:
        raise BadInput(
            f"{policy.path} asks for {_told(policy.per_image)} per image, and this run had "
            f"{_told(results['run']['per_image'])}; run the audits again"
        )
    catalogue.check_margins(policy)
    models = [_asked(subject) for subject in results["subjects"]]
    levels = {
        model.subject: statistics.simultaneous_level(policy.level, family_size(policy, model.cams, model.able))
        for model in models
    }
    questions, modules = catalogue.questions(policy), catalogue.audit_modules(policy)
    records = []
    for claim in results["claims"]:
        module = modules.get(claim["audit"])
        known = "there is none by that name" if module is None else f"this is version {module.VERSION!r}"
        if module is None or claim["audit_version"] != module.VERSION:
            raise BadInput(
                f"{claim['id']!r:.100} was measured by version {claim['audit_version']!r:.100} of the audit "
                f"{claim['audit']!r:.100}, and {known}; run the audit again"
            )
        name = taken_apart(claim["id"])[0]
        if claim["subject"] not in levels or name not in questions:
            what = f"the model {claim['subject']!r:.100}" if name in questions else f"{name!r:.100}"
            raise BadInput(f"the results have a claim about {what}, which is in no list of them; run the audit again")
        terms = Terms(
            level=levels[claim["subject"]],
            budget=len(claim["values"]),
            seed=results["run"]["seed"],
            batch_size=1,
            min_images=policy.min_images,
            max_degenerate=policy.max_degenerate,
        )
        try:
            records.append(_again(claim, questions[name], policy, terms, today))
        except ValueError as problem:  # a value out of its range
            raise BadInput(
                f"{claim['id']!r:.100} cannot be judged ({one_line(problem)}); run the audit again"
            ) from None
    try:
        found = gate.summed_up(policy, models, records, interrupted=results["run"]["interrupted"])
    except ValueError as problem:  # a p-value beyond 1
        raise BadInput(f"the claims cannot be summed up ({one_line(problem)}); run the audit again") from None
    run = {
        **results["run"],
        "command": command,
        "policy_sha256": policy.sha256,
        "policy_path": policy.path,
        "family": found.pop("family"),
    }
    return {**results, "schema_version": gate.SCHEMA_VERSION, "run": run, **found}


def _told(per_image: Mapping[str, Any] | None) -> str:
    if per_image is None:
        return "what a version before 1.2 did not record"
    attacks = ", ".join(f"{name} {shown(value)}" for name, value in per_image["attacks"].items() if value is not None)
    return f"{per_image['chance_draws']} draws and attacks of {attacks}"


def _asked(subject: Mapping[str, Any]) -> gate.Asked:
    return gate.Asked(subject=subject["id"], cams=tuple(subject["cams"]), able=tuple(subject["abilities"]))


def _again(claim: Mapping[str, Any], question: Question, policy: Policy, terms: Terms, today: date) -> dict[str, Any]:
    """The record of a claim, judged by what counts now."""
    asked = question.claim(taken_apart(claim["id"])[1], policy.claims[question.name])
    verdict = Verdict(claim=asked, outcome=Outcome(claim["verdict"]), reason=claim["reason"])
    judged: dict[str, Any] = {}
    # what broke stays broken, whatever was measured by then; what has no estimate was not measured
    broke = verdict.outcome is Outcome.ERROR and not verdict.reason.startswith(DEGENERATE_MAPS)
    if claim["estimate"] is not None and not broke:
        values = {
            unit: nan if value is None else value for unit, value in zip(claim["units"], claim["values"], strict=True)
        }
        verdict = judged_again(asked, values, terms=terms)
        judged = {
            "verdict": verdict.outcome.value,
            "reason": verdict.reason,
            "estimate": estimated(verdict.estimate),
            "p": finite(verdict.p),
            "n_needed": verdict.n_needed,
        }
    found = waived(verdict, claim["subject"], policy.waivers, today=today)
    beside = claim.get("baseline")
    return {
        **claim,
        **judged,
        "baseline": None if beside is None else compared_again(beside, asked, worse=policy.worse, level=terms.level),
        "severity": asked.severity,
        "gates": asked.gates,
        "margin": asked.margin,
        "margin_source": asked.margin_source,
        "p_holm": None,
        "waiver": None if found is None else found.record(),
    }
