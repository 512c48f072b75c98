"""What cannot be judged, by name: what is wrong with a map decides what its owner should do."""

from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.maps import is_constant, is_empty
from camcore.recording import Recording

ONE_CHANNEL = 0.9999  # cosine with a single channel of the layer from which a map counts as that channel


class Degeneracy(IntEnum):
    """What an image gave instead of a map to judge."""

    NONE = 0
    UNDEFINED = 1
    ZERO_GRADIENT = 2
    EMPTY = 3
    CONSTANT = 4
    FEW_CHANNELS = 5
    SATURATED = 6
    TOO_LONG = 7

    @property
    def sentence(self) -> str:
        """For a verdict's reason."""
        return {
            Degeneracy.NONE: "nothing wrong",
            Degeneracy.UNDEFINED: "map not finite (NaN or infinite)",
            Degeneracy.ZERO_GRADIENT: "zero gradient at the target layer",
            Degeneracy.EMPTY: "map empty",
            Degeneracy.CONSTANT: "map constant",
            Degeneracy.FEW_CHANNELS: "map of a single channel",
            Degeneracy.SATURATED: "softmax saturated, so that the probability cannot show a difference",
            Degeneracy.TOO_LONG: "caption longer than the model reads",
        }[self]


def degeneracy(rec: Recording, saliency: Float[Tensor, "b i j"]) -> Int[Tensor, " b"]:
    """What is wrong with each map, as it is after rectifying: a `Degeneracy`, 0 where nothing is.

    Saturation is no property of a map: measures that follow a probability name it themselves.
    """
    found = torch.zeros(len(saliency), dtype=torch.int64, device=saliency.device)
    finite = saliency.isfinite().flatten(1).all(1)
    flat_gradient = ~rec.gradients.flatten(1).any(1)
    # from the least to the most telling name: the later one stands
    for name, where in (
        (Degeneracy.FEW_CHANNELS, _is_one_channel(rec, saliency)),
        (Degeneracy.CONSTANT, is_constant(saliency)),
        (Degeneracy.EMPTY, is_empty(saliency)),
        (Degeneracy.ZERO_GRADIENT, flat_gradient & (is_empty(saliency) | is_constant(saliency))),
        (Degeneracy.UNDEFINED, ~finite),
    ):
        found = torch.where(where, int(name), found)
    return found


def _is_one_channel(rec: Recording, saliency: Float[Tensor, "b i j"]) -> Tensor:
    """Whether a map of cells is one channel of the layer, rectified: the many others have no say in it."""
    channels = rec.activations.relu()
    if saliency.shape[1:] != channels.shape[2:] or channels.shape[1] == 1 or saliency[0].numel() == 1:
        return torch.zeros(len(saliency), dtype=torch.bool, device=saliency.device)
    unit = torch.nn.functional.normalize(saliency.flatten(1), dim=1)
    units = torch.nn.functional.normalize(channels.flatten(2), dim=2)
    cosine: Tensor = torch.einsum("bkp,bp->bk", units, unit.to(units)).amax(1)
    # two cells alight are alike in too many channels to say anything
    return (cosine > ONE_CHANNEL) & ((saliency > 0).flatten(1).sum(1) > 2)
