"""The policy: every threshold, read from TOML and checked before anything is measured."""

import hashlib
import tomllib
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from camcore.errors import BadInput, one_line, shown
from camcore.verdict import Severity

SHIPPED = Path(__file__).with_name("policy.toml")
ADDED: dict[str, dict[str, Any]] = {}  # claims of audits that lie elsewhere: see `audits.extensions`
NAMED = 12  # of the known keys, where none is near
JUDGED = 4  # the size of change, in steps of 1/255, that the claims of hijack are about
ANY = "*"  # in a waiver: whichever method, whichever model


class Closed(BaseModel):
    """Frozen and strict: an unknown key, a number in quotes, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class ClaimPolicy(Closed):
    """What the policy says of one claim."""

    severity: Severity
    margin: float
    source: str = Field(min_length=1)  # where the margin comes from
    why: str = Field(min_length=1)  # it has this severity


Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Attacks(Closed):
    """How hard a run tries to hijack the model."""

    sizes: list[Annotated[int, Field(ge=1, le=255)]]  # of change, in steps of 1/255, the least first
    area: float = Field(ge=0.01, le=0.5)  # of the pixels: those that the map marks, and an attack may change
    steps: int = Field(ge=1, le=10_000)
    restarts: int = Field(ge=1, le=1000)
    queries: int = Field(ge=1, le=1_000_000)  # of the attack that needs no gradient
    beside: int = Field(ge=1, le=1_000_000)  # pictures that the attacks beside the judged ones are tried on
    source: Said | None = None  # class that others are hijacked to; drawn for every picture, if not given

    @field_validator("sizes")
    @classmethod
    def _judged_among_them(cls, sizes: list[int]) -> list[int]:
        if sizes != sorted(set(sizes)) or JUDGED not in sizes:
            raise PydanticCustomError("sizes", f"expected sizes in rising order, {JUDGED} (which is judged) among them")
        return sizes


class Profile(Closed):
    """How much evidence a run gathers."""

    images: int = Field(ge=1, le=1_000_000)  # at most
    chance_draws: int = Field(ge=1, le=1000)  # random maps per image, averaged; other repeats follow it
    seconds: float = Field(gt=0)  # of the whole run; what has no verdict by then is INCONCLUSIVE
    attacks: Attacks


class Waiver(Closed):
    """An entry of `[[waivers]]` in a policy."""

    claim: str = Field(min_length=1)  # its id, as in the report: "wall/leakage[gradcam]"; [*]: of whichever method
    subject: str = ANY  # the model's id, as in the report; *: whichever
    bound: float  # on the claim's own scale: its margin, for as long as the waiver lasts
    reason: Said
    owner: Said
    expires: date  # the last day

    @property
    def question(self) -> str:
        """The claim's name without its method: a key of the policy."""
        return self.claim.partition("[")[0]

    def covers(self, claim: str, subject: str) -> bool:
        """Whether it is for this claim of this model."""
        return self.subject in (ANY, subject) and self.claim in (claim, f"{claim.partition('[')[0]}[{ANY}]")


class PolicyFile(Closed):
    """A policy as it is written."""

    version: str
    level: float = Field(gt=0.5, lt=1)
    min_images: int = Field(ge=1, le=1_000_000)
    max_degenerate: float = Field(ge=0, lt=1)
    worse: float = Field(gt=0, lt=1)
    required: list[str]  # audits that must give a verdict
    inconclusive_exit: Literal[1, 6]
    profiles: dict[str, Profile]
    claims: dict[str, ClaimPolicy]
    waivers: list[Waiver]


class Policy(Closed):
    """The thresholds of one run."""

    path: str
    sha256: str  # of the merged content: two policies with one hash judge alike
    level: float
    min_images: int
    max_degenerate: float
    images: int
    chance_draws: int
    seconds: float
    attacks: Attacks
    claims: dict[str, ClaimPolicy]
    worse: float  # share of the range of a claim's values: who loses less is no worse than the baseline
    required: tuple[str, ...]
    inconclusive_exit: int  # exit code of a run in which nothing fails, and something that gates was not shown
    waivers: tuple[Waiver, ...]

    @property
    def per_image(self) -> dict[str, Any]:
        """How much is done to each image: what two measurements must share, whatever their profiles are called."""
        attacks = self.attacks.model_dump() | {"sizes": tuple(self.attacks.sizes)}  # as results.json is read
        return {"chance_draws": self.chance_draws, "attacks": attacks}


