"""Score-CAM, Ablation-CAM and the bilinear upsampling between them as they are printed: loops over Python floats.

The model is a function that takes one picture, or one map of features, and gives its class scores.
"""

from collections.abc import Callable
from copy import deepcopy
from math import exp, floor

Plane = list[list[float]]
Channels = list[Plane]  # [channel][row][column] of one image or one map of features
Scores = Callable[[Channels], list[float]]  # class scores of one of them
Score = Callable[[Channels], float]


def upsample(plane: Plane, height: int, width: int) -> Plane:
    """Bilinear: the centre of pixel p lies at (p + 1/2) / scale - 1/2 cells; beyond the outermost centres, constant."""

    def neighbours(pixel: int, pixels: int, cells: int) -> tuple[int, int, float]:
        at = min(max((pixel + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
        first = floor(at)
        return first, min(first + 1, cells - 1), at - first

    fine = []
    for row in range(height):
        top, bottom, down = neighbours(row, height, len(plane))
        line = []
        for column in range(width):
            left, right, across = neighbours(column, width, len(plane[0]))
            upper = (1 - across) * plane[top][left] + across * plane[top][right]
            lower = (1 - across) * plane[bottom][left] + across * plane[bottom][right]
            line.append((1 - down) * upper + down * lower)
        fine.append(line)
    return fine


def is_constant(plane: Plane) -> bool:
    """Every value is the same."""
    return all(value == plane[0][0] for line in plane for value in line)


def masked(pixels: Channels, plane: Plane, colour: list[float]) -> Channels:
    """x∘H + colour (1 - H), H = (U - min U) / (max U - min U) of the upsampled plane U."""
    height, width = len(pixels[0]), len(pixels[0][0])
    fine = upsample(plane, height, width)
    low = min(min(line) for line in fine)
    high = max(max(line) for line in fine)
    picture = deepcopy(pixels)
    for band in range(len(pixels)):
        for row in range(height):
            for column in range(width):
                share = (fine[row][column] - low) / (high - low)
                picture[band][row][column] = share * pixels[band][row][column] + (1 - share) * colour[band]
    return picture


def scorecam_weights(features: Channels, pixels: Channels, score: Score, colour: list[float]) -> list[float]:
    """Wang et al. 2020, arXiv:1910.01279: C(A_k) = f(x∘H_k) - f(x_b), then a softmax over the channels that have an H.

    x_b, the baseline image, is the colour everywhere.
    """
    blank = [[[colour[band]] * len(plane[0]) for _ in plane] for band, plane in enumerate(pixels)]
    confidence = {
        k: score(masked(pixels, plane, colour)) - score(blank)
        for k, plane in enumerate(features)
        if not is_constant(plane)
    }
    total = sum(exp(value) for value in confidence.values())
    return [exp(confidence[k]) / total if k in confidence else 0.0 for k in range(len(features))]


def scorecam_probabilities(
    features: Channels, pixels: Channels, scores: Scores, target: int, colour: list[float]
) -> list[float]:
    """As the authors' program has it: the class's softmax probability, 0 for a constant channel."""
    weights = []
    for plane in features:
        if is_constant(plane):
            weights.append(0.0)
            continue
        found = scores(masked(pixels, plane, colour))
        weights.append(exp(found[target]) / sum(exp(value) for value in found))
    return weights


def ablationcam_weights(features: Channels, score: Score, *, fill: str) -> list[float]:
    """Desai and Ramaswamy 2020 (WACV): w_k = (y - y_k) / y."""
    whole = score(features)
    weights = []
    for k, plane in enumerate(features):
        places = len(plane) * len(plane[0])
        value = {"zero": 0.0, "mean": sum(sum(line) for line in plane) / places}[fill]
        ablated = deepcopy(features)
        ablated[k] = [[value] * len(plane[0]) for _ in plane]
        weights.append((whole - score(ablated)) / whole)
    return weights


def effective_channels(weights: list[float]) -> float:
    """1 over the sum of squares of the weights' shares."""
    return 1 / sum((weight / sum(weights)) ** 2 for weight in weights)


def weighted(weights: list[float], features: Channels) -> Plane:
    """The sum over k of w_k A_k."""
    saliency = [[0.0] * len(features[0][0]) for _ in features[0]]
    for k, weight in enumerate(weights):
        for i, line in enumerate(features[k]):
            for j, value in enumerate(line):
                saliency[i][j] += weight * value
    return saliency
