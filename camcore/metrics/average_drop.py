"""Average Drop and Increase in Confidence: what the class scores when only what the map shows is left."""

from jaxtyping import Float
from torch import Tensor

from camcore.images import Images
from camcore.maps import unit_range

PerImage = Float[Tensor, " b"]


def shown_by(images: Images, saliency: Float[Tensor, "b h w"]) -> Images:
    """The image as bright as the map, scaled from 0 to 1, is high: black where it is lowest.

    Chattopadhay et al. 2018, arXiv:1710.11063, section 4.1: E = L ∘ I. In pixel units, so black is black.
    """
    return images * unit_range(saliency)[:, None]


def average_drop(intact: PerImage, shown: PerImage) -> PerImage:
    """The share of the probability that is lost, 0 where it has risen: max(0, Y - O) / Y; lower is better.

    Chattopadhay et al. 2018, section 4.1 (there in per cent and averaged). Maps that hide little do well whatever
    they mark (Poppi et al. 2021, arXiv:2104.10252, section 3.2): read it beside a map that knows nothing.

    Args:
        intact: Y, the probability of the class for the image; above 0, as a softmax is until it underflows.
        shown: O, for what the map shows of it.
    """
    return (intact - shown).relu() / intact


def increase_in_confidence(intact: PerImage, shown: PerImage) -> PerImage:
    """1 where the probability is higher for what the map shows than for the image, else 0; higher is better.

    Chattopadhay et al. 2018, section 4.1.
    """
    return (shown > intact).to(intact)
