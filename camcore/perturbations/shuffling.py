"""The picture cut into n x n patches that are dealt out anew: all that was in it is, and nothing where it was."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

Planes = Float[Tensor, "b c h w"]  # images, or maps with one channel
Order = Int[Tensor, "b patches"]  # place i gets the patch of place order[i]; places are numbered row by row


def derangements(patches: int, *, generators: Sequence[Generator]) -> Order:
    """One permutation for each generator that leaves no patch where it was, all such being equally likely.

    Raises:
        ValueError: Fewer than two patches, of which none can go elsewhere.
    """
    if patches < 2:
        raise ValueError(f"{patches} patch cannot be dealt out anew; ask for two at least")
    return torch.stack([_derangement(patches, generator) for generator in generators])


def _derangement(patches: int, generator: Generator) -> Int[Tensor, " patches"]:
    while True:  # about every third permutation has no fixed point, however many patches
        order = torch.randperm(patches, generator=generator)
        if not (order == torch.arange(patches)).any():
            return order


def dealt(planes: Planes, order: Order, cells: int) -> Planes:
    """The picture with its patches in another order; `dealt(..., order.argsort(1), cells)` puts them back.

    Patches are square if the picture is, and all of one size. What is left over where the sides cannot be divided by
    `cells` is a margin around them, less than `cells` pixels in all, which stays as it is: no border, no pixel lost.

    Raises:
        ValueError: Patches of less than 2 x 2 pixels, or an order of another number of patches.
    """
    (top, height), (left, width) = patch_sides(planes, cells)
    if order.shape[1] != cells**2:
        raise ValueError(f"{cells} x {cells} patches need an order of {cells**2}, got one of {order.shape[1]}")
    inside = planes[:, :, top : top + cells * height, left : left + cells * width]
    patches = inside.unflatten(3, (cells, width)).unflatten(2, (cells, height))  # b c rows height columns width
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = patches[torch.arange(len(planes), device=planes.device)[:, None], order.to(planes.device)]
    moved = moved.unflatten(1, (cells, cells)).permute(0, 3, 1, 4, 2, 5)
    result = planes.clone()
    result[:, :, top : top + cells * height, left : left + cells * width] = moved.flatten(4, 5).flatten(2, 3)
    return result


def cut_lines(planes: Planes, pieces: Planes, cells: int) -> Planes:
    """The picture as it was, with the cuts drawn in: the edges that shuffling makes, without its loss of layout.

    Args:
        planes: The picture.
        pieces: The same with its patches in another order. Every line is one pixel wide and has the colours that the
            shuffled picture has there, so that it stands out as much as the edge does.
        cells: As for `dealt`.
    """
    return torch.where(_lines(planes, cells), pieces, planes)


def _lines(planes: Planes, cells: int) -> Bool[Tensor, "h w"]:
    """The first row and column of every patch but those that the picture's own edge begins."""
    drawn = []
    for (start, side), extent in zip(patch_sides(planes, cells), planes.shape[2:], strict=True):
        line = torch.zeros(extent, dtype=torch.bool, device=planes.device)
        line[start : start + cells * side : side] = True
        line[0] = False
        if start + cells * side < extent:  # and the last of those that end at a margin
            line[start + cells * side - 1] = True
        drawn.append(line)
    return drawn[0][:, None] | drawn[1]


def patch_sides(planes: Planes, cells: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(first pixel, side of a patch), downwards and across.

    Raises:
        ValueError: Patches of less than 2 pixels.
    """
    height, width = planes.shape[2:]
    if cells < 1 or min(height, width) < 2 * cells:
        raise ValueError(
            f"a picture of {height}x{width} cannot be cut into {cells}x{cells} patches of 2 pixels or more; "
            "ask for fewer"
        )
    return ((height % cells) // 2, height // cells), ((width % cells) // 2, width // cells)
