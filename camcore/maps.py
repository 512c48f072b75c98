"""What is done to a map before it is shown or ranked. Each step is a function of its own: nothing is done silently."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def rectify(saliency: Float[Tensor, "b i j"]) -> Float[Tensor, "b i j"]:
    """The evidence for the class: negative saliency becomes 0."""
    return saliency.relu()


def upsample(saliency: Float[Tensor, "b i j"], size: Sequence[int]) -> Float[Tensor, "b h w"]:
    """Bilinear, each cell centred in its share of the image (`align_corners=False`).

    Aligning corners instead would shift the centres of a 7 x 7 map by up to 15.5 pixels at 224.
    """
    return functional.interpolate(saliency[:, None], list(size), mode="bilinear", align_corners=False)[:, 0]


def unit_range(saliency: Float[Tensor, "b i j"]) -> Float[Tensor, "b i j"]:
    """Each map from 0 to 1; a constant map, which has no range, becomes 0 everywhere (see `is_constant`)."""
    low = saliency.amin((1, 2), keepdim=True)
    high = saliency.amax((1, 2), keepdim=True)
    return torch.where(high > low, (saliency - low) / (high - low), 0)


def is_empty(saliency: Float[Tensor, "b i j"]) -> Bool[Tensor, " b"]:
    """Whether a map marks nothing: no place above 0."""
    return (saliency <= 0).all(2).all(1)


def is_constant(saliency: Float[Tensor, "b i j"]) -> Bool[Tensor, " b"]:
    """Whether a map prefers no place to another, to within rounding; true of a map with NaN."""
    low, high = saliency.amin((1, 2)), saliency.amax((1, 2))
    return ~((high - low) > 1e-6 * torch.maximum(high.abs(), low.abs()))
