"""The picture cut into n x n patches that are dealt out anew: all that was in it is, and nothing where it was."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

Planes = Float[Tensor, "b c h w"]  # images, or maps with one channel
Order = Int[Tensor, "b patches"]  # place i gets the patch of place order[i]; places are numbered row by row
FADING = 5  # of a patch's side, on each of its sides: what is seen of two patches at once is faint or near nothing


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
    """The picture as it was, with the cuts drawn in: edges about where shuffling makes them, and nothing moved.

    A line is no step: to a model that smooths first it is fainter than the edge of a shuffled picture, and to one that
    does not it is two edges for one. What is lost beyond it is therefore not all layout; `faded` compares like with
    like.

    Args:
        planes: The picture.
        pieces: The same with its patches in another order. Every line is one pixel wide and has the colours that the
            shuffled picture has there.
        cells: As for `dealt`.
    """
    return torch.where(_lines(planes, cells), pieces, planes)


def faded(planes: Planes, cells: int) -> Planes:
    """Every patch fading into the picture's mean colour towards its four sides: no cut is left to be seen.

    All patches end in one colour, so that whichever lie side by side, what is seen across a cut is the same but for
    what shows faintly through: `dealt(faded(...))` has the local features of `faded(...)`, and only their places
    differ. Linear, a fifth of the side: a hard gap would be an edge, and a wider one leaves little to recognise. At
    the picture's edge they fade too, for a patch from there may come to lie inside; what `dealt` leaves over does not.

    Args:
        planes: The picture.
        cells: As for `dealt`.
    """
    (top, height), (left, width) = patch_sides(planes, cells)
    strength = torch.ones(planes.shape[2:])
    strength[top : top + cells * height, left : left + cells * width] = torch.minimum(
        _strength(height)[:, None], _strength(width)
    ).repeat(cells, cells)
    return torch.lerp(planes.mean((2, 3), keepdim=True), planes, strength.to(planes))


def _strength(side: int) -> Float[Tensor, " side"]:
    """How much is left of a patch from one of its sides to the other, from 0 to 1; of two pixels a half of each."""
    pixel = torch.arange(side) + 0.5
    return (torch.minimum(pixel, side - pixel) / max(side / FADING, 1)).clamp(max=1)


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
