"""Faithfulness as the papers tell it: one image, one patch, one set, one number at a time. Slow on purpose."""

from collections.abc import Callable, Sequence
from math import log, sqrt

import numpy as np

Array = np.ndarray
Score = Callable[[Array], float]  # of one image (channels, rows, columns)
Pixels = list[tuple[int, int]]


def patches(height: int, width: int, cells: int) -> list[Pixels]:
    """The pixels of each patch: pixel i of n belongs to patch floor(i * cells / n) along its side."""
    found: list[Pixels] = [[] for _ in range(cells * cells)]
    for row in range(height):
        for column in range(width):
            found[(row * cells // height) * cells + column * cells // width].append((row, column))
    return found


def hidden(image: Array, baseline: Array, pixels: Pixels) -> Array:
    """A copy of the image with some pixels taken from the baseline."""
    copy = image.copy()
    for row, column in pixels:
        for channel in range(image.shape[0]):
            copy[channel, row, column] = baseline[channel, row, column]
    return copy


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Covariance over the product of deviations."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    together = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return together / sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def ranks(x: Sequence[float]) -> list[float]:
    """Each value's place in the order, ties at the mean of theirs."""
    return [sum(other < one for other in x) + (sum(other == one for other in x) - 1) / 2 for one in x]


def occlusion(score: Score, image: Array, baseline: Array, saliency: Array, cells: int) -> float:
    """Zeiler and Fergus 2014, section 4.2, patch by patch, then Spearman's correlation with the map."""
    of_map, drops = [], []
    for pixels in patches(*saliency.shape, cells):
        of_map.append(sum(float(saliency[place]) for place in pixels) / len(pixels))
        drops.append(score(image) - score(hidden(image, baseline, pixels)))
    return pearson(ranks(of_map), ranks(drops))


def sensitivity_n(
    score: Score, image: Array, baseline: Array, saliency: Array, cells: int, sets: Sequence[Sequence[int]]
) -> float:
    """Ancona et al. 2018, section 4: corr(sum of R_i over the set, S(x) - S(x without the set)); Bhatt et al. 2020,
    definition 3, with the same formula.
    """
    parts = patches(*saliency.shape, cells)
    promised, dropped = [], []
    for chosen in sets:
        pixels = [place for part in chosen for place in parts[part]]
        promised.append(sum(float(saliency[place]) for place in pixels))
        dropped.append(score(image) - score(hidden(image, baseline, pixels)))
    return pearson(promised, dropped)


def flipping(score: Score, image: Array, baseline: Array, saliency: Array, cells: int, steps: int) -> list[float]:
    """Samek et al. 2017, section III-B: the region of the largest mean is flipped, then the next; f(x0), ..., f(xL)."""
    parts = patches(*saliency.shape, cells)
    means = [sum(float(saliency[place]) for place in part) / len(part) for part in parts]
    current, found = image, [score(image)]
    for part in sorted(range(len(parts)), key=lambda part: -means[part])[:steps]:
        current = hidden(current, baseline, parts[part])
        found.append(score(current))
    return found


def aopc(curve: Sequence[float]) -> float:
    """Samek et al. 2017, eq. 12, for one image."""
    return sum(curve[0] - value for value in curve) / len(curve)


def average_drop(score: Score, image: Array, saliency: Array) -> tuple[float, float]:
    """Chattopadhay et al. 2018, section 4.1, for one image: max(0, Y - O) / Y, and whether O > Y."""
    low, high = float(saliency.min()), float(saliency.max())
    shown = image.copy()
    for row in range(saliency.shape[0]):
        for column in range(saliency.shape[1]):
            for channel in range(image.shape[0]):
                shown[channel, row, column] *= (float(saliency[row, column]) - low) / (high - low)
    y, o = score(image), score(shown)
    return max(0.0, y - o) / y, float(o > y)


def log_odds(p: float) -> float:
    """Of a probability."""
    return log(p / (1 - p))
