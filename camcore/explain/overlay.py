"""A map laid over its image: colour where the map is positive, the photograph where it is not."""

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

SMALLEST, LARGEST = 224, 384  # pixels a side, of the shorter and the longer side of a picture on a sheet
# Quarter points of inferno without its black end: over a photograph, black would read as shadow, not as "little".
ANCHORS = np.array([(87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float32)
OPACITY = 0.85  # of the largest value
RISE = 0.75  # opacity is OPACITY * share**RISE: below 1, so that half the largest value is clearly seen
FADE = 0.15  # share at which the photograph beneath is all grey: an orange thing must not pass for a mark
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def ramp(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour of each share of the largest value, with its opacity as a fourth channel in [0, 1].

    Args:
        share: In [0, 1], of any shape.

    Returns:
        (..., 4).
    """
    places = np.linspace(0, 1, len(ANCHORS))
    colours = [np.interp(share, places, channel) for channel in ANCHORS.T]
    return np.stack([*colours, OPACITY * share**RISE], axis=-1).astype(np.float32)


def blend(picture: UInt8[np.ndarray, "h w 3"], share: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture under the colours; it stays as it is where the share is 0, and is grey under what is marked."""
    coloured = ramp(share.astype(np.float32))
    opacity = coloured[..., 3:]
    fade = np.clip(share / FADE, 0, 1)[..., None].astype(np.float32)
    beneath = (1 - fade) * picture + fade * (picture @ GREY)[..., None]
    return ((1 - opacity) * beneath + opacity * coloured[..., :3]).round().astype(np.uint8)


def share_of(saliency: Float[np.ndarray, "h w"], largest: float) -> Float[np.ndarray, "h w"]:
    """The positive part of a map relative to its largest value; nothing is subtracted, so 0 stays 0."""
    return np.clip(saliency / largest, 0, 1)


def enlarged(picture: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
    """A picture of at least 224 pixels a side: by a whole factor, so that its pixels can still be told apart."""
    image = Image.fromarray(picture)
    factor = -(-SMALLEST // min(image.size))
    if factor == 1:
        return image
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def fitted(image: Image.Image) -> Image.Image:
    """The same for a sheet, where a picture above 384 pixels is shrunk."""
    longer = max(image.size)
    if longer <= LARGEST:
        return image
    size = (max(1, round(image.width * LARGEST / longer)), max(1, round(image.height * LARGEST / longer)))
    return image.resize(size, Image.Resampling.LANCZOS)
