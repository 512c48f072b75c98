"""What saving a picture as JPEG loses, without a file: the same on every machine, whatever library writes its JPEGs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from camcore.images import Images

# ITU-T T.81, annex K.1: the steps in which the coefficients of an 8 x 8 block are stored, at quality 50
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32),
)
# ITU-T T.871: red, green and blue to luminance and two differences of colour
COLOURS = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
BLOCK = 8

Plane = Float[Tensor, "b 1 h w"]


def jpeg(images: Images, *, quality: int = 75) -> Images:
    """The picture after it was saved as JPEG and read again; colours at half the resolution, as is the custom.

    ITU-T T.81 (baseline, without the lossless part), T.871 for the colours; the tables are scaled with the quality as
    the Independent JPEG Group's library does, whose pictures this is within a few levels of.

    Args:
        images: In [0, 1]; rounded to 8 bits first, as any file is.
        quality: 1 to 100.

    Raises:
        ValueError: A quality out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be between 1 and 100, got {quality}")
    height, width = images.shape[2:]
    levels = (images * 255).round()
    # to whole blocks of both resolutions, continued as it is at the edge
    padded = functional.pad(levels, (0, -width % (2 * BLOCK), 0, -height % (2 * BLOCK)), mode="replicate")
    colours = images.new_tensor(COLOURS)
    planes = torch.einsum("dc,bchw->bdhw", colours, padded)
    brightness = _stored(planes[:, :1].round() - 128, LUMINANCE, quality) + 128
    halved = functional.avg_pool2d(planes[:, 1:].round(), 2).round()
    stored = [_stored(plane, CHROMINANCE, quality) for plane in halved.split(1, 1)]
    whole = functional.interpolate(torch.cat(stored, 1), scale_factor=2, mode="bilinear", align_corners=False).round()
    back = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(colours), torch.cat([brightness, whole], 1))
    return back[:, :, :height, :width].round().clamp(0, 255) / 255


def _stored(plane: Plane, table: tuple[int, ...], quality: int) -> Plane:
    """The plane from the cosine coefficients of its blocks, rounded to the steps of the table."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = [min(max((step * scale + 50) // 100, 1), 255) for step in table]
    cosines = plane.new_tensor([[_cosine(u, x) for x in range(BLOCK)] for u in range(BLOCK)])
    b, _, height, width = plane.shape
    blocks = plane.reshape(b, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(2, 3)
    coefficients = cosines @ blocks @ cosines.T
    size = plane.new_tensor(steps).view(BLOCK, BLOCK)
    back = cosines.T @ ((coefficients / size).round() * size) @ cosines
    return back.transpose(2, 3).reshape(plane.shape).clamp(-128, 127).round()


def _cosine(frequency: int, place: int) -> float:
    """Of the orthonormal discrete cosine transform (T.81, A.3.3)."""
    norm = math.sqrt((1 if frequency == 0 else 2) / BLOCK)
    return norm * math.cos((2 * place + 1) * frequency * math.pi / (2 * BLOCK))
