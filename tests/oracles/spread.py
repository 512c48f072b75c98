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


def shares(energy: Array, step: int) -> Array:
    """Averaged over `step` pixels (an even window has half a pixel at each end), zero where it was, of sum 1 or 0."""
    found = np.zeros_like(energy)
    for cell in range(energy.shape[0]):
        for p in range(energy.shape[1]):
            for other in range(energy.shape[1]):
                away = abs(other - p)
                weight = 1.0 if away < step / 2 else 0.5 if away == step / 2 else 0.0
                if energy[cell, p] > 0:
                    found[cell, p] += weight * energy[cell, other]
        if found[cell].sum() > 0:
            found[cell] /= found[cell].sum()
    return found


def spread(hires: Array, down: Array, across: Array) -> Array:
    """M_pq = Σ_ij H_ij u_i(p) v_j(q)."""
    found = np.zeros((down.shape[1], across.shape[1]))
    for i in range(len(down)):
        for j in range(len(across)):
            for p in range(found.shape[0]):
                for q in range(found.shape[1]):
                    found[p, q] += hires[i, j] * down[i, p] * across[j, q]
    return found
