"""Maps from the first principal direction of a map of features."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from camcore.cam.registry import register
from camcore.recording import Recording

STEPS = 12  # of the power iteration, before the whole decomposition is made instead


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
    """O·v₁ for O of (places, channels): the first left singular vector times its singular value."""
    places = channels.flatten(2).transpose(1, 2)
    total = places.sum(2)
    projection, found = _iterated(places, total)
    if not found.all():
        projection = projection.index_put((~found,), _decomposed(places[~found]))
    agreement = (projection * (total / total.abs().amax(1, keepdim=True))).sum(1, keepdim=True)
    return torch.where(agreement < 0, -projection, projection).unflatten(1, channels.shape[2:])


def _iterated(
    places: Float[Tensor, "b p k"], total: Float[Tensor, "b p"]
) -> tuple[Float[Tensor, "b p"], Bool[Tensor, " b"]]:
    """O·v₁ by power iteration from the sum over channels, and for which images it is to be trusted.

    Only where nothing is negative: then the first vector has no negative entry either (Perron and Frobenius), so that
    the sum cannot miss it. Rectified features take three or four steps. Steps shrink by the ratio of the two largest
    eigenvalues: the last two of them say how far the vector still is from where it goes.
    """
    positive = places.amin((1, 2)) >= 0
    found, moved = torch.zeros_like(positive), torch.zeros_like(total[:, 0])
    projection, left = total, _of_length_1(total)
    for _ in range(STEPS if bool(positive.any()) else 0):
        right = _of_length_1((left[:, None] @ places)[:, 0])
        projection = (right[:, None] @ places.transpose(1, 2))[:, 0]  # O right, in the faster order
        following = _of_length_1(projection)
        before, moved, left = moved, (following - left).norm(dim=1), following
        ratio = moved / before
        found |= positive & (moved * ratio / (1 - ratio) <= 4 * torch.finfo(places.dtype).eps) & (ratio < 1)
        if torch.equal(found, positive):
            break
    return projection, found


def _of_length_1(vector: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return vector / vector.norm(dim=1, keepdim=True)  # not finite where that over- or underflows, hence not found


def _decomposed(places: Float[Tensor, "b p k"]) -> Float[Tensor, "b p"]:
    """O·v₁ from the smaller Gram matrix."""
    # Scaled so that squaring neither overflows nor underflows; the scale goes back on at the end
    scale = places.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(places.dtype).tiny)
    # LAPACK refuses a whole batch for one image whose features overflowed: zeros there, and the scale makes them NaN
    places = torch.where(scale.isfinite(), places / scale, 0)
    if places.shape[1] <= places.shape[2]:
        vector, value = _first_of(places @ places.transpose(1, 2))
        return vector * value.clamp_min(0).sqrt() * scale.squeeze(2)
    vector, _ = _first_of(places.transpose(1, 2) @ places)
    return (places @ vector[..., None] * scale).squeeze(2)


def _first_of(gram: Float[Tensor, "b n n"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b 1"]]:
    """The eigenvector of the largest eigenvalue, and that.

    The largest rows go first. LAPACK's divide and conquer does not converge on every third matrix whose dead rows, as
    networks with random weights have many, lie scattered among the others; in this order none was found that it fails.
    """
    order = gram.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    ordered = gram.gather(1, order[..., None].expand_as(gram)).gather(2, order[:, None].expand_as(gram))
    values, vectors = torch.linalg.eigh(ordered)
    return torch.empty_like(vectors[..., -1]).scatter(1, order, vectors[..., -1]), values[..., -1:]
