"""The image cut into patches: what is hidden, flipped or summed over as one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Numbers = Int[Tensor, "h w"]  # the patch that each pixel belongs to


def patch_numbers(size: tuple[int, int], cells: int, *, device: torch.device | None = None) -> Numbers:
    """The patch of every pixel: cells x cells patches, numbered row by row, whose sides differ by a pixel at most.

    Raises:
        ValueError: More cells than pixels along a side.
    """
    if not 1 <= cells <= min(size):
        raise ValueError(f"an image of {size[0]}x{size[1]} cannot be cut into {cells}x{cells} patches; ask for fewer")
    row, column = (torch.arange(side, device=device) * cells // side for side in size)
    return row[:, None] * cells + column


def patch_sums(saliency: Float[Tensor, "b h w"], numbers: Numbers) -> Float[Tensor, "b patches"]:
    """The sum of each map over each patch."""
    sums = saliency.new_zeros(len(saliency), int(numbers.max()) + 1)
    return sums.index_add_(1, numbers.flatten(), saliency.flatten(1))


def patch_means(saliency: Float[Tensor, "b h w"], numbers: Numbers) -> Float[Tensor, "b patches"]:
    """The mean of each map over each patch; patches need not be of one size."""
    return patch_sums(saliency, numbers) / numbers.flatten().bincount()
