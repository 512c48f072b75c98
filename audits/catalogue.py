"""What a policy lists: the audits' modules, their questions, and the claims that one model has to answer."""

from collections.abc import Collection, Iterable
from importlib import import_module
from inspect import signature
from types import FunctionType, ModuleType

import pytest

from audits.policy import Policy
from audits.question import Question, audit_of, claim_id
from camcore.errors import BadInput
from camcore.subject import Ability

ADDED: dict[str, ModuleType] = {}  # audits that lie elsewhere, by name: see `audits.extensions`


def audit_modules(policy: Policy) -> dict[str, ModuleType]:
    """The audits that the policy lists claims of, by name.

    Imported, not collected: with xdist the main process collects nothing, and -k may leave some out.
    """
    _know_the_mark()
    names = dict.fromkeys(map(audit_of, policy.claims))
    return {name: ADDED[name] if name in ADDED else import_module(f"audits.test_{name}") for name in names}


def _know_the_mark() -> None:
    """Register the mark that audits bear, where they are imported in somebody else's session of pytest.

    Strict sessions refuse a mark that they do not know, and no hook of ours is called there. pytest has no public way
    to ask for the session that is going on.
    """
    config = getattr(pytest.mark, "_config", None)
    if config is not None and not any(line.startswith("audit(") for line in config.getini("markers")):
        config.addinivalue_line("markers", "audit(name): the question a test asks; set by the audits themselves")


def tests(module: ModuleType) -> dict[str, FunctionType]:
    """The tests of an audit, by name and in their order: each puts one question."""
    return {
        name: test
        for name, test in vars(module).items()
        if name.startswith("test_") and isinstance(test, FunctionType) and "ask" in signature(test).parameters
    }


def selection(policy: Policy, pairs: Iterable[tuple[str, str]]) -> str:
    """Pytest's `-k` for pairs of a model's id and a claim less its method: this claim and not that one of an audit.

    Where the question cannot be read off the test that puts it, all of the audit is selected.
    """
    puts = {
        question.name: name
        for module in audit_modules(policy).values()
        for name, test in tests(module).items()
        for word in test.__code__.co_names
        if isinstance(question := vars(module).get(word), Question)
    }
    found = (f"({puts.get(claim, f'test_{audit_of(claim)}.py')} and [{model}-)" for model, claim in pairs)
    return " or ".join(dict.fromkeys(found))


def questions(policy: Policy) -> dict[str, Question]:
    """Every question that the policy has a margin for, by its name."""
    found = {question.name: question for module in audit_modules(policy).values() for question in module.QUESTIONS}
    return {name: found[name] for name in policy.claims}


def check_margins(policy: Policy) -> None:
    """See to it that no margin, and no bound of a waiver, lets every model pass.

    Raises:
        BadInput: One lies outside of what the claim's values can be.
    """
    asked = questions(policy)
    given = [(name, "margin", claim.margin) for name, claim in policy.claims.items()]
    given += [(waiver.question, "waiver's bound", waiver.bound) for waiver in policy.waivers]
    for name, what, margin in given:
        if not asked[name].allows(margin):
            low, high = asked[name].bounds
            raise BadInput(
                f"{policy.path}: the {what} {margin:g} of {name!r} decides nothing, for its values lie between {low:g} "
                f"and {high:g} and must lie {asked[name].direction} it; give one that some models keep to and not all"
            )


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
