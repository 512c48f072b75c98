"""Intervals for the mean of bounded values that stay valid however often one looks, and wherever one stops.

Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS-B 86(1), arXiv:2010.09686:
their hedged capital, its bets a fixed mixture of fractions (their diversified Kelly betting). A mean against which the
gambler of `capital.py` got rich is refuted; the interval holds the others.
"""

from collections.abc import Sequence
from math import inf, log, nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camcore.statistics.capital import (
    FRACTIONS,
    log_capital,
    log_shared,
    look_times,
    rescaled,
    rescaled_band,
    rescaled_margin,
)
from camcore.statistics.estimate import Estimate

METHOD = "betting confidence sequence (Waudby-Smith and Ramdas 2024)"

HALVINGS = 44  # of [0, 1]: an endpoint is within 6e-14 of the range, on the side that makes the interval wider
FARTHEST = 10_000_000  # values; advice to measure more than that is no advice


def confidence_sequence(
    values: ArrayLike,
    *,
    level: float,
    bounds: tuple[float, float] = (0.0, 1.0),
    counts: Sequence[int] | None = None,
) -> Estimate:
    """Interval for the mean that covers it at every look at once, with probability at least `level`.

    Args:
        values: One number per unit, in the order they were measured: independent draws from one population.
        level: Of coverage, in (0, 1).
        bounds: The smallest and largest possible value, known before anything was measured.
        counts: The looks: after how many values the interval was (or could have been) consulted, increasing. The end is
            always a look. The interval is the intersection over the looks; which looks were planned need not be known
            in advance. Should it be empty, which happens with probability at most 1 - level, the values contradict the
            assumptions or were very unlucky: the interval of the last look is returned alone.

    Returns:
        Mean and interval in the unit of the values. Without values: the bounds, and NaN for the mean. With several
        looks the mean may lie outside: a narrow early interval is not forgotten.

    Raises:
        ValueError: If a value is not finite or out of bounds, or if level, bounds or counts make no sense.
    """
    riches = _riches(level)
    x = rescaled(values, bounds)
    smallest, largest = bounds
    n = len(x)
    if n == 0:
        return Estimate(point=nan, low=float(smallest), high=float(largest), level=level, n=0, method=METHOD)
    looks = look_times(counts, n)
    low, from_top = _refuted_up_to(x, looks, riches), _refuted_up_to(1 - x, looks, riches)
    if low > 1 - from_top:
        low, from_top = _refuted_up_to(x, looks[-1:], riches), _refuted_up_to(1 - x, looks[-1:], riches)
    width = largest - smallest
    return Estimate(
        point=float(smallest + width * x.mean()),
        low=smallest + width * low,
        high=largest - width * from_top,
        level=level,
        n=n,
        method=METHOD,
    )


def p_value(
    values: ArrayLike,
    margin: float,
    *,
    bounds: tuple[float, float],
    counts: Sequence[int] | None = None,
) -> float:
    """Anytime-valid p-value of "the mean is at most `margin`": small values support a mean above it.

    One-sided, so that the interval at `level` lies above the margin exactly when p <= (1 - level) / 2. For "at least",
    negate values, margin and bounds.

    Args:
        values: One number per unit, in the order they were measured.
        margin: Inside the bounds; a margin below them would be cleared by any values.
        bounds: The smallest and largest possible value.
        counts: The looks, as in `confidence_sequence`; the end is always one.

    Returns:
        In [0, 1]; 1 without values. Over all looks at once, P(p <= u) <= u if the mean is at most the margin.

    Raises:
        ValueError: If a value is not finite or out of bounds, the margin is out of bounds, or the counts make no sense.
    """
    x = rescaled(values, bounds)
    return _p(x, rescaled_margin(margin, bounds), counts)


