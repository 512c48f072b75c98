"""The class activation map that all others are named after, where the network's head lets it be defined."""

from jaxtyping import Float
from torch import Tensor

from camcore.cam.gradients import weigh
from camcore.cam.registry import register_partial
from camcore.errors import Undefined
from camcore.maps import is_constant
from camcore.recording import Recording


@register_partial
def cam(rec: Recording) -> Float[Tensor, "b i j"]:
    """CAM: channels weighted by the weights of the linear layer that reads their means.

    Zhou et al. 2016, arXiv:1512.04150, eq. 2: M_c = Σ_k w_k^c f_k. The weights are read off the gradients: for a mean
    over places g_k = w_k / (number of places) everywhere, so w_k = Σ g_k; for a sum the map is larger by that number.
    With a contrast the weights are the difference of two classes'.

    Raises:
        Undefined: The head is another one, or something stands behind the layer that treats places differently.
    """
    if not reads_means(rec):
        raise Undefined(
            f"CAM needs a mean (or sum) over places and one linear layer behind {rec.layer!r}, and nothing else; "
            "use hirescam or gradcam, which equal it for such a head and are defined for any"
        )
    return weigh(rec.gradients.sum((2, 3)), rec.activations)


def reads_means(rec: Recording) -> bool:
    """Whether the score is a weighted sum of the channels' means (or sums) over all places, and a bias."""
    return rec.linear and bool(is_constant(rec.gradients.flatten(0, 1)).all())
