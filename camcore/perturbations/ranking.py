"""The order in which pixels are removed or revealed."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor


def rank_pixels(saliency: Float[Tensor, "b h w"], *, generators: Sequence[Generator]) -> Int[Tensor, "b h w"]:
    """The rank of every pixel, 0 for the most salient; ties in an order drawn from each image's generator.

    So that `rank < k` marks exactly k pixels. A threshold on a percentile would not: a rectified map has many exact
    zeros, and all of them fall at once (pytorch-grad-cam's ROAD removes 100 % of such an image where 40 % was asked).
    An index order would favour the top left.
    """
    flat = saliency.flatten(1)
    shuffle = torch.stack([torch.randperm(flat.shape[1], generator=one) for one in generators]).to(flat.device)
    by_saliency = flat.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    order = shuffle.gather(1, by_saliency)
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(saliency)
