"""The registry of properties, and what became of one of them for one method of one implementation."""

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.conformance.adapter import METHODS, Adapter

Check = Callable[[Adapter, str], None]

# A handful of draws, the same everywhere and every time; a failing draw is reported as it is.
few = settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 9999)


@dataclass(frozen=True, kw_only=True)
class Property:
    """Something that must hold of each of `methods`. `check` raises where it does not."""

    name: str
    sentence: str
    check: Check
    methods: tuple[str, ...]
    unscaled: bool = False  # asks for the size of the numbers, which a map stretched from 0 to 1 has lost
    exceptions: Mapping[str, str] = field(default_factory=dict)  # method -> why its definition does not have it


PROPERTIES: dict[str, Property] = {}


def holds_for(
    *methods: str, unscaled: bool = False, exceptions: Mapping[str, str] | None = None
) -> Callable[[Check], Check]:
    """Make a check a property of these methods, of all if none is named; its docstring's first line is its sentence."""

    def add(check: Check) -> Check:
        PROPERTIES[check.__name__] = Property(
            name=check.__name__,
            sentence=(check.__doc__ or "").strip().partition("\n")[0],
            check=check,
            methods=methods or METHODS,
            unscaled=unscaled,
            exceptions=exceptions or {},
        )
        return check

    return add


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`exception`: declared, and measured to be needed. `not asked`: the map has lost what the property is about."""

    kind: Literal["ok", "FAILS", "exception", "not offered", "not asked"]
    detail: str = ""


def ask(adapter: Adapter, name: str, method: str) -> Outcome:
    """Put one property to one method of an implementation. What it prints, and its progress bars, are not shown."""
    asked = PROPERTIES[name]
    if method not in adapter.methods:
        return Outcome(kind="not offered")
    if asked.unscaled and adapter.gives == "unit_range":
        return Outcome(kind="not asked", detail="maps stretched from 0 to 1 have lost the sum")
    by_definition = asked.exceptions.get(method, "")
    reason = by_definition or adapter.exceptions.get(f"{name}/{method}") or adapter.exceptions.get(name, "")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            asked.check(adapter, method)
    except Exception as failure:  # whatever an implementation raises is its answer
        message = " ".join(str(failure).split())
        if not isinstance(failure, AssertionError):
            message = f"{type(failure).__name__}: {message}"
        return Outcome(kind="exception", detail=reason) if reason else Outcome(kind="FAILS", detail=message)
    if by_definition:
        return Outcome(kind="FAILS", detail=f"expected that it cannot hold ({reason}), observed that it holds")
    if reason:
        return Outcome(kind="FAILS", detail=f"declared as an exception ({reason}), but it holds: drop the declaration")
    return Outcome(kind="ok")
