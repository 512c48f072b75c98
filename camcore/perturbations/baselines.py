"""What a removed pixel becomes."""

from collections.abc import Sequence

import torch
from torch import Generator

from camcore.images import Images


def blur(images: Images, *, sigma: float = 0.05) -> Images:
    """A Gaussian blur, `sigma` in units of the shorter side: near the data, and no edge says where pixels were removed.

    The insertion game of Petsiuk et al. 2018 (RISE, arXiv:1806.07421) starts from a blurred image for that reason.
    """
    from torchvision.transforms.functional import gaussian_blur  # slow to import, and few need it

    side = min(images.shape[-2:])
    width = sigma * side
    # three sigmas either way; reflection padding cannot reach further than the image
    radius = min(round(3 * width), side - 1)
    return gaussian_blur(images, [2 * radius + 1] * 2, [width] * 2)


def mean_colour(images: Images) -> Images:
    """Each image's own mean colour."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def black(images: Images) -> Images:
    """0 in every channel, in pixel units (not after normalisation, where 0 is the mean of the data set)."""
    return torch.zeros_like(images)


def noise(images: Images, *, generators: Sequence[Generator]) -> Images:
    """Uniform noise, one generator per image."""
    return torch.stack([torch.rand(images.shape[1:], generator=one) for one in generators]).to(images)
