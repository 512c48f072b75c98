"""Something laid over the picture: a sticker, a border, a watermark."""

from jaxtyping import Float
from torch import Tensor

from camcore.images import Images


def laid_over(
    images: Images, colour: Float[Tensor, "#b 3 #h #w"], alpha: Float[Tensor, "h w"], *, opacity: float = 1.0
) -> Images:
    """The images with a colour on top.

    Args:
        images: In [0, 1].
        colour: What is laid over them: one for all or one each, one colour or a picture.
        alpha: How much of the colour each pixel takes, in [0, 1].
        opacity: Of the whole, in [0, 1].
    """
    share = alpha * opacity
    return images * (1 - share) + colour * share
