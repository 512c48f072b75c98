"""Where a curve reaches a level, as tables say it."""

from collections.abc import Mapping
from math import isnan, nan


def first_at(curve: Mapping[float, float], level: float) -> tuple[str, float]:
    """Where a curve first reaches a level, on straight lines between its points.

    Args:
        curve: x -> y, the x increasing.
        level: To be reached.

    Returns:
        ("", x); where the first point reaches it already, ("at most ", its x); where none does, ("more than ", the
        last x). NaN where the curve has no numbers to tell by.
    """
    if any(isnan(y) for y in curve.values()):
        return "", nan
    before = None
    for x, y in curve.items():
        if y >= level:
            if before is None:
                return "at most ", x
            left, low = before
            return "", left + (x - left) * (level - low) / (y - low)
        before = (x, y)
    return "more than ", x
