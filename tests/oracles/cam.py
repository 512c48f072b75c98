"""The CAM papers' equations as they are printed, one loop per sum, in Python floats (IEEE double): slow on purpose."""

from math import nan

import numpy as np
from torch import Tensor

Channels = list[list[list[float]]]  # A[k][i][j] or g[k][i][j] of one image


def channels(tensor: Tensor) -> Channels:
    """One image's (k, i, j) as nested lists of floats."""
    return tensor.double().tolist()


def _blank(features: Channels) -> list[list[float]]:
    return [[0.0] * len(features[0][0]) for _ in features[0]]


def _places(features: Channels) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(features[0])) for j in range(len(features[0][0]))]


def _weighted(weights: list[float], features: Channels) -> list[list[float]]:
    saliency = _blank(features)
    for k, weight in enumerate(weights):
        for i, j in _places(features):
            saliency[i][j] += weight * features[k][i][j]
    return saliency


def cam(class_weights: list[float], features: Channels) -> list[list[float]]:
    """Zhou et al. 2016, arXiv:1512.04150, eq. 2: M_c(x, y) = sum_k w_k^c f_k(x, y)."""
    return _weighted(class_weights, features)


def gradcam(features: Channels, gradients: Channels) -> list[list[float]]:
    """Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2 without the ReLU: alpha_k = (1/Z) sum_ij dy/dA_ij^k."""
    weights = []
    for k in range(len(features)):
        z = len(_places(features))
        weights.append(sum(gradients[k][i][j] for i, j in _places(features)) / z)
    return _weighted(weights, features)


def gradcam_plus_plus(features: Channels, gradients: Channels) -> list[list[float]]:
    """Chattopadhyay et al. 2018, arXiv:1710.11063, eq. 19 into eq. 7 and 5, for Y = exp(S), less the factor exp(S).

    alpha_ij^kc = g² / (2 g² + (sum_ab A_ab^k) g³), 0 where g is 0; w_k = sum_ij alpha_ij^kc ReLU(g_ij).
    """
    weights = []
    for k in range(len(features)):
        total = sum(features[k][a][b] for a, b in _places(features))
        weight = 0.0
        for i, j in _places(features):
            g = gradients[k][i][j]
            if g == 0:
                continue
            alpha = g**2 / (2 * g**2 + total * g**3)
            weight += alpha * max(g, 0.0)
        weights.append(weight)
    return _weighted(weights, features)


def xgradcam(features: Channels, gradients: Channels) -> list[list[float]]:
    """Fu et al. 2020, arXiv:2008.02312, eq. 8: w_k = sum_xy (F_k(x, y) / sum_xy F_k(x, y)) dS/dF_k(x, y)."""
    weights = []
    for k in range(len(features)):
        total = sum(features[k][i][j] for i, j in _places(features))
        weight = 0.0
        for i, j in _places(features):
            weight += features[k][i][j] / total * gradients[k][i][j] if total else 0.0
        weights.append(weight)
    return _weighted(weights, features)


def hirescam(features: Channels, gradients: Channels) -> list[list[float]]:
    """Draelos and Carin 2020, arXiv:2011.08891, eq. 5: sum_f ds/dA^f ⊙ A^f."""
    saliency = _blank(features)
    for k in range(len(features)):
        for i, j in _places(features):
            saliency[i][j] += gradients[k][i][j] * features[k][i][j]
    return saliency


def layercam(features: Channels, gradients: Channels) -> list[list[float]]:
    """Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, eq. 6 and 7, less the outer ReLU: w_ij^kc = relu(g_ij^kc)."""
    saliency = _blank(features)
    for k in range(len(features)):
        for i, j in _places(features):
            weight = max(gradients[k][i][j], 0.0)
            saliency[i][j] += weight * features[k][i][j]
    return saliency


def eigencam(features: Channels) -> list[list[float]]:
    """Muhammad and Yeasin 2020, arXiv:2008.00299, eq. 2 to 4: O = U Σ V^T, L = O v_1, by the whole decomposition.

    The sign that the decomposition leaves open is the one that agrees with the sum over channels.
    """
    places = np.array([[features[k][i][j] for k in range(len(features))] for i, j in _places(features)])
    _, _, right = np.linalg.svd(places, full_matrices=True)
    projection = places @ right[0]
    if projection @ places.sum(axis=1) < 0:
        projection = -projection
    return projection.reshape(len(features[0]), len(features[0][0])).tolist()


def eigengradcam(features: Channels, gradients: Channels) -> list[list[float]]:
    """Eigen-CAM of the products A_ij^k g_ij^k."""
    product = _products(features, gradients)
    return eigencam(product)


def first_gap(features: Channels) -> float:
    """Second singular value over the first: near 1 the first direction is not defined. NaN for zero features."""
    places = np.array([[features[k][i][j] for k in range(len(features))] for i, j in _places(features)])
    values = np.linalg.svd(places, compute_uv=False)
    if values[0] == 0:
        return nan
    return float(values[1] / values[0]) if len(values) > 1 else 0.0


def _products(features: Channels, gradients: Channels) -> Channels:
    product = [_blank(features) for _ in features]
    for k in range(len(features)):
        for i, j in _places(features):
            product[k][i][j] = features[k][i][j] * gradients[k][i][j]
    return product
