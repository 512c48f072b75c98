"""Inpainting for deletion: what a removed pixel would be if its neighbours had a say, and so little to give away."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from camcore.images import Images

WEIGHTS = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12, (1, -1): 1 / 12}  # and the same the other way


def noisy_linear(
    images: Images, gone: Bool[Tensor, "b h w"], *, generators: Sequence[Generator], noise: float = 0.01
) -> Images:
    """Noisy linear imputation: every removed pixel is the weighted mean of its eight neighbours, plus noise.

    Direct neighbours weigh 1/6 and diagonal ones 1/12; at the border, those that are there weigh the more. Neighbours
    that are gone too are unknowns, so a hole is one system of linear equations. It depends on the hole alone: it is
    factorised once and solved for the three channels together. The noise keeps the inpainting from being so smooth
    that it shows where the hole was.

    Args:
        images: In [0, 1].
        gone: The pixels that are removed. All others are returned as they are.
        generators: One per image, for the noise.
        noise: Its standard deviation, in pixel units; 0.01 is the default of the authors' code.

    Returns:
        Images in [0, 1].

    Raises:
        ValueError: An image of which no pixel is left.

    Reference: Rong et al. 2022, ROAD, arXiv:2202.00449, section 4.3.
    """
    if gone.flatten(1).all(1).any():
        raise ValueError("noisy_linear needs at least one pixel of each image to go by, got an image with none left")
    filled = images.clone()
    for index, generator in enumerate(generators):
        hole = gone[index].cpu()
        drawn = noise * torch.randn(3, int(hole.sum()), generator=generator)
        if not drawn.numel():
            continue
        values = torch.from_numpy(_solved(images[index].double().cpu().numpy(), hole.numpy()))
        filled[index][:, gone[index]] = (values + drawn).clamp(0, 1).to(images)
    return filled


def _solved(image: Any, hole: Any) -> Any:
    """The values of the pixels in the hole, (3, n) in reading order."""
    from scipy.sparse import coo_matrix  # slow to import, and few need it
    from scipy.sparse.linalg import splu

    height, width = hole.shape
    number = np.where(hole, np.cumsum(hole).reshape(height, width) - 1, -1)
    unknowns = int(number.max()) + 1
    diagonal, known = np.zeros(unknowns), np.zeros((unknowns, 3))
    rows, columns, values = [], [], []
    for (down, across), weight in WEIGHTS.items():
        near = np.s_[: height - down, max(0, -across) : width - max(0, across)]
        far = np.s_[down:, max(0, across) : width - max(0, -across)]
        for here, there in ((near, far), (far, near)):
            asking = hole[here]
            equation, neighbour = number[here][asking], number[there][asking]
            diagonal[equation] += weight  # a pixel has one neighbour in each direction, so no index occurs twice
            is_known = neighbour < 0
            known[equation[is_known]] += weight * image[:, *there][:, asking][:, is_known].T
            rows.append(equation[~is_known])
            columns.append(neighbour[~is_known])
            values.append(np.full(int((~is_known).sum()), -weight))
    each = np.arange(unknowns)
    place = np.concatenate([each, *rows]), np.concatenate([each, *columns])
    system = coo_matrix((np.concatenate([diagonal, *values]), place), shape=(unknowns, unknowns)).tocsc()
    # Symmetric and diagonally dominant: an ordering for symmetric matrices, and no pivoting, keep the factors sparse.
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factors.solve(known).T
