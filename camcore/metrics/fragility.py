"""What an attack on a map has changed: the measures of Ghorbani et al. 2019, arXiv:1710.10547, section 2."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Maps = Float[Tensor, "b i j"]


def top_cells(saliency: Maps, share: float) -> Bool[Tensor, "b i j"]:
    """The most salient places: `share` of them, at least one; ties by position."""
    flat = saliency.flatten(1)
    count = max(1, round(share * flat.shape[1]))
    chosen = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view_as(saliency)


def top_intersection(one: Maps, other: Maps, share: float) -> Float[Tensor, " b"]:
    """Share of the most salient places of one map that are among the most salient of the other, in [0, 1].

    Maps of unrelated places share `share` of them on average.
    """
    first, second = top_cells(one, share).flatten(1), top_cells(other, share).flatten(1)
    return (first & second).sum(1) / first.sum(1).to(one)


def centre_shift(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """How far the centre of mass has moved, as a share of the map's diagonal; NaN where a map has no mass.

    The maps have no negative values.
    """
    height, width = one.shape[1:]
    rows = torch.arange(height).to(one)
    columns = torch.arange(width).to(one)

    def centre(saliency: Maps) -> Float[Tensor, "b 2"]:
        mass = saliency.sum((1, 2))
        down, across = (saliency.sum(2) @ rows) / mass, (saliency.sum(1) @ columns) / mass
        return torch.stack([down, across], 1)

    return (centre(one) - centre(other)).norm(dim=1) / max(1.0, ((height - 1) ** 2 + (width - 1) ** 2) ** 0.5)
