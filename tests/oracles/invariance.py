"""Comparisons of two maps, and a first layer that absorbs a shift, written out loop by loop."""

from collections.abc import Sequence
from math import sqrt

Rows = Sequence[Sequence[float]]


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; equal values share the mean of the places they take."""
    found = []
    for value in values:
        smaller = sum(other < value for other in values)
        equal = sum(other == value for other in values)
        found.append(smaller + (equal + 1) / 2)
    return found


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's correlation of the ranks."""
    a, b = ranks(one), ranks(other)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    above = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return above / sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def relative_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """|a - b| / (|a| + |b|)."""
    apart = sqrt(sum((x - y) ** 2 for x, y in zip(one, other, strict=True)))
    return apart / (sqrt(sum(x * x for x in one)) + sqrt(sum(y * y for y in other)))


def sensitivity(one: Sequence[float], other: Sequence[float]) -> float:
    """|b - a| / |a|."""
    return sqrt(sum((x - y) ** 2 for x, y in zip(one, other, strict=True))) / sqrt(sum(x * x for x in one))


def height_at(cells: Rows, row: float, column: float, first: tuple[float, float], step: tuple[float, float]) -> float:
    """The map at a pixel, by bilinear interpolation between the four cells around it."""
    i, j = (row - first[0]) / step[0], (column - first[1]) / step[1]
    top, left = min(int(i), len(cells) - 2), min(int(j), len(cells[0]) - 2)
    down, across = i - top, j - left
    above = cells[top][left] * (1 - across) + cells[top][left + 1] * across
    below = cells[top + 1][left] * (1 - across) + cells[top + 1][left + 1] * across
    return above * (1 - down) + below * down


def inside(cells: int, pixels: int, first: float, step: float) -> list[int]:
    """The pixels that lie between the first and the last cell."""
    return [pixel for pixel in range(pixels) if first <= pixel <= first + step * (cells - 1)]


def mirror_likeness(
    one: Rows, of_mirrored: Rows, size: tuple[int, int], first: tuple[float, float], step: tuple[float, float]
) -> float:
    """Pixel by pixel: what is at (r, c) in the picture is at (r, w - 1 - c) in the mirrored one."""
    rows = inside(len(one), size[0], first[0], step[0])
    columns = inside(len(one[0]), size[1], first[1], step[1])
    a, b = [], []
    for r in rows:
        for c in columns:
            if size[1] - 1 - c in columns:
                a.append(height_at(one, r, c, first, step))
                b.append(height_at(of_mirrored, r, size[1] - 1 - c, first, step))
    return spearman([round(x, 9) for x in a], [round(x, 9) for x in b])


def translation_likeness(
    one: Rows,
    of_moved: Rows,
    size: tuple[int, int],
    first: tuple[float, float],
    step: tuple[float, float],
    down: int,
    right: int,
) -> float:
    """Pixel by pixel: what is at (r, c) in the picture is at (r + down, c + right) in the moved one."""
    rows = inside(len(one), size[0], first[0], step[0])
    columns = inside(len(one[0]), size[1], first[1], step[1])
    a, b = [], []
    for r in rows:
        for c in columns:
            if r + down in rows and c + right in columns:
                a.append(height_at(one, r, c, first, step))
                b.append(height_at(of_moved, r + down, c + right, first, step))
    return spearman([round(x, 9) for x in a], [round(x, 9) for x in b])
