"""Correlations along rows: one number per image, NaN where one side is constant and there is nothing to correlate."""

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "b m"]


def pearson(x: Rows, y: Rows) -> Float[Tensor, " b"]:
    """Pearson's correlation of each row of x with the same row of y, in float64."""
    a, b = (row.double() - row.double().mean(1, keepdim=True) for row in (x, y))
    # a constant leaves rounding, not zero, when its mean is subtracted
    flat = (x == x[:, :1]).all(1) | (y == y[:, :1]).all(1)
    found = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return found.clamp(-1, 1).masked_fill(flat, torch.nan)


def spearman(x: Rows, y: Rows) -> Float[Tensor, " b"]:
    """Spearman's rank correlation of each row of x with the same row of y; ties share the mean of their ranks."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: Rows) -> Rows:
    ordered, x = x.sort(1).values, x.contiguous()
    below, up_to = (torch.searchsorted(ordered, x, right=right) for right in (False, True))
    return (below + up_to - 1).double() / 2
