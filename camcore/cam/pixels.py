"""Methods that read the gradient of the score at the pixels: signed maps at the image's resolution.

Gradients are in pixel units, before normalisation: score per unit of [0, 1]. Where a paper shows magnitudes, the sign
is kept here, and the magnitude is the caller's `abs`.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.ask import Rows, pairs, pixel_gradients
from camcore.cam.masking import Baseline, PixelMap, background
from camcore.cam.registry import register_asking
from camcore.images import Images
from camcore.perturbations import black
from camcore.recording import Recording
from camcore.seeds import generator
from camcore.subject import at_least_fp32

Variants = Callable[[Rows, Int[Tensor, " n"], range], Images]  # which images, which variants, the range of these


@register_asking
@torch.no_grad()
def gradient(rec: Recording, *, channels: str = "sum") -> PixelMap:
    """The gradient of the score at each pixel: what a little more light there does to it.

    Simonyan et al. 2013, arXiv:1312.6034, section 3. They show max_c |w_c|, which has no sign: `channels="largest"`.
    The sum over the channels keeps it: the slope as all three rise together. One forward and one backward per image.

    Args:
        rec: A recording that knows its model.
        channels: "sum" (signed), or "largest" (the largest magnitude, as in the paper).
    """
    return _folded(_gradients(rec), channels)


@register_asking
@torch.no_grad()
def gradient_times_input(rec: Recording) -> PixelMap:
    """Gradient times pixel value, summed over the channels.

    Shrikumar et al. 2016, arXiv:1605.01713, section 2. For a network that is linear without a bias the map sums to the
    score. It depends on where zero is: here it is black, and a black pixel has the value 0 whatever it does.
    """
    return (_gradients(rec) * rec.images).sum(1)


@register_asking
@torch.no_grad()
def smoothgrad(
    rec: Recording, *, samples: int = 50, sigma: float = 0.15, channels: str = "sum", seed: int = 0
) -> PixelMap:
    """SmoothGrad: the mean gradient over noisy copies of the image.

    Smilkov et al. 2017, arXiv:1706.03825, section 3. Noisy copies leave [0, 1], as in the paper: clipping would
    take half the noise from black and white pixels. The average is of signed gradients, `channels` folds it. All images
    share the noise. One forward and one backward per sample and image.

    Args:
        rec: A recording that knows its model.
        samples: n.
        sigma: Standard deviation of the noise, as a share of each image's own range (x_max - x_min).
        channels: "sum" (signed), or "largest" (the largest magnitude of the three).
        seed: Of the noise.

    Raises:
        ValueError: No samples, or a negative sigma.
    """
    if samples < 1 or not sigma >= 0:
        raise ValueError(f"smoothgrad needs samples >= 1 and sigma >= 0, got samples={samples}, sigma={sigma}")
    images = rec.images
    spread = sigma * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))

    def noisy(rows: Rows, numbers: Int[Tensor, " n"], span: range) -> Images:
        drawn = [torch.randn(images.shape[1:], generator=generator(seed, "smoothgrad", str(one))) for one in span]
        # on a GPU not waited for, so that it does not idle while the next noise is drawn
        noise = torch.stack(drawn).to(images.dtype).to(images.device, non_blocking=images.is_cuda)
        return images[rows] + spread[rows] * noise[numbers - span.start]

    return _folded(_sum_of_gradients(rec, torch.full((samples,), 1 / samples, dtype=torch.float64), noisy), channels)


@register_asking
@torch.no_grad()
def integrated_gradients(rec: Recording, *, steps: int = 50, baseline: Baseline = black) -> PixelMap:
    """Integrated Gradients: (x - x') times the mean gradient on the straight way from the baseline x' to the image.

    Sundararajan et al. 2017, arXiv:1703.01365, eq. 1; the integral by Gauss-Legendre quadrature rather than the
    Riemann sum of eq. 3. Summed over the channels and the pixels it is f(x) - f(x'), as nearly as the quadrature: that
    is to be checked, since a network with kinks may need more steps. One forward and one backward per step and image.

    Not captum's, whose maps are the same: here a contrast of classes, a wall behind the layer and models that switch
    gradients off are asked as the recording asked them, and every forward is full, whatever the number of images.

    Args:
        rec: A recording that knows its model.
        steps: Nodes of the quadrature.
        baseline: x' (see `background`); black if not given. What equals it gets no attribution.

    Raises:
        ValueError: No steps, or a baseline that is none.
    """
    if steps < 1:
        raise ValueError(f"integrated_gradients needs steps >= 1, got {steps}")
    images, start = rec.images, background(rec.images, baseline)
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(steps))
    along = ((nodes + 1) / 2).to(images)[:, None, None, None]  # from [-1, 1] to [0, 1], which halves the weights

    def on_the_way(rows: Rows, numbers: Int[Tensor, " n"], _span: range) -> Images:
        return torch.lerp(start[rows], images[rows], along[numbers])

    return ((images - start) * _sum_of_gradients(rec, weights / 2, on_the_way)).sum(1)


def _gradients(rec: Recording) -> Images:
    rows = torch.arange(len(rec.images), device=rec.images.device)
    return at_least_fp32(pixel_gradients(rec, rec.images, rows)[1])


def _sum_of_gradients(rec: Recording, weights: Float[Tensor, " variants"], variants: Variants) -> Images:
    """For each image the weighted sum of the gradients at its variants, of which one forward's are held at a time."""
    total = torch.zeros_like(at_least_fp32(rec.images))
    weights = weights.to(total)[:, None, None, None]
    for rows, numbers, span in pairs(rec, len(weights)):
        gradients = pixel_gradients(rec, variants(rows, numbers, span), rows)[1]
        total.index_add_(0, rows, at_least_fp32(gradients) * weights[numbers])
    return total


def _folded(gradients: Images, channels: str) -> PixelMap:
    if channels == "sum":
        return gradients.sum(1)
    if channels == "largest":
        return gradients.abs().amax(1)
    raise ValueError(f"channels must be 'sum' or 'largest', got {channels!r}")
