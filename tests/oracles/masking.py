"""Occlusion and RISE as the papers tell them: one image, one mask, one pixel at a time, in float64. Slow on purpose."""

from collections.abc import Callable, Iterator
from itertools import product
from math import ceil, floor

import numpy as np

Array = np.ndarray
Score = Callable[[Array], float]  # of one image (channels, rows, columns)


def occlusion(score: Score, image: Array, window: int, stride: int, baseline: Array) -> Array:
    """Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2: hide a square, see the score drop, move on.

    A pixel gets the mean drop over the squares that covered it; the last square of a row or column ends with the image.
    """
    _, height, width = image.shape
    total, covered = np.zeros((height, width)), np.zeros((height, width))
    for top in corners(height, window, stride):
        for left in corners(width, window, stride):
            hidden = image.copy()
            for c, i, j in product(range(3), range(top, top + window), range(left, left + window)):
                hidden[c, i, j] = baseline[c, i, j]
            drop = score(image) - score(hidden)
            for i, j in product(range(top, top + window), range(left, left + window)):
                total[i, j] += drop
                covered[i, j] += 1
    return total / covered


def corners(side: int, window: int, stride: int) -> list[int]:
    """Where the squares begin along one side."""
    found, corner = [], 0
    while corner + window < side:
        found.append(corner)
        corner += stride
    return [*found, side - window]


def rise(
    score: Score, image: Array, grids: Array, shifts: list[tuple[int, int]], keep: float, baseline: Array
) -> Array:
    """Petsiuk et al. 2018, arXiv:1806.07421, eq. 6: S(i, j) = 1/(N p) sum_n f(x * M_n) M_n(i, j)."""
    _, height, width = image.shape
    saliency = np.zeros((height, width))
    for grid, shift in zip(grids, shifts, strict=True):
        m = mask(grid, shift, (height, width))
        value = score(image * m + baseline * (1 - m))
        for i, j in product(range(height), range(width)):
            saliency[i, j] += value * m[i, j] / (len(grids) * keep)
    return saliency


def rise_as_drawn(score: Score, image: Array, grids: Array, shifts: list[tuple[int, int]], baseline: Array) -> Array:
    """The mean score over the masks, each weighing what it leaves of the pixel: sum_n f(x * M_n) M_n / sum_n M_n."""
    total, covered = np.zeros(image.shape[1:]), np.zeros(image.shape[1:])
    for grid, shift in zip(grids, shifts, strict=True):
        m = mask(grid, shift, image.shape[1:])
        total, covered = total + score(image * m + baseline * (1 - m)) * m, covered + m
    return total / covered


def mask(grid: Array, shift: tuple[int, int], size: tuple[int, int]) -> Array:
    """Section 3.2: the grid upsampled bilinearly to (h + 1) C_H x (w + 1) C_W; of that, H x W cut out at the shift."""
    cells = len(grid)
    cell = [ceil(side / cells) for side in size]
    larger = [(cells + 1) * one for one in cell]
    m = np.zeros(size)
    for i, j in product(range(size[0]), range(size[1])):
        for k, row_share in between(i + shift[0], larger[0], cells):
            for q, column_share in between(j + shift[1], larger[1], cells):
                m[i, j] += row_share * column_share * float(grid[k, q])
    return m


def between(place: int, larger: int, cells: int) -> Iterator[tuple[int, float]]:
    """The cells to either side of a pixel's centre and their shares; beyond the outer cells' centres those alone."""
    at = (place + 0.5) * cells / larger - 0.5
    low = floor(at)
    for cell, share in ((low, low + 1 - at), (low + 1, at - low)):
        yield min(max(cell, 0), cells - 1), share


def every_mask(cells: int, size: tuple[int, int], keep: float) -> Iterator[tuple[Array, float]]:
    """Each mask that can be drawn, with its probability: for grids of a few cells."""
    reach = [ceil(side / cells) for side in size]
    for kept in product((0, 1), repeat=cells * cells):
        grid = np.array(kept).reshape(cells, cells)
        chance = keep ** grid.sum() * (1 - keep) ** (grid.size - grid.sum())
        for shift in product(range(reach[0]), range(reach[1])):
            yield mask(grid, shift, size), chance / (reach[0] * reach[1])


def rise_moments(score: Score, image: Array, cells: int, keep: float, baseline: Array) -> tuple[Array, Array]:
    """Mean and variance over the draw of one mask of f(x * M) M(i, j) / p: eq. 4 of the paper by enumeration."""
    mean, square = 0.0, 0.0
    for m, chance in every_mask(cells, image.shape[1:], keep):
        term = score(image * m + baseline * (1 - m)) * m / keep
        mean, square = mean + chance * term, square + chance * term**2
    return mean, square - mean**2
