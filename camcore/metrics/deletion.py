"""Deletion and insertion: what happens to the class when the pixels that a map marks are removed, or revealed alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from camcore.images import Images
from camcore.metrics.scores import Scores, perturbed_scores
from camcore.perturbations.patches import patch_means, patch_numbers
from camcore.perturbations.ranking import rank_pixels
from camcore.subject import Classifier


def deletion_curve(
    subject: Classifier,
    images: Images,
    target: Int[Tensor, " b"],
    rank: Int[Tensor, "b rows columns"],  # (h, w) again, checked below with a message of ours
    *,
    baseline: Images,
    fractions: Sequence[float],
    chunk: int = 32,
) -> Scores:
    """The class's scores after the most salient pixels have been replaced by the baseline's.

    Args:
        subject: Asked len(images) * len(fractions) times, in forwards of `chunk` images, whatever the batch.
        images: In [0, 1].
        target: The class that is followed.
        rank: From `rank_pixels`: 0 is removed first. Exactly round(fraction * h * w) pixels are removed at each step.
        baseline: What a removed pixel becomes, same shape as images.
        fractions: Shares of the image removed, in [0, 1].
        chunk: Images per forward.

    Returns:
        Each (b, fractions); lower is more faithful. The paper follows the probability.

    Reference: Petsiuk et al. 2018, RISE, arXiv:1806.07421, section 4.2 (the causal metric "deletion").
    """
    if rank.shape[1:] != images.shape[2:]:
        raise ValueError(
            f"the map is {tuple(rank.shape[1:])} and the images are {tuple(images.shape[2:])}; upsample the map first"
        )
    pixels = rank[0].numel()
    removed = [round(fraction * pixels) for fraction in fractions]
    return _curve(subject, images, target, rank, baseline=baseline, removed=removed, chunk=chunk)


def insertion_curve(
    subject: Classifier,
    images: Images,
    target: Int[Tensor, " b"],
    rank: Int[Tensor, "b rows columns"],
    *,
    baseline: Images,
    fractions: Sequence[float],
    chunk: int = 32,
) -> Scores:
    """The class's scores when the most salient pixels alone are shown on the baseline; higher is more faithful.

    Arguments and reference as for `deletion_curve`.
    """
    return deletion_curve(subject, baseline, target, rank, baseline=images, fractions=fractions, chunk=chunk)


def pixel_flipping(
    subject: Classifier,
    images: Images,
    target: Int[Tensor, " b"],
    saliency: Float[Tensor, "b h w"],
    *,
    baseline: Images,
    cells: int,
    steps: int,
    generators: Sequence[Generator],
    chunk: int = 32,
) -> Scores:
    """The class's scores after 0, 1, ..., `steps` patches have been replaced, the patch of the largest mean first.

    Args:
        subject: Asked len(images) * (steps + 1) times.
        images: In [0, 1].
        target: The class that is followed.
        saliency: Maps at the images' size.
        baseline: What a flipped pixel becomes, same shape as images.
        cells: Patches along each side; with as many as pixels, patches are pixels.
        steps: Patches flipped in the end, at most cells².
        generators: One per image, for the order of ties.
        chunk: Images per forward.

    Returns:
        Each (b, steps + 1).

    References: Bach et al. 2015 (PLoS ONE 10(7), pixel flipping); Samek et al. 2017, arXiv:1509.06321, section III-B
    (regions, most relevant first).
    """
    if not 1 <= steps <= cells**2:
        raise ValueError(f"expected 1 to {cells**2} steps for {cells}x{cells} patches, got {steps}")
    numbers = patch_numbers((images.shape[2], images.shape[3]), cells, device=images.device)
    means = patch_means(saliency, numbers).view(-1, cells, cells)
    rank = rank_pixels(means, generators=generators).flatten(1)[:, numbers]
    return _curve(subject, images, target, rank, baseline=baseline, removed=range(steps + 1), chunk=chunk)


def _curve(
    subject: Classifier,
    images: Images,
    target: Int[Tensor, " b"],
    rank: Int[Tensor, "b h w"],
    *,
    baseline: Images,
    removed: Sequence[int],
    chunk: int,
) -> Scores:
    counts = torch.tensor(list(removed), device=images.device)

    def shown(image: Tensor, step: Tensor) -> Images:
        gone = rank[image] < counts[step][:, None, None]
        return torch.where(gone[:, None], baseline[image], images[image])

    return perturbed_scores(subject, target, shown, steps=len(counts), chunk=chunk)


def area_under(curve: Float[Tensor, "b steps"], fractions: Sequence[float]) -> Float[Tensor, " b"]:
    """Trapezoidal area under each curve, divided by the width of the interval: a mean height, in the curve's unit."""
    x = curve.new_tensor(list(fractions))
    return torch.trapezoid(curve, x, dim=1) / (x[-1] - x[0])


def area_over_perturbation(curve: Float[Tensor, "b steps"]) -> Float[Tensor, " b"]:
    """The mean fall since the first step, that step (which has fallen by nothing) counted.

    Samek et al. 2017, arXiv:1509.06321, eq. 12 (AOPC) for one image: 1/(L + 1) Σ_k f(x⁰) - f(xᵏ), k = 0 ... L.
    """
    return curve[:, 0] - curve.mean(1)
