"""Holm 1979 by the book: reject the smallest, then the next among those left, and stop at the first that stands."""

from collections.abc import Sequence


def holm_rejects(p_values: Sequence[float | None], level: float) -> set[int]:
    """Positions rejected at familywise `level`; a missing p-value counts and is never rejected."""
    left = set(range(len(p_values)))
    rejected: set[int] = set()
    while left:
        known = [i for i in left if p_values[i] is not None]
        if not known:
            return rejected
        best = min(known, key=lambda i: p_values[i])
        if p_values[best] > level / len(left):
            return rejected
        left.remove(best)
        rejected.add(best)
    return rejected
