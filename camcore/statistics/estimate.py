"""A number with the interval that says how far it can be trusted."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What was measured, and between which bounds the truth lies.

    Attributes:
        point: Mean of the values, in the unit of the measure; NaN when there are none.
        low: Lower end of the interval, same unit; the smallest possible value when nothing was learned.
        high: Upper end of the interval, same unit; never below `low`.
        level: Probability, in (0, 1), that the interval covers the truth: 0.95, or more inside a family of claims.
        n: Independent units behind it (images, scene pairs), after repeats inside a unit were averaged.
        method: Name of the interval, for the reader of a report.
    """

    point: float
    low: float
    high: float
    level: float
    n: int
    method: str
