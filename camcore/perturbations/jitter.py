"""Small changes that do not change what is in a picture: resizing it there and back, a little noise."""

from collections.abc import Sequence

import torch
from torch import Generator
from torch.nn import functional

from camcore.images import Images


def down_up(images: Images, *, scale: float = 0.75) -> Images:
    """Made smaller, antialiased, and enlarged again to the size it had: what a thumbnail loses.

    Raises:
        ValueError: A scale outside (0, 1], or one that leaves no pixel.
    """
    size = images.shape[2:]
    small = [round(side * scale) for side in size]
    if not (0 < scale <= 1 and min(small) >= 1):
        raise ValueError(f"scale must lie in (0, 1] and leave a pixel, got {scale} of {size[0]}x{size[1]} pixels")
    down = functional.interpolate(images, small, mode="bilinear", align_corners=False, antialias=True)
    return functional.interpolate(down, list(size), mode="bilinear", align_corners=False)


def uniform_noise(images: Images, *, radius: float, generators: Sequence[Generator]) -> Images:
    """Uniform noise within `radius` of each value, one generator per image; clipped to [0, 1]."""
    noise = torch.stack([torch.rand(images.shape[1:], generator=one) for one in generators]).to(images)
    return (images + radius * (2 * noise - 1)).clamp(0, 1)


def sign_noise(images: Images, *, radius: float, generators: Sequence[Generator]) -> Images:
    """`radius` up or down at random in every value, as far from the image as the L∞ ball allows; clipped to [0, 1]."""
    signs = torch.stack([torch.rand(images.shape[1:], generator=one) < 0.5 for one in generators]).to(images.device)
    return (images + torch.where(signs, radius, -radius)).clamp(0, 1)
