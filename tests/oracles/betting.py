"""Slow transcriptions: the mixture of fixed fractions as written, and the plug-in bets of the paper.

Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS-B 86(1), arXiv:2010.09686.
"""

from collections.abc import Callable, Sequence
from math import log, sqrt

Capitals = Callable[[Sequence[float], float], tuple[float, float]]


def mixture_capitals(values: Sequence[float], m: float, fractions: Sequence[float]) -> tuple[float, float]:
    """Capital against "the mean is at most m", and against "at least m", by plain products; 0 < m < 1."""
    above = below = 0.0
    for f in fractions:
        up = down = 1.0
        for x in values:
            up *= 1 - f + f * x / m
            down *= 1 - f + f * (1 - x) / (1 - m)
        above += up / len(fractions)
        below += down / len(fractions)
    return above, below


def plug_in_capitals(values: Sequence[float], m: float, alpha: float, c: float = 0.5) -> tuple[float, float]:
    """Hedged capital with predictable plug-in bets: theorem 3 and the definitions around it, theta = 1/2."""
    up = down = 1.0
    total, squares = 0.0, 0.0
    variance = 1 / 4
    for t, x in enumerate(values, start=1):
        bet = sqrt(2 * log(2 / alpha) / (variance * t * log(t + 1)))
        up *= 1 + min(bet, c / m) * (x - m)
        down *= 1 - min(bet, c / (1 - m)) * (x - m)
        total += x
        mean = (1 / 2 + total) / (t + 1)
        squares += (x - mean) ** 2
        variance = (1 / 4 + squares) / (t + 1)
    return up, down


def scanned_interval(
    values: Sequence[float], capitals: Capitals, *, alpha: float, breaks: int = 500
) -> tuple[float, float]:
    """The first and the last m of a grid that neither gambler refutes."""
    grid = [i / breaks for i in range(1, breaks)]
    standing = [m for m in grid if max(capitals(values, m)) < 2 / alpha]
    return min(standing), max(standing)
