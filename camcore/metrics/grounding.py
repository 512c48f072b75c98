"""Boxes that a phrase was given: whether they hold what it names, and on which side they are.

Boxes are (x0, y0, x1, y1) in pixels. A box that is NaN (none was given), or has no area, holds nothing.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from camcore.images import Boxes

HIT = 0.5  # of the intersection over union, from which on a box counts as being around a thing
MIDDLE = 0.05  # of the picture's width, to either side of its middle: a box centred there is on neither side


def iou(boxes: Float[Tensor, "*n 4"], others: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Area of the intersection over that of the union, in [0, 1]; 0 where a box holds nothing."""
    shared, union, _ = _areas(boxes, others)
    return torch.where(union > 0, shared / union, torch.zeros_like(union)).nan_to_num(0)


def generalised_iou(boxes: Float[Tensor, "*n 4"], others: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """IoU less the share of the smallest box around both that neither fills, in [-1, 1]; -1 for a box that is NaN.

    Rezatofighi et al. 2019 (arXiv:1902.09630), algorithm 1. MDETR's evaluation of referring expressions counts hits by
    it; never above the plain one, so that fewer boxes hit.
    """
    _, union, around = _areas(boxes, others)
    empty = torch.where(around > 0, (around - union) / around, torch.zeros_like(around))
    return torch.where(around.isnan(), -torch.ones_like(around), iou(boxes, others) - empty)


def best(boxes: Boxes, scores: Float[Tensor, " n"]) -> tuple[Float[Tensor, "4"], Float[Tensor, ""]]:
    """The box with the highest score, the first of several, and its score; NaN where there is no box."""
    if not len(boxes):
        return boxes.new_full((4,), torch.nan), scores.new_full((), torch.nan)
    top = scores.argsort(descending=True, stable=True)[0]
    return boxes[top], scores[top]


def matched(boxes: Float[Tensor, "*n 4"], things: Float[Tensor, "*n k 4"]) -> Int[Tensor, "*n"]:
    """Which of the k things a box is around: that with the largest IoU, if it is 0.5 at least; else -1."""
    found, which = iou(boxes[..., None, :].expand_as(things), things).max(-1)
    return torch.where(found >= HIT, which, torch.full_like(which, -1))


def centre(boxes: Float[Tensor, "*n 4"], width: float) -> Float[Tensor, "*n"]:
    """Where a box's middle is across the picture, 0 left to 1 right."""
    return (boxes[..., 0] + boxes[..., 2]) / 2 / width


def side(boxes: Float[Tensor, "*n 4"], width: float) -> Int[Tensor, "*n"]:
    """-1 for a box centred on the left of the picture, 1 on the right, 0 within 5 % of the middle, or NaN."""
    across = centre(boxes, width)
    return (across > 0.5 + MIDDLE).long() - (across < 0.5 - MIDDLE).long()


def mirrored(boxes: Float[Tensor, "*n 4"], width: float) -> Float[Tensor, "*n 4"]:
    """The boxes in the picture flipped left to right."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([width - x1, y0, width - x0, y1], -1)


def mirror_error(boxes: Float[Tensor, "*n 4"], turned: Float[Tensor, "*n 4"], width: float) -> Float[Tensor, "*n"]:
    """|c + c' - 1| of the boxes' centres across a picture and its mirror image: 0 where the second mirrors the first.

    For a question whose "left" became "right": who understands both turns with the picture.
    """
    return (centre(boxes, width) + centre(turned, width) - 1).abs()


def flips(boxes: Float[Tensor, "*n 4"], turned: Float[Tensor, "*n 4"], width: float) -> Bool[Tensor, "*n"]:
    """Whether the side became the other in the mirror image; a box on neither side has none to change."""
    before, after = side(boxes, width), side(turned, width)
    return (before != 0) & (after == -before)


def auc(true: Float[Tensor, " n"], false: Float[Tensor, " m"]) -> float:
    """How likely a true statement's score is above a false one's, both drawn at random; level ones count half.

    The area under the receiver operating characteristic (Mann and Whitney 1947). NaN where either is empty.
    """
    true, false = (each[~each.isnan()].double() for each in (true, false))
    if not len(true) or not len(false):
        return torch.nan
    ordered = false.sort().values
    below = torch.searchsorted(ordered, true) + torch.searchsorted(ordered, true, right=True)
    return (below.double().mean() / 2 / len(false)).item()


def _areas(
    boxes: Float[Tensor, "*n 4"], others: Float[Tensor, "*n 4"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Of the intersection, of the union, and of the smallest box around both."""
    shared = _area(torch.maximum(boxes, others)[..., :2], torch.minimum(boxes, others)[..., 2:])
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - shared
    around = _area(torch.minimum(boxes, others)[..., :2], torch.maximum(boxes, others)[..., 2:])
    return shared, union, around


def _area(low: Float[Tensor, "*n 2"], high: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    return (high - low).clamp_min(0).prod(-1)
