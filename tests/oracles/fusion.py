"""Layer-CAM's scaling and fusion as the paper tells them, place by place in float64."""

from math import tanh

import numpy as np

from tests.oracles.opti import upsampled

Array = np.ndarray


def scale_shallow(saliency: Array, gamma: float = 2.0) -> Array:
    """Jiang et al. 2021, doi:10.1109/TIP.2021.3089943: tanh(gamma M / max M), of M = ReLU(saliency)."""
    scaled = np.zeros_like(saliency)
    highest = max(saliency.max(), 0.0)
    for i, j in np.ndindex(*saliency.shape):
        if saliency[i, j] > 0:
            scaled[i, j] = tanh(gamma * saliency[i, j] / highest)
    return scaled


def fuse(maps: list[Array], size: tuple[int, int]) -> Array:
    """The elementwise maximum after all maps have been brought to one size."""
    large = [upsampled(saliency, size) for saliency in maps]
    fused = np.zeros(size)
    for i, j in np.ndindex(*size):
        fused[i, j] = max(saliency[i, j] for saliency in large)
    return fused


def layercam(features: Array, gradients: Array) -> Array:
    """The same paper's eq. 6 and 7: ReLU(sum_k ReLU(g_k) A_k), place by place."""
    saliency = np.zeros(features.shape[1:])
    for k, i, j in np.ndindex(*features.shape):
        saliency[i, j] += max(gradients[k, i, j], 0.0) * features[k, i, j]
    return np.maximum(saliency, 0)


def layercam_fused(maps: dict[str, Array], size: tuple[int, int], shallow: set[str], gamma: float = 2.0) -> Array:
    """Shallow maps scaled, deep ones divided by their maximum, then fused."""
    return fuse(
        [scale_shallow(each, gamma) if name in shallow else each / (each.max() or 1) for name, each in maps.items()],
        size,
    )
