"""Many claims in one run: the more questions are asked, the surer each answer has to be."""

from collections.abc import Sequence
from math import isnan


def simultaneous_level(level: float, claims: int) -> float:
    """The level each of `claims` intervals needs so that all of them hold together with probability `level`.

    Bonferroni: valid whatever the dependence between the claims, which share a model and images.

    Args:
        level: Of the family, in (0, 1).
        claims: How many claims the family has, answered or not.

    Raises:
        ValueError: If level is not in (0, 1) or there are no claims.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.95 is 95 %")
    if claims < 1:
        raise ValueError(f"a family needs at least one claim, got {claims}")
    return 1 - (1 - level) / claims


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values: those at or below u may be rejected together, with familywise error at most u.

    Args:
        p_values: One per claim. None (not measured, not applicable, errored) stays None and still counts: a family does
            not shrink because an answer is missing.

    Returns:
        In the order given.

    Raises:
        ValueError: If a p-value is not in [0, 1].

    Reference: Holm 1979, Scandinavian Journal of Statistics 6; uniformly more powerful than Bonferroni.
    """
    for position, p in enumerate(p_values):
        if p is not None and (isnan(p) or not 0 <= p <= 1):
            raise ValueError(f"p-values must be in [0, 1] or None, got {p} at position {position}")
    adjusted: list[float | None] = [None] * len(p_values)
    known = sorted((p, position) for position, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, position) in enumerate(known):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[position] = largest
    return adjusted
