"""Maps from the first principal direction of a map of features."""

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.cam.registry import register
from camcore.record import Recording


@register
def eigencam(rec: Recording) -> Float[Tensor, "b i j"]:
    """Eigen-CAM: the activations projected on their first right singular vector. Blind to the class, by definition.

    Muhammad and Yeasin 2020, arXiv:2008.00299, eq. 2-4: of the activations as they are, not centred. The sign, which a
    decomposition leaves open, is the one that agrees with the sum over channels.
    """
    return _first_projection(rec.activations)


@register
def eigengradcam(rec: Recording) -> Float[Tensor, "b i j"]:
    """EigenGrad-CAM: as Eigen-CAM, of activations times gradients (Gildenblat 2021, the pytorch-grad-cam method)."""
    return _first_projection(rec.activations * rec.gradients)


def _first_projection(channels: Float[Tensor, "b k i j"]) -> Float[Tensor, "b i j"]:
    """O·v₁ for O of (places, channels), from the smaller Gram matrix: no full factor that nobody asked for."""
    places = channels.flatten(2).transpose(1, 2)
    # Scaled so that squaring neither overflows nor underflows; the scale goes back on at the end.
    scale = places.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(places.dtype).tiny)
    places = places / scale
    if places.shape[1] <= places.shape[2]:
        values, vectors = torch.linalg.eigh(places @ places.transpose(1, 2))
        projection = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(places.transpose(1, 2) @ places)
        projection = (places @ vectors[..., -1:]).squeeze(2)
    agreement = (projection * places.sum(2)).sum(1, keepdim=True)
    projection = torch.where(agreement < 0, -projection, projection) * scale.squeeze(2)
    return projection.unflatten(1, channels.shape[2:])
