"""HiResCAM spread over receptive fields, by loops over cells and pixels."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def fields(jacobian: Array, signs: Array) -> tuple[Array, Array]:
    """u and v from dA/dx: `jacobian[k, i, j, c, p, q]`, and the sign of each feature: `signs[k, i, j]`."""
    channels, rows, columns, colours, height, width = jacobian.shape
    down, across = np.zeros((rows, height)), np.zeros((columns, width))
    for i in range(rows):
        for c in range(colours):
            for p in range(height):
                for q in range(width):
                    terms = [
                        signs[k, i, j] * jacobian[k, i, j, c, p, q] for k in range(channels) for j in range(columns)
                    ]
                    down[i, p] += sum(terms) ** 2
    for j in range(columns):
        for c in range(colours):
            for p in range(height):
                for q in range(width):
                    terms = [signs[k, i, j] * jacobian[k, i, j, c, p, q] for k in range(channels) for i in range(rows)]
                    across[j, q] += sum(terms) ** 2
    return down, across


def shares(energy: Array) -> Array:
    """Each row divided by its sum, or left at zero."""
    return np.array([row / row.sum() if row.sum() > 0 else row for row in energy])


def spread(hires: Array, down: Array, across: Array) -> Array:
    """M_pq = Σ_ij H_ij u_i(p) v_j(q)."""
    found = np.zeros((down.shape[1], across.shape[1]))
    for i in range(len(down)):
        for j in range(len(across)):
            for p in range(found.shape[0]):
                for q in range(found.shape[1]):
                    found[p, q] += hires[i, j] * down[i, p] * across[j, q]
    return found
