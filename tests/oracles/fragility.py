"""The iterated attack on a map of Ghorbani et al. 2019 (algorithm 1, top-k), one image and one step at a time."""

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import Tensor

Parts = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]  # image -> features, features -> scores


def top_cells(saliency: Sequence[float], share: float) -> set[int]:
    """The numbers of the largest values, the earlier one first where they are equal."""
    order = sorted(range(len(saliency)), key=lambda place: (-saliency[place], place))
    return set(order[: max(1, round(share * len(saliency)))])


def centre(saliency: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Row and column of the centre of mass."""
    mass = sum(map(sum, saliency))
    row = sum(i * value for i, line in enumerate(saliency) for value in line) / mass
    column = sum(j * value for line in saliency for j, value in enumerate(line)) / mass
    return row, column


def centre_shift(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The distance of the centres, over the diagonal from the first cell to the last."""
    (i, j), (k, m) = centre(one), centre(other)
    return sqrt((i - k) ** 2 + (j - m) ** 2) / sqrt((len(one) - 1) ** 2 + (len(one[0]) - 1) ** 2)


def hirescam(parts: Parts, image: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The map before ReLU, with a graph down to the image, and the scores; the gradient in it is a constant."""
    features = parts[0](image[None])
    scores = parts[1](features)[0]
    (gradient,) = torch.autograd.grad(scores[target], features, retain_graph=True)
    return (features * gradient)[0].sum(0), scores


def attack(
    parts: Parts, image: Tensor, *, radii: Sequence[int], steps: int, share: float, kept: float, pull: float
) -> list[Tensor]:
    """The best image for each radius, in whole steps of 1/255."""
    start = (image * 255).round().to(torch.int64)

    def look(levels: Tensor) -> tuple[float, float, int, Tensor]:
        pixels = (levels.to(image.dtype) / 255).requires_grad_()
        saliency, scores = hirescam(parts, pixels, target)
        left = sum(saliency.flatten()[place] for place in cells) / saliency.abs().sum()
        p = scores.softmax(0)[target]
        beyond = (p - p_start).abs() - kept / 2
        loss = left + pull * beyond if beyond > 0 else left
        (slope,) = torch.autograd.grad(loss, pixels)
        return left.item(), p.item(), int(scores.argmax()), slope

    with torch.no_grad():
        scores = parts[1](parts[0]((start.to(image.dtype) / 255)[None]))[0]
    target, p_start = int(scores.argmax()), scores.softmax(0).max().item()
    first = hirescam(parts, (start.to(image.dtype) / 255).requires_grad_(), target)[0]
    cells = top_cells(first.detach().flatten().tolist(), share)
    least, _, _, slope = look(start)
    best, current, found = start, start, []
    for radius in radii:
        for _ in range(steps):
            current = current - slope.sign().to(torch.int64)
            current = torch.minimum(torch.maximum(current, start - radius), start + radius).clamp(0, 255)
            left, p, predicted, slope = look(current)
            if predicted == target and abs(p - p_start) <= kept and left < least:
                best, least = current, left
        found.append(best.to(image.dtype) / 255)
    return found
