"""The gradient family: maps from the activations A and the gradients g = dy_c/dA of one Recording.

Every map is signed; the ReLU of the papers is `camcore.maps.rectify`, applied by whoever shows or ranks the map.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.cam.registry import register
from camcore.recording import Recording

Map = Float[Tensor, "b i j"]


def weigh(weights: Float[Tensor, "b k"], activations: Float[Tensor, "b k i j"]) -> Map:
    """The weighted sum of channels that a CAM is."""
    return torch.einsum("bk,bkij->bij", weights, activations)


@register
def gradcam(rec: Recording) -> Map:
    """Grad-CAM: channels weighted by their mean gradient.

    Selvaraju et al. 2017, arXiv:1610.02391, eq. 1-2 (without the ReLU).
    """
    return weigh(rec.gradients.mean((2, 3)), rec.activations)


@register
def gradcam_plus_plus(rec: Recording) -> Map:
    """Grad-CAM++: positive gradients weighted by alpha = g² / (2g² + (ΣA) g³), for scores that are exp of a logit.

    Chattopadhyay et al. 2018, arXiv:1710.11063, eq. 5, 7 and 19; the factor exp(y_c) cancels when the map is scaled.
    Divided through by g² the weight is 1 / (2 + g ΣA), which needs no epsilon: an absolute one would crush gradients
    of real size (1e-3 squared is below the usual 1e-6). Not invariant to a rescaling of the logits, by definition.
    """
    denominator = 2 + rec.gradients * rec.activations.sum((2, 3), keepdim=True)
    # Behind a ReLU the pole is out of reach: ReLU(g) > 0 and ΣA >= 0 give at least 2. Features of both signs (LN, GELU)
    # can come near it, and then α is large or negative, as printed; at the pole itself the weight is 0.
    alpha = torch.where(denominator.abs() > 1e-12, 1 / denominator, 0)
    return weigh((alpha * rec.gradients.relu()).sum((2, 3)), rec.activations)


@register
def xgradcam(rec: Recording) -> Map:
    """XGrad-CAM: channels weighted by their gradient averaged with the activation as density.

    Fu et al. 2020, arXiv:2008.02312, eq. 8. The map sums to Σ g·A (conservation). A channel that sums to less than a
    millionth of Σ|A| (LN, GELU and SiLU features have both signs) is divided by that millionth, with the sum's sign:
    there, and only there, conservation is given up. A channel that sums to exactly 0 has weight 0. Meant for features
    behind a ReLU: where the signs cancel, float32 knows a weight no better than it knows ΣA.
    """
    total = rec.activations.sum((2, 3))
    least = 1e-6 * rec.activations.abs().sum((2, 3))
    stabilised = torch.where(total.abs() < least, total.sign() * least, total)
    weighted = (rec.activations * rec.gradients).sum((2, 3))
    return weigh(torch.where(total == 0, 0, weighted / stabilised), rec.activations)


@register
def hirescam(rec: Recording) -> Map:
    """HiResCAM: activations times gradients, place by place; its sum is the score (less bias) for a linear head.

    Draelos and Carin 2020, arXiv:2011.08891, eq. 5.
    """
    return (rec.gradients * rec.activations).sum(1)


@register
def layercam(rec: Recording) -> Map:
    """Layer-CAM: activations weighted place by place with the positive gradients.

    Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, eq. 6-7.
    """
    return (rec.gradients.relu() * rec.activations).sum(1)
