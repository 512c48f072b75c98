"""A mean in which every group of units counts alike, however many units it has."""

from collections.abc import Hashable, Sequence
from math import nan

from camcore.statistics.paired import cluster_means


def macro_mean(values: Sequence[float], groups: Sequence[Hashable], *, least: int = 1) -> float:
    """The mean over groups of the mean of each: how benchmarks with rare relations are scored.

    Args:
        values: One per unit.
        groups: The group of each unit, same length.
        least: Units that a group needs to count (ARO's attributes: 25).

    Returns:
        The mean; NaN if no group has units enough.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(values) != len(groups):
        raise ValueError(f"every value needs a group, got {len(values)} values and {len(groups)} groups")
    sizes: dict[Hashable, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    kept = [(value, group) for value, group in zip(values, groups, strict=True) if sizes[group] >= least]
    means = cluster_means([value for value, _ in kept], [group for _, group in kept])
    return sum(means) / len(means) if means else nan
