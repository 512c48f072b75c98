"""Deletion and insertion as Petsiuk et al. 2018 (RISE, arXiv:1806.07421, section 4.2) tell it: one image, one step, one
pixel at a time. Slow on purpose.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from camcore.subject import Classifier


def deletion(
    subject: Classifier,
    image: Tensor,
    target: int,
    order: Sequence[tuple[int, int]],
    baseline: Tensor,
    shares: Sequence[float],
) -> list[float]:
    """The class probability after the first pixels of the order have been replaced, for each share of the pixels."""
    return [probability(subject, replaced(image, baseline, order, share), target) for share in shares]


def insertion(
    subject: Classifier,
    image: Tensor,
    target: int,
    order: Sequence[tuple[int, int]],
    baseline: Tensor,
    shares: Sequence[float],
) -> list[float]:
    """The class probability when only the first pixels of the order are shown on the baseline."""
    return [probability(subject, replaced(baseline, image, order, share), target) for share in shares]


def replaced(image: Tensor, by: Tensor, order: Sequence[tuple[int, int]], share: float) -> Tensor:
    """A copy of the image with the first pixels of the order taken from another."""
    copy = image.clone()
    for row, column in order[: round(share * len(order))]:
        for channel in range(image.shape[0]):
            copy[channel, row, column] = by[channel, row, column]
    return copy


def probability(subject: Classifier, image: Tensor, target: int) -> float:
    """Softmax probability of one class for one image."""
    with torch.no_grad():
        logits = subject.logits(image[None])[0].double().tolist()
    exponentials = [2.718281828459045 ** (logit - max(logits)) for logit in logits]
    return exponentials[target] / sum(exponentials)


def most_salient_first(saliency: Tensor) -> list[tuple[int, int]]:
    """The places of a map without ties, by falling saliency."""
    height, width = saliency.shape
    places = [(row, column) for row in range(height) for column in range(width)]
    return sorted(places, key=lambda place: -float(saliency[place]))


def area(heights: Sequence[float], x: Sequence[float]) -> float:
    """Trapezoids, one by one, over the width of the interval."""
    total = 0.0
    for step in range(1, len(x)):
        total += (x[step] - x[step - 1]) * (heights[step] + heights[step - 1]) / 2
    return total / (x[-1] - x[0])
