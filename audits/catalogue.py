"""What a policy lists: the audits' modules, their questions, and the claims that one model has to answer."""

from collections.abc import Collection, Iterable
from importlib import import_module
from types import ModuleType

from audits.policy import Policy
from audits.question import Question, audit_of, claim_id
from camcore.subject import Ability


def audit_modules(policy: Policy) -> dict[str, ModuleType]:
    """The audits that the policy lists claims of, by name.

    Imported, not collected: with xdist the main process collects nothing, and -k may leave some out.
    """
    return {name: import_module(f"audits.test_{name}") for name in dict.fromkeys(map(audit_of, policy.claims))}


def questions(policy: Policy) -> dict[str, Question]:
    """Every question that the policy has a margin for, by its name."""
    found = {question.name: question for module in audit_modules(policy).values() for question in module.QUESTIONS}
    return {name: found[name] for name in policy.claims}


def claims(policy: Policy, cams: Iterable[str], *, able: Collection[Ability] | None = None) -> list[tuple[str, str]]:
    """(id, severity) of every claim about one model: of maps once for each chosen method, of the model itself once.

    With `able`, only of those that a subject of these abilities can answer.
    """
    methods = list(cams)
    return [
        (claim_id(name, cam), policy.claims[name].severity)
        for name, question in questions(policy).items()
        for cam in (methods if question.of_map else [""])
        if able is None or question.needs in able
    ]
