"""Exact interval for a proportion at a sample size that was fixed beforehand."""

from math import nan

from scipy.special import betaincinv

from camcore.statistics.estimate import Estimate

METHOD = "Clopper-Pearson, exact"


def clopper_pearson(successes: int, n: int, *, level: float) -> Estimate:
    """The interval that covers a proportion with probability at least `level`, whatever the proportion.

    Valid for one look at an `n` fixed in advance; someone who stops when it looks good needs `confidence_sequence`.

    Args:
        successes: How many of the n.
        n: Independent trials. With 0 the interval is [0, 1] and the point NaN.
        level: Of coverage, in (0, 1).

    Returns:
        The proportion with its interval, in [0, 1].

    Raises:
        ValueError: If successes are not between 0 and n, or level is not in (0, 1).

    Reference: Clopper and Pearson 1934, Biometrika 26; the ends are quantiles of beta distributions.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.95 is 95 %")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n, got {successes} of {n}")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Estimate(point=successes / n if n else nan, low=low, high=high, level=level, n=n, method=METHOD)
