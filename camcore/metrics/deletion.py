"""Deletion and insertion: what happens to the class when the pixels that a map marks are removed, or revealed alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.images import Images
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
) -> Float[Tensor, "b steps"]:
    """Class probability after the most salient pixels have been replaced by the baseline's.

    Args:
        subject: Asked len(images) * len(fractions) times, in forwards of `chunk` images, whatever the batch.
        images: In [0, 1].
        target: The class whose probability is followed.
        rank: From `rank_pixels`: 0 is removed first. Exactly round(fraction * h * w) pixels are removed at each step.
        baseline: What a removed pixel becomes, same shape as images.
        fractions: Shares of the image removed, in [0, 1].
        chunk: Images per forward.

    Returns:
        One probability per image and fraction; lower is more faithful.

    Reference: Petsiuk et al. 2018, RISE, arXiv:1806.07421, section 4.2 (the causal metric "deletion").
    """
    return _curve(subject, images, target, rank, baseline=baseline, fractions=fractions, chunk=chunk)


def insertion_curve(
    subject: Classifier,
    images: Images,
    target: Int[Tensor, " b"],
    rank: Int[Tensor, "b rows columns"],
    *,
    baseline: Images,
    fractions: Sequence[float],
    chunk: int = 32,
) -> Float[Tensor, "b steps"]:
    """Class probability when the most salient pixels alone are shown on the baseline; higher is more faithful.

    Arguments and reference as for `deletion_curve`.
    """
    return _curve(subject, baseline, target, rank, baseline=images, fractions=fractions, chunk=chunk)


@torch.no_grad()
def _curve(
    subject: Classifier,
    images: Images,
    target: Int[Tensor, " b"],
    rank: Int[Tensor, "b rows columns"],
    *,
    baseline: Images,
    fractions: Sequence[float],
    chunk: int,
) -> Float[Tensor, "b steps"]:
    if rank.shape[1:] != images.shape[2:]:
        raise ValueError(
            f"the map is {tuple(rank.shape[1:])} and the images are {tuple(images.shape[2:])}; upsample the map first"
        )
    pixels = rank[0].numel()
    removed = torch.tensor([round(fraction * pixels) for fraction in fractions], device=images.device)
    steps = len(fractions)
    probabilities = []
    # Images and steps are one long list, cut into forwards of equal size: a small batch needs no small forwards.
    for part in torch.arange(len(images) * steps, device=images.device).split(chunk):
        image, step = part // steps, part % steps
        gone = rank[image] < removed[step][:, None, None]
        shown = torch.where(gone[:, None], baseline[image], images[image])
        scores = subject.logits(shown).softmax(1)
        probabilities.append(scores.gather(1, target[image][:, None])[:, 0])
    return torch.cat(probabilities).view(len(images), steps)


def area_under(curve: Float[Tensor, "b steps"], fractions: Sequence[float]) -> Float[Tensor, " b"]:
    """Trapezoidal area under each curve, divided by the width of the interval: a mean height, in the curve's unit."""
    x = curve.new_tensor(list(fractions))
    return torch.trapezoid(curve, x, dim=1) / (x[-1] - x[0])
