"""The sanity checks of Adebayo et al. 2018 (arXiv:1810.03292) and Hedström et al. 2024 (arXiv:2401.06465), slowly.

Plain Python, one number at a time; the cascade on copies of the model, every step a whole forward.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import log, sqrt

import torch
from torch import Tensor

from camcore.recording import Recording, record
from camcore.subject import Classifier


def ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their ranks."""
    found = []
    for value in values:
        below = sum(other < value for other in values)
        equal = sum(other == value for other in values)
        found.append(below + (equal + 1) / 2)
    return found


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation of the ranks."""
    a, b = ranks(x), ranks(y)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    joint = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    return joint / sqrt(sum((p - mean_a) ** 2 for p in a) * sum((q - mean_b) ** 2 for q in b))


def left(x: Sequence[float], y: Sequence[float]) -> float:
    """The larger in size of the correlations with and without the sign."""
    return max(abs(spearman(x, y)), abs(spearman([abs(v) for v in x], [abs(v) for v in y])))


def ssim(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]], window: int = 7) -> float:
    """Wang et al. 2004, eq. 13, with C = (0.01)², (0.03)², over all windows that lie in the map, unbiased variances."""
    height, width = len(one), len(one[0])
    total, count = 0.0, 0
    for top in range(height - window + 1):
        for start in range(width - window + 1):
            places = [(i, j) for i in range(top, top + window) for j in range(start, start + window)]
            a, b = [one[i][j] for i, j in places], [other[i][j] for i, j in places]
            n = len(places)
            mean_a, mean_b = sum(a) / n, sum(b) / n
            var_a = sum((v - mean_a) ** 2 for v in a) / (n - 1)
            var_b = sum((v - mean_b) ** 2 for v in b) / (n - 1)
            joint = sum((v - mean_a) * (w - mean_b) for v, w in zip(a, b, strict=True)) / (n - 1)
            c1, c2 = 0.01**2, 0.03**2
            total += ((2 * mean_a * mean_b + c1) * (2 * joint + c2)) / (
                (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
            )
            count += 1
    return total / count


def entropy(values: Sequence[float], bins: int) -> float:
    """Of the histogram of the values between their least and their greatest, in nats."""
    low, high = min(values), max(values)
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
    return -sum(count / len(values) * log(count / len(values)) for count in counts if count)


def recorded(subject: Classifier, images: Tensor, target: Tensor, weights: Mapping[str, Tensor]) -> Recording:
    """A copy of the model with some tensors replaced, recorded by itself."""
    copy = deepcopy(subject.module)
    state = copy.state_dict()
    for name, tensor in weights.items():
        state[name].copy_(tensor)
    return record(replace(subject, module=copy), images, target)


def cascade(
    subject: Classifier,
    images: Tensor,
    target: Tensor,
    stages: Sequence[Collection[str]],
    drawn: Callable[[str], Tensor],
) -> list[Recording]:
    """From the last stage to the first, each step with all the tensors of the steps before it replaced as well."""
    found, weights = [], {}
    for names in reversed(stages):
        weights |= {name: drawn(name) for name in names}
        found.append(recorded(subject, images, target, weights))
    return found


def same(one: Recording, other: Recording) -> bool:
    """Whether two recordings agree to the bit."""
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("logits", "activations", "gradients"))
