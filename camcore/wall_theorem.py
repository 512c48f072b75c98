"""The theorem of arXiv:2404.01964: how much Grad-CAM gives, on average, to a place that the network cannot see.

Taimeskhanov, Sicre and Garreau 2024: a simple CNN (`camcore.toy_wall.SimpleCnn`) with V filters of k x k, a map B of
h x w, pooled to h' x w', one score, all weights N(0, τ²), and zeros where the linear layer would read the lower half.
"""

from collections.abc import Sequence
from math import exp, lgamma, log, pi, sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from camcore.seeds import generator

LARGEST = 2**24  # numbers in the maps of the networks that are drawn at once


def gradcam_bound(*, filters: int, pooled: tuple[int, int], std: float, patch_norm: float) -> float:
    """The theorem's lower bound of E[GC_ij]: (V - 20)/√V · √(h'w'/16π) · τ²/(hw) · ‖m‖₂.

    Args:
        filters: V. At 20 or fewer the bound is negative, and says nothing.
        pooled: h' and w'; the map is twice as high and as wide.
        std: τ.
        patch_norm: ‖m‖₂ of the k x k pixels that the place reads.
    """
    rows, columns = pooled
    scale = sqrt(rows * columns / (16 * pi)) * std**2 / (4 * rows * columns)
    return (filters - 20) / sqrt(filters) * scale * patch_norm


def gradcam_mean(*, filters: int, pooled: tuple[int, int], std: float, patch_norm: float) -> float:
    """E[GC_ij] itself, in closed form (ours): √(h'w'/4π) · τ²/(hw) · ‖m‖₂ · E‖g⁺‖₂, with g ~ N(0, I_V).

    A maximum passes its gradient on to one place, whichever that is, so the sum of the gradient over a channel is the
    sum of the channel's weights: α is Gaussian and independent of B, and given B the sum Σ α_v B_v is N(0, s²) with
    s = √(h'w'/2) τ/(hw) · ‖B_ij‖₂, whose positive part has the mean s/√(2π). Arguments as in `gradcam_bound`; h' even.
    """
    rows, columns = pooled
    scale = sqrt(rows * columns / (4 * pi)) * std**2 / (4 * rows * columns)
    return scale * patch_norm * half_chi_mean(filters)


def half_chi_mean(count: int) -> float:
    """E‖g⁺‖₂ for g ~ N(0, I): n of the coordinates are positive with the binomial's weight, and give a chi's mean."""
    total = 0.0
    for positive in range(1, count + 1):
        share = lgamma(count + 1) - lgamma(positive + 1) - lgamma(count - positive + 1) - count * log(2)
        total += sqrt(2) * exp(share + lgamma((positive + 1) / 2) - lgamma(positive / 2))
    return total


def draw_gradcam(
    image: Float[Tensor, "rows columns"],
    places: Sequence[tuple[int, int]],
    *,
    filters: int,
    std: float,
    kernel: int = 2,
    draws: int,
    seed: int,
) -> Float[Tensor, "draws places"]:
    """Grad-CAM, rectified, at some places of as many networks as there are draws, each drawn anew.

    Args:
        image: Grey; h = rows - kernel + 1 and w must be even, and h' = h/2 as well.
        places: (i, j), rows and columns of the map.
        filters: V.
        std: τ.
        kernel: k.
        draws: Networks.
        seed: Of their weights.

    Raises:
        ValueError: The map cannot be halved, or its half not split in an upper and a lower part.
    """
    height, width = (side - kernel + 1 for side in image.shape)
    if height % 4 or width % 2 or min(height, width) < 2:
        raise ValueError(
            f"the map of a {tuple(image.shape)} image under a {kernel}x{kernel} convolution is {height}x{width}; "
            "the theorem needs rows divisible by 4 and columns by 2"
        )
    found = []
    part = max(1, LARGEST // (filters * height * width))
    random = generator(seed, "wall theorem")
    for start in range(0, draws, part):
        networks = min(part, draws - start)
        conv = std * torch.randn(networks, filters, kernel, kernel, generator=random)
        dense = std * torch.randn(networks, filters, height // 2, width // 2, generator=random)
        dense[:, :, height // 4 :] = 0
        found.append(gradcam_at(image, places, conv, dense))
    return torch.cat(found)


def gradcam_at(
    image: Float[Tensor, "rows columns"],
    places: Sequence[tuple[int, int]],
    conv: Float[Tensor, "networks v k k"],
    dense: Float[Tensor, "networks v i j"],
) -> Float[Tensor, "networks places"]:
    """Grad-CAM, rectified, at some places of many networks that share an image, from one forward and one backward."""
    networks, filters = conv.shape[:2]
    rows, columns = (torch.tensor(axis) for axis in zip(*places, strict=True))
    with torch.enable_grad():
        # the filters of all networks side by side: no network's score depends on another's channels
        maps = functional.conv2d(image[None, None], conv.flatten(0, 1)[:, None]).relu().requires_grad_()
        scores = (functional.max_pool2d(maps, 2)[0] * dense.flatten(0, 1)).sum()
        gradient = torch.autograd.grad(scores, maps)[0]
    alpha = gradient.mean((2, 3)).unflatten(1, (networks, filters))
    there = maps.detach()[:, :, rows, columns].unflatten(1, (networks, filters))
    return torch.einsum("bnv,bnvp->np", alpha, there).relu()
