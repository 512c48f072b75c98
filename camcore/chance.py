"""Maps that know nothing of the model: what every CAM must beat. Not CAM methods, so not selectable as one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from camcore.recording import Recording

Map = Float[Tensor, "b i j"]


def random(rec: Recording, *, generators: Sequence[Generator]) -> Map:
    """Uniform noise at the layer's resolution, one generator per image: upsampled, it has a CAM's smoothness."""
    size = rec.activations.shape[2:]
    maps = [torch.rand(size, generator=generator) for generator in generators]
    return torch.stack(maps).to(rec.activations)


def moved(saliency: Float[Tensor, "b h w"], *, generators: Sequence[Generator]) -> Float[Tensor, "b h w"]:
    """The same map somewhere else: rolled around the picture, as far as chance has it.

    For maps in pixels. A map of chance has to be as smooth as the one it is compared with: scattered pixels cost a
    network more than a blob of as many, whatever they show. Rolled, a map is as smooth and as sparse as it was.
    """
    height, width = saliency.shape[1:]
    rolled = []
    for one, generator in zip(saliency, generators, strict=True):
        down, right = (int(torch.randint(extent, (1,), generator=generator)) for extent in (height, width))
        rolled.append(one.roll((down, right), (0, 1)))
    return torch.stack(rolled)


def centre(rec: Recording) -> Map:
    """A Gaussian in the middle of the picture, a quarter of its side wide: where photographers put things."""
    height, width = rec.activations.shape[2:]
    rows = torch.linspace(-1 + 1 / height, 1 - 1 / height, height)
    columns = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    bump = torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * 0.5**2))
    return bump.to(rec.activations).expand(len(rec.images), -1, -1)


def edges(rec: Recording) -> Map:
    """The image's Sobel gradient magnitude, averaged over each cell: what a map that ignores the model looks like.

    Adebayo et al. 2018, arXiv:1810.03292, section 5.2.
    """
    grey = rec.images.mean(1, keepdim=True)
    sobel = grey.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([sobel, sobel.T])[:, None]
    gradient = functional.conv2d(functional.pad(grey, (1, 1, 1, 1), mode="replicate"), kernels)
    height, width = rec.activations.shape[2:]
    # norm(dim=1) takes fifty times as long: its rows are two numbers, far apart in memory
    return functional.adaptive_avg_pool2d(gradient.square().sum(1).sqrt(), (height, width))


def uniform(rec: Recording) -> Map:
    """The same everywhere: it marks nothing."""
    return rec.activations.new_ones(len(rec.images), *rec.activations.shape[2:])
