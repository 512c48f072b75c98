"""Hiding sets of patches: does what a map promises for a set agree with what hiding the set costs?

The hidden images depend on no map: their scores are asked for once and serve every map.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from camcore.images import Images
from camcore.metrics.correlation import pearson, spearman
from camcore.metrics.scores import Scores, perturbed_scores
from camcore.perturbations.patches import Numbers, patch_means, patch_sums
from camcore.subject import Classifier

Subsets = Bool[Tensor, "b m patches"]  # m sets of patches for each image


def each_patch(images: int, patches: int, *, device: torch.device | None = None) -> Subsets:
    """Every patch by itself, for each image."""
    return torch.eye(patches, dtype=torch.bool, device=device).expand(images, -1, -1)


def draw_subsets(patches: int, *, size: int, count: int, generators: Sequence[Generator]) -> Subsets:
    """`count` sets of exactly `size` patches each, for each image from its generator."""
    drawn = [
        torch.stack([torch.randperm(patches, generator=generator) for _ in range(count)]) for generator in generators
    ]
    return torch.stack(drawn) < size  # a permutation has exactly `size` numbers below it


def hidden_scores(
    subject: Classifier,
    images: Images,
    target: Int[Tensor, " b"],
    subsets: Subsets,
    numbers: Numbers,
    *,
    baseline: Images,
    chunk: int = 32,
) -> Scores:
    """The class's scores with each set of patches replaced by the baseline's.

    Args:
        subject: Asked b * m times, in forwards of `chunk` images.
        images: In [0, 1].
        target: The class that is followed.
        subsets: What is hidden.
        numbers: The patch of every pixel (`patch_numbers`).
        baseline: What a hidden pixel becomes, same shape as images.
        chunk: Images per forward.

    Returns:
        Each (b, m).
    """

    def shown(image: Tensor, step: Tensor) -> Images:
        hidden = subsets[image, step][:, numbers]
        return torch.where(hidden[:, None], baseline[image], images[image])

    return perturbed_scores(subject, target, shown, steps=subsets.shape[1], chunk=chunk)


def occlusion_correlation(
    saliency: Float[Tensor, "b h w"], drops: Float[Tensor, "b patches"], numbers: Numbers
) -> Float[Tensor, " b"]:
    """Spearman's correlation, over the patches, of the map's mean with the drop when the patch is hidden.

    The drops are those of occlusion sensitivity (Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2). NaN where the
    map or the drops are the same everywhere.

    Args:
        saliency: At the size of the images.
        drops: Of the score, for each patch by itself. Any rising function of the score that is subtracted from the
            same for the intact image gives the same ranks: the log-odds give those of the probability.
        numbers: The patch of every pixel.
    """
    return spearman(patch_means(saliency, numbers), drops)


def sensitivity_n(
    saliency: Float[Tensor, "b h w"], subsets: Subsets, drops: Float[Tensor, "b m"], numbers: Numbers
) -> Float[Tensor, " b"]:
    """Pearson's correlation, over random sets of n patches, of the map's sum in a set with the drop when it is hidden.

    With the logit and a black baseline it is Sensitivity-n (Ancona et al. 2018, arXiv:1711.06104, section 4: their
    features are pixels, replaced by 0). With the probability and each image's mean it is faithfulness correlation
    (Bhatt et al. 2020, arXiv:2005.00631, eq. 2 and definition 3). NaN where one of the two does not vary.

    Args:
        saliency: Signed, at the size of the images.
        subsets: Sets of one size (`draw_subsets`).
        drops: Of the score, for each set.
        numbers: The patch of every pixel.
    """
    sums = torch.einsum("bmp,bp->bm", subsets.double(), patch_sums(saliency, numbers).double())
    return pearson(sums, drops)
