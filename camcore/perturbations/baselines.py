"""What a removed pixel becomes."""

from collections.abc import Sequence

import torch
from torch import Generator
from torch.nn import functional

from camcore.images import Images


def blur(images: Images, *, sigma: float = 0.05) -> Images:
    """A Gaussian blur, `sigma` in units of the shorter side: near the data, and no edge says where pixels were removed.

    The insertion game of Petsiuk et al. 2018 (RISE, arXiv:1806.07421) starts from a blurred image for that reason.
    """
    side = min(images.shape[-2:])
    width = sigma * side
    # three sigmas either way; reflection padding cannot reach further than the image
    radius = min(round(3 * width), side - 1)
    kernel = torch.exp(-((torch.arange(-radius, radius + 1, dtype=torch.float64) / width) ** 2) / 2)
    kernel = (kernel / kernel.sum()).to(images)
    # along the rows, then along the columns: torchvision's is one square kernel, and its import takes seconds
    padded = functional.pad(images, [radius] * 4, mode="reflect").flatten(0, 1)[:, None]
    rows = functional.conv2d(padded, kernel[None, None, None])
    return functional.conv2d(rows, kernel[None, None, :, None]).reshape(images.shape)


def mean_colour(images: Images) -> Images:
    """Each image's own mean colour."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def black(images: Images) -> Images:
    """0 in every channel, in pixel units (not after normalisation, where 0 is the mean of the data set)."""
    return torch.zeros_like(images)


def noise(images: Images, *, generators: Sequence[Generator]) -> Images:
    """Uniform noise, one generator per image."""
    return torch.stack([torch.rand(images.shape[1:], generator=one) for one in generators]).to(images)
