"""Noisy linear imputation as Rong et al. 2022 (ROAD, arXiv:2202.00449, section 4.3) tell it: an equation for every
missing pixel and channel, all coefficients written down, solved densely. Slow on purpose.
"""

from itertools import product

import numpy as np

Array = np.ndarray


def imputed(image: Array, gone: Array) -> Array:
    """The image (channels, rows, columns) with every missing pixel the weighted mean of its neighbours; no noise."""
    channels, height, width = image.shape
    missing = [place for place in product(range(height), range(width)) if gone[place]]
    filled = image.copy()
    for channel in range(channels):
        system, right = np.zeros((len(missing), len(missing))), np.zeros(len(missing))
        for equation, (row, column) in enumerate(missing):
            for down, across in product((-1, 0, 1), (-1, 0, 1)):
                near = row + down, column + across
                if (down, across) == (0, 0) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 6 if down == 0 or across == 0 else 1 / 12
                system[equation, equation] += weight
                if gone[near]:
                    system[equation, missing.index(near)] -= weight
                else:
                    right[equation] += weight * image[(channel, *near)]
        for place, value in zip(missing, np.linalg.solve(system, right), strict=True):
            filled[(channel, *place)] = value
    return filled
