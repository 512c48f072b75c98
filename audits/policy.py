"""The policy: every threshold, read from TOML and checked before anything is measured."""

import hashlib
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

from camcore.errors import BadInput

SHIPPED = Path(__file__).with_name("policy.toml")
SEVERITIES = ("gate", "warn", "info")


@dataclass(frozen=True, kw_only=True)
class ClaimPolicy:
    """What the policy says of one claim."""

    severity: str
    margin: float
    source: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The thresholds of one run."""

    path: str
    sha256: str  # of the merged content: two policies with one hash judge alike
    level: float
    min_images: int
    max_degenerate: float
    images: int
    chance_draws: int
    claims: dict[str, ClaimPolicy]


def load_policy(path: Path | None, *, profile: str) -> Policy:
    """The shipped policy with the user's laid over it, for one profile.

    Raises:
        BadInput: The file is missing or no TOML, a key is unknown, or a value is of the wrong type or out of range.
    """
    content = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    if path is not None:
        _lay_over(content, _read(path), str(path), "")
    where = str(path or SHIPPED.name)
    chosen = content["profiles"].get(profile)
    if chosen is None:
        raise BadInput(f"no profile {profile!r} in {where}; known: {', '.join(content['profiles'])}")
    claims = {}
    for name, claim in content["claims"].items():
        if claim["severity"] not in SEVERITIES:
            raise BadInput(
                f"{where}: claims.{name}.severity is {claim['severity']!r}; choose one of {', '.join(SEVERITIES)}"
            )
        if not isfinite(claim["margin"]):
            raise BadInput(f"{where}: claims.{name}.margin is {claim['margin']!r}; it must be a finite number")
        claims[name] = ClaimPolicy(**claim)
    for key, low, high in (("level", 0.5, 1), ("max_degenerate", -1e-9, 1)):
        if not low < content[key] < high:
            raise BadInput(f"{where}: {key} is {content[key]!r}; it must lie between {max(low, 0):g} and {high:g}")
    for key, value in (
        ("min_images", content["min_images"]),
        *((f"profiles.{profile}.{k}", v) for k, v in chosen.items()),
    ):
        if value < 1:
            raise BadInput(f"{where}: {key} is {value!r}; it must be at least 1")
    return Policy(
        path=where,
        sha256=hashlib.sha256(repr(_sorted(content)).encode()).hexdigest(),
        level=float(content["level"]),
        min_images=content["min_images"],
        max_degenerate=float(content["max_degenerate"]),
        claims=claims,
        **chosen,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"no policy file {str(path)!r}; give an existing TOML file with --audit-policy") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise BadInput(f"policy {str(path)!r} cannot be read as TOML: {problem}") from None


def _lay_over(base: dict[str, Any], over: dict[str, Any], path: str, prefix: str) -> None:
    for key, value in over.items():
        if key not in base:
            near = get_close_matches(key, base, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(base)}"
            raise BadInput(f"{path}: unknown key {prefix + key!r}{hint}")
        if isinstance(base[key], dict) != isinstance(value, dict):
            raise BadInput(f"{path}: {prefix + key} must be {'a table' if isinstance(base[key], dict) else 'a value'}")
        if isinstance(value, dict):
            _lay_over(base[key], value, path, f"{prefix}{key}.")
            continue
        wanted = (int, float) if isinstance(base[key], float) else type(base[key])
        if not isinstance(value, wanted) or isinstance(value, bool):
            kind = "a number" if isinstance(base[key], float) else type(base[key]).__name__
            raise BadInput(f"{path}: {prefix + key} must be {kind}, got {value!r}")
        base[key] = value


def _sorted(content: Any) -> Any:
    return sorted((key, _sorted(value)) for key, value in content.items()) if isinstance(content, dict) else content