def load_policy(path: Path | None, *, profile: str, under: tuple[str, Mapping[str, Any]] | None = None) -> Policy:
    """The shipped policy with the user's laid over it, for one profile.

    Args:
        path: The user's file.
        profile: How much evidence.
        under: What is laid over the shipped policy before the file is, and where it is from.

    Raises:
        BadInput: The file is missing or no TOML, a key is unknown, a value is of the wrong type or out of range, or a
            waiver is for no claim.
    """
    content = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    content["claims"].update({name: dict(entry) for name, entry in ADDED.items()})
    layers = [(SHIPPED.name, content)]
    if under is not None and under[1]:
        layers.append(under)
    if path is not None:
        layers.append((str(path), read_policy(path)))
    for where, over in layers:  # each is held to account for what it says itself
        _lay_over(content, over, where, "")
        file = _checked(content, where)
    where = " over ".join(name for name, _ in reversed(layers[1:])) or SHIPPED.name
    if profile not in file.profiles:
        raise BadInput(f"no profile {profile!r} in {where}; known: {', '.join(file.profiles)}")
    for waiver in file.waivers:
        if waiver.question not in file.claims:
            hint = _hint(waiver.question, file.claims)
            raise BadInput(f"{where}: a waiver is for {waiver.claim!r}, which is no claim{hint}")
    audits = dict.fromkeys(name.partition("/")[0] for name in file.claims)
    for name in file.required:
        if name not in audits:
            raise BadInput(f"{where}: {name!r} is required, which is no audit{_hint(name, audits)}")
    return Policy(
        path=where,
        sha256=hashlib.sha256(repr(_sorted(content)).encode()).hexdigest(),
        level=file.level,
        min_images=file.min_images,
        max_degenerate=file.max_degenerate,
        claims=file.claims,
        worse=file.worse,
        required=tuple(file.required),
        inconclusive_exit=file.inconclusive_exit,
        waivers=tuple(file.waivers),
        **dict(file.profiles[profile]),
    )


def _checked(content: Mapping[str, Any], where: str) -> PolicyFile:
    try:
        return PolicyFile.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{where}: {first_complaint(error)}") from None


def first_complaint(error: ValidationError) -> str:
    """The first complaint in one line: where, what, and what was there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {place!r:.200}{_hint(str(first['loc'][-1]), Waiver.model_fields)}"
    return " ".join(f"{place}: {first['msg']}, got {shown(first['input'])}".split())


def _hint(key: str, known: Any) -> str:
    near = get_close_matches(key, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    names = list(known)
    return f"; known: {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}"


def read_policy(path: Path) -> dict[str, Any]:
    """What a policy's file holds, unchecked.

    Raises:
        BadInput: The file is missing or no TOML.
    """
    try:
        return read_toml(path, f"policy {str(path)!r:.300}")
    except FileNotFoundError:
        raise BadInput(f"no policy file {str(path)!r}; give an existing TOML file with --audit-policy") from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """What a file of the user's holds, unchecked.

    Args:
        path: The file.
        what: How a message calls it.

    Raises:
        FileNotFoundError: There is none.
        BadInput: It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # -sig: some editors write a byte order mark
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise BadInput(f"{what} cannot be read as TOML: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:  # a number of thousands of digits, lists in lists in lists
        raise BadInput(f"{what} cannot be read as TOML: {one_line(problem)}") from None


def _lay_over(base: dict[str, Any], over: Mapping[str, Any], path: str, prefix: str) -> None:
    """Change what `over` names, in place; what the values may be is for the models to say."""
    for key, value in over.items():
        if key not in base:
            raise BadInput(f"{path}: unknown key {prefix + key!r:.200}{_hint(key, base)}")
        if isinstance(base[key], dict) != isinstance(value, dict):
            raise BadInput(f"{path}: {prefix + key} must be {'a table' if isinstance(base[key], dict) else 'a value'}")
        if isinstance(value, dict):
            _lay_over(base[key], value, path, f"{prefix}{key}.")
        else:
            base[key] = value


def _sorted(content: Any) -> Any:
    return sorted((key, _sorted(value)) for key, value in content.items()) if isinstance(content, dict) else content
