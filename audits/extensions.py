"""Audits, controls and kinds of models that lie outside this tree, and are closed by default as those inside are.

An extension is loaded because somebody named it, and then it is listed: in the header of the run, in results.json, and
through its claims in the policy's hash. Its claims belong to the family; its thresholds are its own, and it can change
nobody else's: that is for the user's policy.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from audits import catalogue, policy
from audits.policy import ClaimPolicy, first_complaint, read_policy
from audits.question import Question, documentation
from camcore.errors import BadInput, one_line
from fixtures.controls.registry import ABOUT, CONTROLS, Control
from fixtures.subjects.registry import FAMILIES, GROUNDERS, IMAGE_TEXT, GrounderLoader, ImageTextLoader, Loader
from fixtures.subjects.spec import MADE_FOR, import_families

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # of an extension, a control, a kind of models: parts of ids and of specs
CLAIM = re.compile(r"([a-z][a-z0-9_]*)/[a-z][a-z0-9_]*")
LOADED: dict[str, "Extension"] = {}  # by name


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What a plugin adds."""

    name: str
    version: str
    audits: Sequence[ModuleType] = ()  # each as one of audits/test_*.py
    policy: Path | None = None  # TOML with a table [claims."<audit>/<claim>"] for each of their questions
    controls: Sequence[Control] = ()  # `control:NAME`
    # by the prefix of their specs, as for `fixtures.subjects.registry`: models of classes, of captions, of phrases
    families: Mapping[str, Loader] = field(default_factory=dict)
    image_text_families: Mapping[str, ImageTextLoader] = field(default_factory=dict)
    grounder_families: Mapping[str, GrounderLoader] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """One line for whoever wants to know what ran."""
        audits = (audit.QUESTIONS[0].audit for audit in self.audits)
        families = (*self.families, *self.image_text_families, *self.grounder_families)
        parts = (
            ("audits", audits),
            ("controls", (made.name for made in self.controls)),
            ("models", (f"{prefix}:" for prefix in families)),
        )
        listed = ((what, ", ".join(names)) for what, names in parts)
        return "; ".join([f"{self.name} {self.version}", *(f"{what} {names}" for what, names in listed if names)])


def registered(plugins: Sequence[Any]) -> list[Extension]:
    """What modules add that no session of pytest has loaded.

    Raises:
        BadInput: One of them adds nothing, or breaks when it is asked.
    """
    found = []
    for plugin in plugins:
        register = getattr(plugin, "pytest_audit_register", None)
        if not callable(register):
            raise BadInput(f"plugins must be modules with a pytest_audit_register, got {plugin!r:.100}")
        try:
            found.append(register())
        except Exception as problem:
            raise BadInput(f"pytest_audit_register of {plugin!r:.100} broke: {one_line(problem)}") from None
    return found


@contextmanager
def loaded(extensions: Sequence[Extension]) -> Iterator[None]:
    """Inside, these extensions are part of the suite.

    Raises:
        BadInput: One of them is not whole, or has a name that is taken.
    """
    with ExitStack() as undo:
        for extension in extensions:
            _load(extension, undo.callback)
        yield


