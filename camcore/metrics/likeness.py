"""How alike two maps of one image are, to a statistician and to the eye. One number per image, NaN where undefined."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from camcore.maps import is_constant
from camcore.metrics.correlation import spearman

Maps = Float[Tensor, "b h w"]
HOG_CELLS = 6  # a side, at least: fewer give no histogram worth comparing


def rank_likeness(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """Spearman's correlation of the signed maps, in [-1, 1].

    NaN where either map is constant to within rounding: it ranks nothing.
    Adebayo et al. 2018, arXiv:1810.03292, section 4.1 ("with" the sign).
    """
    flat = is_constant(one) | is_constant(other)
    return spearman(one.flatten(1), other.flatten(1)).masked_fill(flat, torch.nan)


def unsigned_rank_likeness(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """The same of the maps' absolute values ("without" the sign): what is left where only signs were shuffled."""
    return rank_likeness(one.abs(), other.abs())


def structural_similarity(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """SSIM of two maps as they are shown, each in [0, 1]: 1 for equal maps, about 0 for unrelated ones.

    Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13, averaged over windows of 7 x 7; by scikit-image.

    Raises:
        ValueError: A map smaller than a window.
    """
    from skimage.metrics import structural_similarity as ssim

    return _each_pair(
        lambda a, b: float(ssim(a, b, data_range=1.0)),  # type: ignore[no-untyped-call]
        one,
        other,
    )


def hog_likeness(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """Pearson's correlation of the maps' histograms of oriented gradients: whether they have the same outlines.

    Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177, by scikit-image: nine orientations, cells of 16 x 16 pixels (less
    in a map of under 96), blocks of 3 x 3. NaN for a constant map, which has no outline.
    Used by Adebayo et al. 2018, section 4.1.
    """
    from skimage.feature import hog

    side = max(2, min(16, min(one.shape[1:]) // HOG_CELLS))

    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        x, y = (hog(saliency, pixels_per_cell=(side, side)) for saliency in (a, b))
        if x.std() == 0 or y.std() == 0:
            return float("nan")
        return float(np.corrcoef(x, y)[0, 1])

    return _each_pair(likeness, one, other)


def _each_pair(likeness: Callable[[np.ndarray, np.ndarray], float], one: Maps, other: Maps) -> Float[Tensor, " b"]:
    pairs = zip(one.double().cpu().numpy(), other.double().cpu().numpy(), strict=True)
    found = [likeness(a, b) if np.isfinite(a).all() and np.isfinite(b).all() else float("nan") for a, b in pairs]
    return torch.tensor(found, dtype=torch.float64, device=one.device)
