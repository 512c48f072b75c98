"""What is done to a map before it is shown or ranked. Each step is a function of its own: nothing is done silently."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from camcore.grid import Placement


def rectify(saliency: Float[Tensor, "b i j"]) -> Float[Tensor, "b i j"]:
    """The evidence for the class: negative saliency becomes 0."""
    return saliency.relu()


def upsample(
    saliency: Float[Tensor, "b i j"], size: Sequence[int], placement: Placement | None = None
) -> Float[Tensor, "b h w"]:
    """Bilinear between the centres of the cells; beyond the outermost ones the map goes on as it is there.

    Args:
        saliency: Maps of cells. Maps that already have the size are returned as they are.
        size: Height and width in pixels.
        placement: Where the cells lie in an image of that size (`camcore.placement`). None: each in the middle of its
            even share (`align_corners=False`), 15.5 pixels down and right of where a ResNet has them. Aligning corners
            instead would shift the even centres of a 7 x 7 map by up to 15.5 pixels at 224.
    """
    if tuple(saliency.shape[1:]) == tuple(size):
        return saliency
    if placement is None:
        return functional.interpolate(saliency[:, None], list(size), mode="bilinear", align_corners=False)[:, 0]
    # half precision is rounded once, at the end
    exact = saliency if saliency.dtype == torch.float64 else saliency.float()
    for dim, pixels, first, step in zip((1, 2), size, placement.first, placement.step, strict=True):
        exact = _between_centres(exact, dim, pixels, first, step)
    return exact.to(saliency.dtype)


def _between_centres(saliency: Float[Tensor, "b i j"], dim: int, pixels: int, first: float, step: float) -> Tensor:
    """One axis: each pixel from the two cells it lies between, by weights worked out in float64."""
    last = saliency.shape[dim] - 1
    cell = ((torch.arange(pixels, dtype=torch.float64) - first) / step).clamp(0, last)  # not every device has float64
    before = cell.long()
    weight = (cell - before).to(saliency).reshape([-1, 1] if dim == 1 else [-1])
    after = (before + 1).clamp(max=last).to(saliency.device)
    return torch.lerp(saliency.index_select(dim, before.to(saliency.device)), saliency.index_select(dim, after), weight)


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
