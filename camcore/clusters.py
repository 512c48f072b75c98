"""Groups of maps: the pictures of one class that a model decides for different reasons."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

MOST, LEAST = 4, 8  # groups; points, of which fewer make one group


def spectral(points: Float[NDArray[np.float64], "n d"], *, most: int = MOST) -> Int[NDArray[np.int64], " n"]:
    """Spectral clustering of points, as many groups as the eigengap says; numbered from the largest group on.

    Spectral relevance analysis (SpRAy), Lapuschkin et al. 2019 (arXiv:1902.10178): two points are akin where one is
    among the log n + 1 nearest of the other, and the eigenvalues of the normalised Laplacian rise in a step after as
    many as there are groups (von Luxburg 2007, arXiv:0711.0189, section 8.3).

    Args:
        points: One row for each map.
        most: Groups at most.

    Returns:
        The group of each point; all 0 where there are fewer than `LEAST` points, or where all are alike.
    """
    if len(points) < LEAST or not np.ptp(points, axis=0).any():
        return np.zeros(len(points), dtype=np.int64)
    from scipy.linalg import eigvalsh
    from sklearn.cluster import SpectralClustering  # slow to import, and few need it
    from sklearn.neighbors import kneighbors_graph

    near = kneighbors_graph(points, round(np.log(len(points))) + 1).toarray()
    affinity = np.maximum(near, near.T)
    root = np.sqrt(affinity.sum(1))
    laplacian = np.eye(len(points)) - affinity / (root[:, None] * root[None])
    gaps = np.diff(eigvalsh(laplacian)[: most + 1])
    count = int(gaps.argmax()) + 1
    if count == 1:
        return np.zeros(len(points), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")  # then the groups are plain
        found = SpectralClustering(count, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
        groups = found.fit_predict(affinity)
    order = np.argsort(-np.bincount(groups, minlength=count), kind="stable")
    return np.argsort(order)[groups]
