"""From several numbers per unit to one: differences of pairs, means of repeats."""

from collections.abc import Hashable, Mapping, Sequence


def paired_differences(
    ours: Mapping[str, float] | Sequence[float], theirs: Mapping[str, float] | Sequence[float]
) -> list[float]:
    """Ours minus theirs, unit by unit, in our order.

    Args:
        ours: One value per unit; as a mapping from unit to value, pairs are found by name.
        theirs: The same units; both are mappings or neither is.

    Returns:
        One difference per unit; values in [low, high] give differences in [low - high, high - low].

    Raises:
        ValueError: If the units are not the same: a pair that does not exist cannot be compared.
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        if ours.keys() != theirs.keys():
            raise ValueError(
                f"both sides must have the same units; only ours: {_some(ours.keys() - theirs.keys())}; "
                f"only theirs: {_some(theirs.keys() - ours.keys())}; compare runs on the same images"
            )
        return [float(value - theirs[unit]) for unit, value in ours.items()]
    if isinstance(ours, Mapping) or isinstance(theirs, Mapping):
        raise ValueError("both sides must name their units or neither, got one mapping and one sequence")
    if len(ours) != len(theirs):
        raise ValueError(f"both sides must have the same units, got {len(ours)} and {len(theirs)} values")
    return [float(a - b) for a, b in zip(ours, theirs, strict=True)]


def cluster_means(values: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """Average the repeats inside each unit; crops, restarts and captions of one image are not independent.

    Args:
        values: One per repeat.
        clusters: The unit each repeat belongs to, same length.

    Returns:
        One mean per unit, in the order in which the units first appear. Units count alike, whatever their repeats.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(values) != len(clusters):
        raise ValueError(f"every value needs a cluster, got {len(values)} values and {len(clusters)} clusters")
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(float(value))
    return [sum(repeats) / len(repeats) for repeats in members.values()]


def _some(units: set[str]) -> str:
    """The first three names, and how many more."""
    names = sorted(units)
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"
