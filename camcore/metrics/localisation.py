"""How much of a map lies on the object. Maps are in pixels and not negative, masks are 1 on the object, 0 elsewhere."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Maps = Float[Tensor, "b h w"]
Masks = Float[Tensor, "b h w"]


def pointing_hit(saliency: Maps, mask: Masks) -> Float[Tensor, " b"]:
    """The pointing game: 1 where the map's highest pixel lies on the object, else 0.

    Of several highest pixels, the share that does: the rate of hits if one of them were drawn. The published game takes
    a point for a hit that lies within 15 pixels of the object: `pointing_hit(saliency, grown(mask, 15))`.

    Reference: Zhang et al. 2016 (Excitation Backprop, arXiv:1608.00507).
    """
    top = (saliency == saliency.amax((1, 2), keepdim=True)).to(mask)
    return (top * mask).sum((1, 2)) / top.sum((1, 2))


def grown(mask: Masks, radius: int) -> Masks:
    """The mask and all pixels whose distance to it is at most `radius`, from centre to centre."""
    axis = torch.arange(-radius, radius + 1, device=mask.device)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2).to(mask)
    return (functional.conv2d(mask[:, None], disc[None, None], padding=radius)[:, 0] > 0.5).to(mask)


def energy_inside(saliency: Maps, mask: Masks) -> Float[Tensor, " b"]:
    """The share of the map's sum that lies on the object; NaN for an empty map.

    A map that ignores the picture gives the object's share of the area on average.

    References: Wang et al. 2020 (Score-CAM, arXiv:1910.01279), the energy-based pointing game; Arras et al. 2022
    (CLEVR-XAI, arXiv:2003.07258), who call the same the relevance mass accuracy.
    """
    return (saliency * mask).sum((1, 2)) / saliency.sum((1, 2))


def precision_at(saliency: Maps, mask: Masks, counts: Int[Tensor, "b steps"]) -> Float[Tensor, "b steps"]:
    """The share of the `count` highest pixels that lies on the object; of tied ones, as many as would on average.

    Args:
        saliency: Any real-valued map; only the order matters.
        mask: Where the object is.
        counts: How many pixels, at least 1 each; NaN where it is 0.
    """
    values, order = saliency.flatten(1).sort(dim=1, descending=True)
    hits = functional.pad(mask.flatten(1).gather(1, order).double().cumsum(1), (1, 0))  # among the first 0, 1, ...
    last = values.gather(1, (counts - 1).clamp(min=0))
    before = torch.searchsorted(-values, -last)  # strictly higher than the last one taken
    upto = torch.searchsorted(-values, -last, right=True)
    higher, tied = hits.gather(1, before), hits.gather(1, upto) - hits.gather(1, before)
    found: Tensor = (higher + tied * (counts - before) / (upto - before)) / counts
    return found.to(saliency)


def rank_accuracy(saliency: Maps, mask: Masks) -> Float[Tensor, " b"]:
    """Of as many highest pixels as the object has, the share that lies on it; NaN if it has none.

    Reference: Arras et al. 2022 (CLEVR-XAI, arXiv:2003.07258), relevance rank accuracy.
    """
    return precision_at(saliency, mask, mask.sum((1, 2))[:, None].long())[:, 0]


def cells_right(saliency: Maps, mask: Masks, *, step: tuple[float, float]) -> Float[Tensor, " b"]:
    """How many cells the map has to be moved to the left to lie on the object: 0 where it is laid well, at most 1.

    It is laid well if its centre of mass is that of an even map, both taken among the pixels within a cell of the
    object: what the map marks elsewhere does not show how it is laid. The centre is measured with the map as it is and
    moved by one cell to either side; the place between them is found by a line. A map that misses the object altogether
    is no matter of how it is laid, and may give 0: `energy_inside` tells.

    Args:
        saliency: The maps.
        mask: Where the object is.
        step: From one cell to the next, down and across, in pixels.

    Returns:
        In [-1, 1], negative for maps that lie to the left; NaN if the map, moved or not, is empty near the object.
    """
    down, right = (round(extent) for extent in step)
    near = functional.max_pool2d(mask[:, None], (2 * down + 1, 1), stride=1, padding=(down, 0))
    near = functional.max_pool2d(near, (1, 2 * right + 1), stride=1, padding=(0, right))[:, 0]
    well = _centre_across(near)
    to_left, there, to_right = (_centre_across(_moved(saliency, cells * right) * near) - well for cells in (-1, 0, 1))
    # where a move by a cell does not bring the centre nearer, a cell is not enough
    slope = torch.where(there > 0, there - to_left, to_right - there).clamp(min=torch.finfo(there.dtype).tiny)
    return (there / slope).clamp(-1, 1).to(saliency)


def _moved(saliency: Maps, pixels: int) -> Maps:
    """To the right; what comes in from the edge is as the edge is."""
    width = saliency.shape[2]
    return saliency[:, :, (torch.arange(width, device=saliency.device) - pixels).clamp(0, width - 1)]


def _centre_across(weight: Maps) -> Float[Tensor, " b"]:
    across = weight.double().sum(1)
    return (across * torch.arange(across.shape[1], device=across.device)).sum(1) / across.sum(1)