def _load(extension: Extension, undo: Callable[..., Any]) -> None:
    """Check one and put it into the registries; `undo` is told how to take it out again."""
    if not isinstance(extension, Extension):
        raise BadInput(f"a plugin must give an audits.extensions.Extension, got {type(extension).__name__}")
    if not (isinstance(extension.name, str) and NAME.fullmatch(extension.name)):
        raise BadInput(f"an extension's name must be letters, digits, '.', '_' and '-', got {extension.name!r}")
    where = f"extension {extension.name!r}"
    if not isinstance(extension.version, str) or not extension.version.isprintable():
        raise BadInput(f"{where}: the version must be a string of one line, got {extension.version!r}")

    def add(table: dict[str, Any], what: str, given: Iterable[tuple[str, Any]]) -> None:
        for name, thing in given:
            if not (NAME.fullmatch(name) or CLAIM.fullmatch(name)):
                raise BadInput(f"{where}: the {what} {name!r} needs a name of letters, digits, '.', '_' and '-'")
            if name in table:
                raise BadInput(f"{where}: the {what} {name!r} is there already; give it another name")
            table[name] = thing
            undo(table.pop, name)

    import_families()
    add(LOADED, "extension", [(extension.name, extension)])
    known = FAMILIES.keys() | IMAGE_TEXT.keys() | GROUNDERS.keys()
    for table, families, ability in (
        (FAMILIES, extension.families, None),
        (IMAGE_TEXT, extension.image_text_families, "captions"),
        (GROUNDERS, extension.grounder_families, "boxes"),
    ):
        for prefix in families:
            if prefix in known:
                raise BadInput(f"{where}: the kind of models {prefix!r} is there already; give it another name")
        add(table, "kind of models", families.items())
        add(MADE_FOR, "kind of models", [(prefix, ability) for prefix in families if ability])
    add(CONTROLS, "control", [(made.name, made) for made in extension.controls])
    audits = [(_checked(module, where), module) for module in extension.audits]
    for name, _ in audits:
        if Path(__file__).with_name(f"test_{name}.py").exists():
            raise BadInput(f"{where}: the audit {name!r} is there already; give it another name")
    add(catalogue.ADDED, "audit", audits)
    abilities = [(name, module.QUESTIONS[0].needs) for name, module in audits]
    add(ABOUT, "audit", [(name, needs) for name, needs in abilities if needs != "classes"])
    asked = [question.name for _, module in audits for question in module.QUESTIONS]
    add(policy.ADDED, "claim", _margins(extension.policy, asked, where).items())
    for name in asked:
        if not any(name in made.caught_by for made in CONTROLS.values()):
            raise BadInput(f"{where}: no control trips {name!r}; plant its defect in one, with {name!r} in caught_by")


def _checked(module: ModuleType, where: str) -> str:
    """The name of an audit that has all that an audit needs."""
    called = getattr(module, "__name__", repr(module))
    questions = getattr(module, "QUESTIONS", None)
    if not isinstance(questions, tuple) or not questions or not all(isinstance(one, Question) for one in questions):
        raise BadInput(f"{where}: {called} needs QUESTIONS, a tuple of audits.question.Question")
    name = questions[0].audit
    for question in questions:
        found = CLAIM.fullmatch(question.name)
        if found is None or found[1] != name:
            raise BadInput(f"{where}: the question {question.name!r} must be called {name}/<claim>, in small letters")
        if question.name in [other.name for other in questions if other is not question]:
            raise BadInput(f"{where}: the question {question.name!r} is there twice")
        if question.needs != questions[0].needs:
            raise BadInput(f"{where}: the questions of {name!r} must all need the same of a model")
    if not isinstance(getattr(module, "VERSION", None), str):
        raise BadInput(f"{where}: {called} needs a VERSION, a string")
    try:
        documentation(module.__doc__ or "")
    except ValueError as problem:
        raise BadInput(f"{where}: {called}: {problem}") from None
    if not catalogue.tests(module):
        raise BadInput(f"{where}: {called} has no function test_... that takes `ask`")
    return name


def _margins(file: Path | None, asked: Sequence[str], where: str) -> dict[str, dict[str, Any]]:
    """What the extension's policy says of its own claims: every one of them, and nothing else."""
    content = {} if file is None else read_policy(file)
    claims = content.pop("claims", {})
    if content or not isinstance(claims, dict):
        raise BadInput(f"{where}: its policy may hold claims and nothing else, got {next(iter(content), 'claims')!r}")
    for name, entry in claims.items():
        if name not in asked:
            raise BadInput(f"{where}: its policy is about {name!r}, which is no question of its own")
        try:
            ClaimPolicy.model_validate(entry)
        except ValidationError as error:
            raise BadInput(f"{where}: its policy, {name}: {first_complaint(error)}") from None
    for name in asked:
        if name not in claims:
            raise BadInput(f"{where}: its policy says nothing about {name!r}: severity, margin, source, why")
    return claims
