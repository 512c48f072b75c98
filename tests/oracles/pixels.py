"""The pixel-gradient papers' equations as they are printed: one image at a time, float64, slow on purpose.

A network is given as what it says of one image: a function from an array (channels, rows, columns) to a score. Its
gradient is measured by central differences (`slopes`), or taken by autograd from one plain call (`autograd_slopes`)
where differences would not be exact enough; the tests hold one against the other.
"""

from collections.abc import Callable
from math import cos, pi

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray
Score = Callable[[Array], float]
Slopes = Callable[[Array], Array]


def plain_score(module: torch.nn.Module, target: int, against: int | None = None) -> Callable[[Tensor], Tensor]:
    """The explained score of one image (3, h, w), by a plain call."""

    def score(image: Tensor) -> Tensor:
        logits = module(image[None])[0]
        return logits[target] if against is None else logits[target] - logits[against]

    return score


def slopes(score: Score, image: Array, step: float = 1e-6) -> Array:
    """dS/dx of every pixel by central differences: (S(x + h e) - S(x - h e)) / 2h."""
    found = np.zeros_like(image)
    for place in np.ndindex(*image.shape):
        up, down = image.copy(), image.copy()
        up[place] += step
        down[place] -= step
        found[place] = (score(up) - score(down)) / (2 * step)
    return found


def autograd_slopes(score: Callable[[Tensor], Tensor]) -> Slopes:
    """dS/dx by autograd, of one image at a time."""

    def found(image: Array) -> Array:
        asked = torch.tensor(image, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(score(asked), asked)[0].numpy()

    return found


def summed(channels: Array) -> Array:
    """One number per pixel: the sum over the colours."""
    saliency = np.zeros(channels.shape[1:])
    for c, i, j in np.ndindex(*channels.shape):
        saliency[i, j] += channels[c, i, j]
    return saliency


def largest(channels: Array) -> Array:
    """Simonyan et al. 2013, arXiv:1312.6034, section 3.1: M_ij = max_c |w_h(i,j,c)|."""
    saliency = np.zeros(channels.shape[1:])
    for c, i, j in np.ndindex(*channels.shape):
        saliency[i, j] = max(saliency[i, j], abs(channels[c, i, j]))
    return saliency


def gradient_times_input(slopes_at: Slopes, image: Array) -> Array:
    """Shrikumar et al. 2016, arXiv:1605.01713: the gradient times the input, here summed over the colours."""
    w = slopes_at(image)
    saliency = np.zeros(image.shape[1:])
    for c, i, j in np.ndindex(*image.shape):
        saliency[i, j] += w[c, i, j] * image[c, i, j]
    return saliency


def smoothgrad(slopes_at: Slopes, image: Array, noises: list[Array], sigma: float) -> Array:
    """Smilkov et al. 2017, arXiv:1706.03825: (1/n) sum_1^n dS/dx (x + N(0, sigma² (x_max - x_min)²)); all channels."""
    spread = sigma * (image.max() - image.min())
    mean = np.zeros_like(image)
    for noise in noises:
        w = slopes_at(image + spread * noise)
        for place in np.ndindex(*image.shape):
            mean[place] += w[place] / len(noises)
    return mean


def integrated_gradients(slopes_at: Slopes, image: Array, baseline: Array, steps: int) -> Array:
    """Sundararajan et al. 2017, arXiv:1703.01365, eq. 1, summed over the colours.

    (x - x') times the integral over alpha in [0, 1] of dS/dx at x' + alpha (x - x'), by Gauss-Legendre quadrature.
    """
    saliency = np.zeros(image.shape[1:])
    for alpha, weight in gauss_legendre(steps):
        w = slopes_at(baseline + alpha * (image - baseline))
        for c, i, j in np.ndindex(*image.shape):
            saliency[i, j] += (image[c, i, j] - baseline[c, i, j]) * weight * w[c, i, j]
    return saliency


def riemann(slopes_at: Slopes, image: Array, baseline: Array, steps: int) -> Array:
    """The same by the Riemann sum of eq. 3, at the middles of the steps."""
    saliency = np.zeros(image.shape[1:])
    for k in range(steps):
        w = slopes_at(baseline + (k + 0.5) / steps * (image - baseline))
        saliency += ((image - baseline) * w).sum(0) / steps
    return saliency


def gauss_legendre(n: int) -> list[tuple[float, float]]:
    """Nodes and weights on [0, 1], halved from [-1, 1]: roots of P_n by Newton, weights 2 / ((1 - x²) P_n'(x)²)."""
    found = []
    for k in range(1, n + 1):
        x = cos(pi * (k - 0.25) / (n + 0.5))
        for _ in range(100):
            before, value = 1.0, x  # P_0 and P_1
            for m in range(2, n + 1):
                before, value = value, ((2 * m - 1) * x * value - (m - 1) * before) / m
            slope = n * (x * value - before) / (x * x - 1)
            x -= value / slope
        found.append(((x + 1) / 2, 1 / ((1 - x * x) * slope**2)))
    return found
