"""Claims, verdicts, and the one rule that turns an interval into a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isnan
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from camcore.images import Image
from camcore.statistics.estimate import Estimate

Severity = Literal["gate", "warn", "info"]
Rank = Literal["worst", "typical", "best"]  # of an image among those of a claim, by what it says for the claim


class Outcome(StrEnum):
    """The five answers an audit can give."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    ERROR = "ERROR"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that a model either supports or not.

    Estimates are signed so that larger supports the claim. `direction` "above": the whole interval must lie above
    `margin`. "within": the whole interval must lie inside (-margin, margin): equivalence, never "no significant
    difference".
    """

    id: str  # "<audit>/<claim>[<parameters>]", for example "wall/leakage[hirescam]"
    sentence: str
    # Ribeiro et al. 2020 (CheckList): minimum functionality, invariance, directional expectation
    kind: Literal["MFT", "INV", "DIR"]
    measure: str  # what is measured, in words: the label of the axis
    unit: str
    margin: float
    margin_source: str
    severity: Severity
    bounds: tuple[float, float] = (0.0, 1.0)  # the values' range, known before anything is measured
    direction: Literal["above", "within"] = "above"

    @property
    def gates(self) -> bool:
        """Whether the exit code depends on it."""
        return self.severity == "gate"


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """An image, and the saliency map that explains it, if there is one."""

    unit: str
    role: Rank
    value: float
    caption: str
    image: Image
    saliency: Float[Tensor, "h w"] | None  # in [0, 1], at the image's size; None: the image is shown alone
    dead_from_row: int | None = None  # the first pixel row that the model cannot see
    outline: Float[Tensor, "h w"] | None = None  # 1 on what is outlined, 0 elsewhere: the object, say


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Means over images along an axis, several series in one figure."""

    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    series: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers that stand beside the verdict and do not decide it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int, ...], ...]


Evidence = Overlay | Curve | Table


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to one claim, with what it rests on."""

    claim: Claim
    outcome: Outcome
    reason: str  # one sentence a stranger can act on
    estimate: Estimate | None = None
    p: float | None = None  # anytime-valid, of "the mean is at or below the margin"
    n_needed: int | None = None  # images it would take to decide, when INCONCLUSIVE
    values: Mapping[str, float] = field(default_factory=dict)  # image id -> value, in the order they were measured
    evidence: tuple[Evidence, ...] = ()
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0


def judge(estimate: Estimate, claim: Claim) -> Outcome:
    """Compare the whole interval with the margin; an interval that straddles it decides nothing."""
    low, high = estimate.low, estimate.high
    if isnan(low) or isnan(high):
        return Outcome.ERROR
    if claim.direction == "within":
        if -claim.margin < low and high < claim.margin:
            return Outcome.PASS
        return Outcome.FAIL if low >= claim.margin or high <= -claim.margin else Outcome.INCONCLUSIVE
    if low > claim.margin:
        return Outcome.PASS
    return Outcome.FAIL if high <= claim.margin else Outcome.INCONCLUSIVE