def equivalence_p_value(
    values: ArrayLike,
    margin: float,
    *,
    bounds: tuple[float, float],
    counts: Sequence[int] | None = None,
) -> float:
    """Anytime-valid p-value of "the mean is `margin` or more away from 0": small values support equivalence.

    The larger of two one-sided p-values, so neither needs correcting (Schuirmann 1987: TOST).

    Args:
        values: One number per unit, in the order they were measured.
        margin: Half the width of the tolerated band (-margin, margin); positive, with a part of the bounds outside.
        bounds: The smallest and largest possible value.
        counts: The looks, as in `confidence_sequence`; the end is always one.

    Returns:
        In [0, 1]; 1 without values.

    Raises:
        ValueError: If a value is not finite or out of bounds, the band is empty or holds all possible values, or the
            counts make no sense.
    """
    x = rescaled(values, bounds)
    low, high = rescaled_band(margin, bounds)
    return max(_p(x, low, counts), _p(1 - x, 1 - high, counts))


def n_needed(
    values: ArrayLike,
    margin: float,
    *,
    level: float,
    bounds: tuple[float, float],
    direction: Literal["above", "within"] = "above",
) -> int | None:
    """How many values it would take to decide, either way, if they went on exactly as they began.

    The capital of every fraction is taken to grow at the rate it has had so far. An extrapolation from the sample, not
    a guarantee: it is as uncertain as the effect it rests on.

    Args:
        values: One number per unit.
        margin: What the interval has to clear ("above") or to lie inside of, on both sides ("within").
        level: Of the interval, in (0, 1).
        bounds: The smallest and largest possible value.
        direction: As in a claim.

    Returns:
        At least one more than there are; None if there are no values, no effect, or if it would take over ten million.

    Raises:
        ValueError: As in `p_value` and `equivalence_p_value`.
    """
    riches = _riches(level)
    x = rescaled(values, bounds)
    if len(x) == 0:
        return None
    if direction == "above":
        m = rescaled_margin(margin, bounds)
        needed = min(_n_to_refute(x, m, riches), _n_to_refute(1 - x, 1 - m, riches))
    else:
        low, high = rescaled_band(margin, bounds)
        passes = max(_n_to_refute(x, low, riches), _n_to_refute(1 - x, 1 - high, riches))
        needed = min(passes, _n_to_refute(x, high, riches), _n_to_refute(1 - x, 1 - low, riches))
    return None if needed > FARTHEST else max(int(needed), len(x) + 1)


def _riches(level: float) -> float:
    """Log of the capital that refutes; each side of the interval may err with half of what is allowed."""
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.95 is 95 %")
    return log(2 / (1 - level))


def _refuted_up_to(x: NDArray[np.float64], looks: NDArray[np.int64], riches: float) -> float:
    """The largest m that some look refutes as an upper bound of the mean, by bisection; 0 if there is none."""
    refuted, stands = 0.0, 1.0
    for _ in range(HALVINGS):
        m = (refuted + stands) / 2
        if log_capital(x, m, looks).max() >= riches:
            refuted = m
        else:
            stands = m
    return refuted


def _p(x: NDArray[np.float64], m: float, counts: Sequence[int] | None) -> float:
    if len(x) == 0:
        return 1.0
    return float(np.exp(-max(0.0, log_capital(x, m, look_times(counts, len(x))).max())))


def _n_to_refute(x: NDArray[np.float64], m: float, riches: float) -> float:
    """Values until the capital against "the mean is at most m" makes rich, at the average growth so far."""
    if m <= 0:
        return 1.0 if log_capital(x, m, np.array([len(x)]))[0] > 0 else inf
    rates = np.log1p(FRACTIONS[:, None] * (x / m - 1)).mean(axis=-1)

    def rich(n: int) -> bool:
        return bool(log_shared(n * rates) >= riches)

    if not rich(FARTHEST):
        return inf
    # the log of a mean of exponentials is convex in n and starts at 0: once it is above 0, it only grows
    poor, enough = 0, FARTHEST
    while enough - poor > 1:
        n = (poor + enough) // 2
        poor, enough = (poor, n) if rich(n) else (n, enough)
    return float(enough)
