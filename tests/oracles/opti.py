"""Opti-CAM as its paper tells it: one image, one step at a time, in float64, with an Adam and a chain rule of its own.

A network is given as what it says of one image: a function from an array (channels, rows, columns) to a score, and one
to the score's slopes in the pixels.
"""

from collections.abc import Callable
from math import exp

import numpy as np

from tests.oracles.masking import between

Array = np.ndarray
Score = Callable[[Array], float]
Slopes = Callable[[Array], Array]


def softmax(u: Array) -> Array:
    powers = np.array([exp(each - u.max()) for each in u])
    return powers / powers.sum()


def weighted(features: Array, u: Array) -> Array:
    """Zhang et al. 2023, arXiv:2301.07002, section 3: S = sum_k softmax(u)_k ReLU(A_k)."""
    saliency = np.zeros(features.shape[1:])
    for share, channel in zip(softmax(u), features, strict=True):
        for i, j in np.ndindex(*channel.shape):
            saliency[i, j] += share * max(channel[i, j], 0.0)
    return saliency


def bilinear(side: int, cells: int) -> Array:
    """How much of each cell each pixel along one side takes, the centres of cells in the middle of their even share."""
    shares = np.zeros((side, cells))
    for pixel in range(side):
        for cell, share in between(pixel, side, cells):
            shares[pixel, cell] += share
    return shares


def upsampled(saliency: Array, size: tuple[int, int]) -> Array:
    return bilinear(size[0], saliency.shape[0]) @ saliency @ bilinear(size[1], saliency.shape[1]).T


def seen(image: Array, baseline: Array, features: Array, u: Array) -> Array:
    """x * n(up(S(u))), with n(M) = (M - min M) / (max M - min M), on the baseline where that is 0."""
    mask = upsampled(weighted(features, u), image.shape[1:])
    mask = (mask - mask.min()) / (mask.max() - mask.min())
    return image * mask + baseline * (1 - mask)


def slope(slopes_at: Slopes, image: Array, baseline: Array, features: Array, u: Array) -> Array:
    """dF/du by the chain rule: from the pixels to the mask, its range, the map's cells, the weights, and u.

    A constant channel moves the map by a constant, which n takes away: its slope is 0, and not what rounding leaves,
    of which Adam would make whole steps.
    """
    coarse = weighted(features, u)
    fine = upsampled(coarse, image.shape[1:])
    low, high = fine.min(), fine.max()
    d_mask = (slopes_at(seen(image, baseline, features, u)) * (image - baseline)).sum(0)
    mask = (fine - low) / (high - low)
    d_fine = d_mask / (high - low)
    # n also depends on M through its extremes; several places that share one share the slope
    d_fine[fine == low] += (d_mask * (mask - 1)).sum() / (high - low) / (fine == low).sum()
    d_fine[fine == high] -= (d_mask * mask).sum() / (high - low) / (fine == high).sum()
    d_coarse = bilinear(image.shape[1], coarse.shape[0]).T @ d_fine @ bilinear(image.shape[2], coarse.shape[1])
    d_weight = [(d_coarse * np.maximum(channel, 0)).sum() for channel in features]
    shares, found = softmax(u), np.zeros(len(u))
    for k in range(len(u)):
        for other in range(len(u)):
            found[k] += d_weight[other] * shares[other] * ((k == other) - shares[k])
        if np.ptp(np.maximum(features[k], 0)) == 0:
            found[k] = 0.0
    return found


def adam(u: Array, m: Array, v: Array, ascent: Array, t: int, rate: float) -> tuple[Array, Array, Array]:
    """Step t >= 1 of Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1); what is minimised is -F."""
    g = -ascent
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    return u - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def trajectory(
    score: Score, slopes_at: Slopes, image: Array, baseline: Array, features: Array, *, steps: int, rate: float
) -> list[tuple[float, Array]]:
    """(F(u), u) at the start and after each step."""
    u, m, v = (np.zeros(len(features)) for _ in range(3))
    found = [(score(seen(image, baseline, features, u)), u)]
    for t in range(1, steps + 1):
        u, m, v = adam(u, m, v, slope(slopes_at, image, baseline, features, u), t, rate)
        found.append((score(seen(image, baseline, features, u)), u))
    return found


def stop(scores: list[float], patience: int, tolerance: float) -> int:
    """After how many of these scores an image stops: as soon as `patience` in a row are no advance on the last one.

    A score is an advance if it lies above the last advance by more than `tolerance` of what the best has gained.
    """
    advance, idle = scores[0], 0
    for n in range(1, len(scores)):
        best = max(scores[: n + 1])
        if best - advance > tolerance * (best - scores[0]):
            advance, idle = best, 0
        else:
            idle += 1
        if idle == patience:
            return n + 1
    return len(scores)


def opticam(path: list[tuple[float, Array]], features: Array, patience: int, tolerance: float) -> Array:
    """The map of the best u that was met before the image stopped, the first of equals."""
    met = path[: stop([score for score, _ in path], patience, tolerance)]
    highest = max(score for score, _ in met)
    return weighted(features, next(u for score, u in met if score == highest))
