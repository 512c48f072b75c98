"""Where a map lies, pixel by pixel, as the papers tell it: Zhang et al. 2016 (arXiv:1608.00507), Wang et al. 2020
(arXiv:1910.01279), Arras et al. 2022 (arXiv:2003.07258). Maps and masks are lists of rows. Slow on purpose.
"""

from collections.abc import Sequence
from itertools import product

Plane = Sequence[Sequence[float]]
Pixel = tuple[int, int]


def pixels(plane: Plane) -> list[Pixel]:
    """All places of a plane, row by row."""
    return list(product(range(len(plane)), range(len(plane[0]))))


def pointing_hit(saliency: Plane, mask: Plane, radius: float = 0.0) -> float:
    """Try every pixel that is as high as the highest: how many lie within `radius` of the object?"""
    highest = max(saliency[row][column] for row, column in pixels(saliency))
    points = [(row, column) for row, column in pixels(saliency) if saliency[row][column] == highest]
    return sum(hits(point, mask, radius) for point in points) / len(points)


def hits(point: Pixel, mask: Plane, radius: float) -> bool:
    """Whether some pixel of the object is no farther than `radius` from the point."""
    return any(
        mask[row][column] == 1 and (row - point[0]) ** 2 + (column - point[1]) ** 2 <= radius**2
        for row, column in pixels(mask)
    )


def energy_inside(saliency: Plane, mask: Plane) -> float:
    """The sum over the object, over the sum over all."""
    inside = outside = 0.0
    for row, column in pixels(saliency):
        if mask[row][column] == 1:
            inside += saliency[row][column]
        else:
            outside += saliency[row][column]
    return inside / (inside + outside)


def precision_at(saliency: Plane, mask: Plane, count: int) -> float:
    """Take the highest pixels one after the other; where several are as high, a fair share of each."""
    levels = sorted({saliency[row][column] for row, column in pixels(saliency)}, reverse=True)
    taken, found = 0, 0.0
    for level in levels:
        group = [(row, column) for row, column in pixels(saliency) if saliency[row][column] == level]
        wanted = min(len(group), count - taken)
        taken += wanted
        found += wanted * sum(mask[row][column] for row, column in group) / len(group)
        if taken == count:
            break
    return found / count


def rank_accuracy(saliency: Plane, mask: Plane) -> float:
    """As many pixels as the object has."""
    return precision_at(saliency, mask, int(sum(map(sum, mask))))


def cells_right(saliency: Plane, mask: Plane, down: int, right: int) -> float:
    """Move the map by a cell either way, and see between which two places its centre passes the even one's."""
    near = [
        [
            any(
                mask[row][column] == 1 and abs(row - r) <= down and abs(column - c) <= right
                for row, column in pixels(mask)
            )
            for c in range(len(mask[0]))
        ]
        for r in range(len(mask))
    ]
    width = len(mask[0])
    even = centre([[1.0] * width for _ in mask], near)
    offsets = {}
    for cells in (-1, 0, 1):
        moved = [[line[min(max(column - cells * right, 0), width - 1)] for column in range(width)] for line in saliency]
        offsets[cells] = centre(moved, near) - even
    if offsets[0] == 0:
        return 0.0
    side = -1 if offsets[0] > 0 else 1  # the way it has to be moved
    gain = abs(offsets[0]) + (offsets[side] * side)  # how far a cell that way brings it, past the middle perhaps
    if gain <= 0:
        return float(-side)
    return -side * min(1.0, abs(offsets[0]) / gain)


def centre(plane: Plane, near: Sequence[Sequence[bool]]) -> float:
    """The mean column of what lies near the object."""
    places = [(row, column) for row, column in pixels(plane) if near[row][column]]
    return sum(column * plane[row][column] for row, column in places) / sum(
        plane[row][column] for row, column in places
    )
