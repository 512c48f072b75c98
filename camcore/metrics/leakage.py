"""How much of a map lies where the model cannot see."""

from jaxtyping import Float
from torch import Tensor


def leakage(saliency: Float[Tensor, "b h w"], dead_from: int) -> Float[Tensor, " b"]:
    """μ(Λ) = ‖Λ[dead rows]‖₂ / ‖Λ‖₂: the share of the map's norm in the rows from `dead_from` down.

    In [0, 1], NaN for an empty map; a constant map scores the square root of the dead share of the
    rows, which is the line to print beside.

    Reference: Taimeskhanov et al. 2024, arXiv:2404.01964, section 4.2 (rows 171-224 of 224, counted from 1).
    """
    return saliency[:, dead_from:].flatten(1).norm(dim=1) / saliency.flatten(1).norm(dim=1)
