"""What a gambler owns who bets against a mean: the arithmetic under every interval and p-value of this package.

A gambler who doubts "the mean is at most m" stakes, on every value x in [0, 1], a fraction f of the capital on x being
larger: the capital is multiplied by 1 - f + f x / m. Where the doubt is wrong, the capital is a nonnegative
supermartingale that starts at 1, and the chance that it ever reaches 1 / a is at most a (Ville 1939). "The mean is at
least m" is the same doubt about 1 - x and 1 - m.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, log

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

# The capital is shared equally among these fractions. The best one is near m * effect / variance: small effects in many
# images ask for hundredths, values that hardly vary for nearly everything. Even steps in log-odds serve both; a step of
# 0.6 leaves the best fraction within a factor 1.35 of one of them, which keeps 93 % of its growth, while each further
# fraction would thin out the shares of the good ones. Never 1: a single 0 would ruin that gambler for ever. Widths
# against the bets of the paper are in docs/statistics.md.
FRACTIONS: NDArray[np.float64] = expit(np.linspace(-5.0, 4.0, 16))

ROUNDING = 1e-6  # of the range: a softmax in float32 can say 1.0000001


def log_capital(x: NDArray[np.float64], m: float, looks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log of the capital against "the mean is at most m" after each look, [..., looks], for values [..., n] in [0, 1].

    Falls in m. At m = 0 a single positive value makes rich; a mean below 0 is refuted before anything is seen.
    """
    if m < 0:
        return np.full((*x.shape[:-1], len(looks)), inf)
    if m == 0:
        positive = np.logical_or.accumulate(x > 0, axis=-1)[..., looks - 1]
        return np.where(positive, inf, 0.0)
    starts = np.concatenate(([0], looks[:-1]))
    stakes = np.log1p(FRACTIONS[:, None] * (x[..., None, : looks[-1]] / m - 1))
    growth = np.add.reduceat(stakes, starts, axis=-1).cumsum(axis=-1)
    return log_shared(growth, axis=-2)


def log_shared(growth: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """Log of the capital, from the logs of what each fraction's share was multiplied by, along `axis`."""
    # an interval asks hundreds of times: scipy's logsumexp takes four times as long for so few numbers
    return np.asarray(np.logaddexp.reduce(growth, axis=axis) - log(len(FRACTIONS)))


def rescaled(values: ArrayLike, bounds: tuple[float, float]) -> NDArray[np.float64]:
    """Values as fractions of the way from the smallest possible to the largest; refuses what is not within."""
    smallest, largest = bounds
    if not -inf < smallest < largest < inf:
        raise ValueError(f"bounds must be two finite numbers in increasing order, got {bounds}")
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 1:
        raise ValueError(f"values must be one number per unit, got an array of shape {v.shape}; average repeats first")
    slack = ROUNDING * (largest - smallest)
    bad = np.flatnonzero(~((v >= smallest - slack) & (v <= largest + slack)))  # NaN compares false
    if len(bad):
        raise ValueError(
            f"values must be finite and within bounds {bounds}, got {v[bad[0]]} at position {bad[0]} ({len(bad)} so); "
            "report units that gave nothing to measure apart, or correct the bounds"
        )
    return np.clip((v - smallest) / (largest - smallest), 0.0, 1.0)


def rescaled_margin(margin: float, bounds: tuple[float, float]) -> float:
    """A margin on the scale of `rescaled`; refuses one outside the bounds, which any values or none would clear."""
    smallest, largest = bounds
    if not smallest <= margin <= largest:
        raise ValueError(f"margin must lie within bounds {bounds}, got {margin}; no value could ever decide the claim")
    return (margin - smallest) / (largest - smallest)


def rescaled_band(margin: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Both ends of (-margin, margin) on the scale of `rescaled`; one of them may lie outside [0, 1]."""
    smallest, largest = bounds
    if not 0 < margin <= max(-smallest, largest):
        raise ValueError(f"margin must be positive, and (-margin, margin) not hold all of {bounds}, got {margin}")
    return (-margin - smallest) / (largest - smallest), (margin - smallest) / (largest - smallest)


def look_times(counts: Sequence[int] | None, n: int) -> NDArray[np.int64]:
    """The looks with the end added: an anytime-valid interval may always be consulted once more."""
    after = [int(count) for count in counts or ()]
    if after and (after[0] < 1 or after[-1] > n or any(a >= b for a, b in pairwise(after))):
        raise ValueError(f"counts must increase from at least 1 to at most n={n}, got {after}")
    return np.array(after if after and after[-1] == n else [*after, n], dtype=np.int64)
