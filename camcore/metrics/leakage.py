"""How much of a map lies where the model cannot see, how much of that changes with the picture, and what is blank.

All take rectified maps with the wall's side at the bottom (`camcore.wall_zone.Zone.turned`), and give NaN for an empty
one.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def leakage(saliency: Float[Tensor, "b h w"], dead_from: int) -> Float[Tensor, " b"]:
    """μ(Λ) = ‖Λ[dead rows]‖₂ / ‖Λ‖₂: the share of the map's norm in the rows from `dead_from` down.

    In [0, 1], NaN for an empty map; a constant map scores the square root of the dead share of the
    rows, which is the line to print beside.

    Reference: Taimeskhanov et al. 2024, arXiv:2404.01964, section 4.2 (rows 171-224 of 224, counted from 1).
    """
    return saliency[:, dead_from:].flatten(1).norm(dim=1) / saliency.flatten(1).norm(dim=1)


def variation(
    saliency: Float[Tensor, "b h w"], reference: Float[Tensor, "b h w"], dead_from: int
) -> Float[Tensor, " b"]:
    """ν(Λ) = min(‖Λ_D - Λ⁰_D‖₂, ‖Λ_D‖₂) / ‖Λ‖₂: how much of what a map shows behind a cover changes with the picture.

    Λ⁰ is the map of the empty picture, the cover's grey all over, behind the same cover and for the same class; D are
    the rows from `dead_from` down. In [0, μ]: 0 if the map shows behind the cover what it shows of an empty picture, a
    contribution of constant features without information; μ if nothing of it is the same. The difference is capped at
    ‖Λ_D‖, since a map cannot show more that varies than it shows. NaN for an empty map.

    Ours: the paper's wall stands at the head, where a method without global weights shows nothing that could vary.
    """
    shown = saliency[:, dead_from:].flatten(1)
    changed = (shown - reference[:, dead_from:].flatten(1)).norm(dim=1)
    return torch.minimum(changed, shown.norm(dim=1)) / saliency.flatten(1).norm(dim=1)


def zero_share(saliency: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """The share of the map that is exactly zero; NaN for an empty map, of which that says nothing."""
    return _unless_empty(saliency, (saliency == 0).float().mean((1, 2)))


def over_blanking(saliency: Float[Tensor, "b h w"], dead_from: int) -> Float[Tensor, " b"]:
    """The rows before the dead ones that are exactly zero all the way to them, as a share of all rows.

    What a map leaves blank on the wall's account although its pixels matter: in [0, dead_from / h].
    """
    lit = (saliency != 0).any(2)
    rows = torch.arange(1, lit.shape[1] + 1, device=saliency.device)
    last = (lit * rows).amax(1)  # counted from 1; 0 if no row is lit
    return _unless_empty(saliency, (dead_from - last).clamp_min(0) / lit.shape[1])


def _unless_empty(saliency: Float[Tensor, "b h w"], value: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return value.masked_fill(~(saliency > 0).flatten(1).any(1), torch.nan)
