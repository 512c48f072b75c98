"""Two measurements of the same units, unit by unit: a plain summary, and no test.

The difference is new less old, signed so that more supports the claim. The interval is Student's, at 95 %, of the mean
over the units that both runs measured. It knows nothing of how many claims a reader looks at, nor that a run may have
stopped early; what is tested is tested by a run with `--audit-baseline`.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import stdtrit

from reports.schema import Claim

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One image (or scene pair) in both runs."""

    name: str
    old: float
    new: float
    change: float  # more supports the claim


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What became of a claim's units."""

    units: tuple[Unit, ...]  # those that moved most come first
    alone: int  # units that only one of the two runs measured, or that have no number in one
    mean: float | None  # None when no unit is in both, or when the numbers are too large to be added
    interval: tuple[float, float] | None  # None also for a single unit
    scale: float  # range of the values: what a change of 1 would be

    @property
    def better(self) -> int:
        """Units that support the claim more than they did."""
        return sum(unit.change > 0 for unit in self.units)

    @property
    def worse(self) -> int:
        """Units that support it less."""
        return sum(unit.change < 0 for unit in self.units)

    @property
    def moved(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def paired(old: Claim, new: Claim) -> Paired:
    """Set the units of two claims beside each other; whoever calls has seen to it that their terms are the same."""
    before = {name: value for name, value in zip(old.units, old.values, strict=True) if value is not None}
    after = {name: value for name, value in zip(new.units, new.values, strict=True) if value is not None}
    units = [
        Unit(name=name, old=before[name], new=value, change=_supports(new, value) - _supports(new, before[name]))
        for name, value in after.items()
        if name in before
    ]
    low, high = new.bounds
    scale = max(abs(low), abs(high)) if new.measure.direction == "within" else high - low
    mean, interval = _student([unit.change for unit in units])
    return Paired(
        units=tuple(sorted(units, key=lambda unit: -abs(unit.change))),
        alone=len({*old.units, *new.units}) - len(units),
        mean=mean,
        interval=interval,
        scale=scale if 0 < scale < float("inf") else 1.0,
    )


def _supports(claim: Claim, value: float) -> float:
    return -abs(value) if claim.measure.direction == "within" else value


def _student(changes: list[float]) -> tuple[float | None, tuple[float, float] | None]:
    """Mean, and its interval."""
    n = len(changes)
    if not n:
        return None, None
    with np.errstate(all="ignore"):  # values near the largest float: their mean is no number, and is shown as none
        mean = float(np.mean(changes))
        spread = float(np.std(changes, ddof=1)) / sqrt(n) if n > 1 else float("nan")
    if not np.isfinite(mean):
        return None, None
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * spread if n > 1 else float("nan")
    return mean, (mean - half, mean + half) if np.isfinite(half) else None
