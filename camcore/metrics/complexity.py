"""How much there is in a map to describe."""

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.maps import is_constant, unit_range

Maps = Float[Tensor, "b h w"]
BINS = 100


def histogram_entropy(saliency: Maps, *, bins: int = BINS) -> Float[Tensor, " b"]:
    """Shannon entropy of the histogram of each map's values, in nats: 0 to log(bins), NaN for a constant map.

    Hedström et al. 2024, arXiv:2401.06465 (efficient MPRT), with its 100 bins, evenly spaced from the least to the
    greatest value.
    """
    values = unit_range(saliency.double()).flatten(1)
    bin_of = (values * bins).long().clamp(max=bins - 1)  # the greatest value belongs to the last bin
    counts = torch.zeros(len(values), bins, dtype=torch.float64, device=values.device)
    counts.scatter_add_(1, bin_of, torch.ones_like(values))
    share = counts / values.shape[1]
    return -torch.xlogy(share, share).sum(1).masked_fill(is_constant(saliency), torch.nan)


def complexity_rise(original: Maps, randomised: Maps, *, bins: int = BINS) -> Float[Tensor, " b"]:
    """Efficient MPRT: (H(random) - H(original)) / H(original), relative rise in complexity once all weights are random.

    Above 0, what training gave the map is order. Hedström et al. 2024, arXiv:2401.06465, definition of Ψ_eMPRT.
    """
    before = histogram_entropy(original, bins=bins)
    return (histogram_entropy(randomised, bins=bins) - before) / before
