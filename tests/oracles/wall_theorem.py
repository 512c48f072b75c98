"""The wall theorem's network and its Grad-CAM as Taimeskhanov, Sicre and Garreau 2024 (arXiv:2404.01964) tell it: one
network, one filter, one place at a time, the gradient written out by hand. Slow on purpose.
"""

from math import pi, sqrt

Grid = list[list[float]]


def activations(image: Grid, weights: Grid) -> Grid:
    """B^(v): the filter slid over the image, then ReLU."""
    k = len(weights)
    return [
        [
            max(0.0, sum(weights[a][b] * image[i + a][j + b] for a in range(k) for b in range(k)))
            for j in range(len(image[0]) - k + 1)
        ]
        for i in range(len(image) - k + 1)
    ]


def score(maps: list[Grid], dense: list[Grid]) -> float:
    """f(B): the maximum of each 2 x 2 block, weighted and summed."""
    total = 0.0
    for channel, weights in zip(maps, dense, strict=True):
        for i, row in enumerate(weights):
            for j, weight in enumerate(row):
                total += weight * max(channel[2 * i + a][2 * j + b] for a in range(2) for b in range(2))
    return total


def gradient(channel: Grid, weights: Grid) -> Grid:
    """df/dB^(v): each block's weight at the first of its largest places, 0 elsewhere."""
    found = [[0.0] * len(channel[0]) for _ in channel]
    for i, row in enumerate(weights):
        for j, weight in enumerate(row):
            places = [(2 * i + a, 2 * j + b) for a in range(2) for b in range(2)]
            best = places[0]
            for place in places[1:]:
                if channel[place[0]][place[1]] > channel[best[0]][best[1]]:
                    best = place
            found[best[0]][best[1]] += weight
    return found


def alpha(channel: Grid, weights: Grid) -> float:
    """GAP of the gradient."""
    found = gradient(channel, weights)
    return sum(sum(row) for row in found) / (len(found) * len(found[0]))


def gradcam(image: Grid, conv: list[Grid], dense: list[Grid]) -> Grid:
    """GC = ReLU(sum over v of alpha_v B^(v))."""
    maps = [activations(image, weights) for weights in conv]
    alphas = [alpha(channel, weights) for channel, weights in zip(maps, dense, strict=True)]
    height, width = len(maps[0]), len(maps[0][0])
    return [
        [max(0.0, sum(a * channel[i][j] for a, channel in zip(alphas, maps, strict=True))) for j in range(width)]
        for i in range(height)
    ]


def bound(v: int, pooled_rows: int, pooled_columns: int, tau: float, patch: Grid) -> float:
    """The right side of the theorem."""
    h, w = 2 * pooled_rows, 2 * pooled_columns
    norm = sqrt(sum(pixel * pixel for row in patch for pixel in row))
    return (v - 20) / sqrt(v) * sqrt(pooled_rows * pooled_columns / (16 * pi)) * tau * tau / (h * w) * norm
