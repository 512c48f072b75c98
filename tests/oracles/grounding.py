"""Boxes pixel by pixel and query by query, as the definitions have it: Rezatofighi et al. 2019 (arXiv:1902.09630), Mann
and Whitney 1947. A box is (x0, y0, x1, y1), whole pixels. Slow on purpose.
"""

from collections.abc import Sequence

Box = Sequence[float]


def cells(box: Box) -> set[tuple[int, int]]:
    """The pixels in a box."""
    return {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}


def iou(one: Box, other: Box) -> float:
    """Count pixels of both, and of either."""
    a, b = cells(one), cells(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def generalised_iou(one: Box, other: Box) -> float:
    """Less the pixels of the smallest box around both that are of neither."""
    around = cells(
        [min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])],
    )
    neither = [place for place in around if place not in cells(one) and place not in cells(other)]
    return iou(one, other) - (len(neither) / len(around) if around else 0.0)


def matched(box: Box, things: Sequence[Box]) -> int:
    """Try every thing."""
    found, largest = -1, 0.0
    for index, thing in enumerate(things):
        overlap = iou(box, thing)
        if overlap >= 0.5 and overlap > largest:
            found, largest = index, overlap
    return found


def side(box: Box, width: float) -> str:
    """Left, right, or undecided within a twentieth of the width around the middle."""
    middle = (box[0] + box[2]) / 2
    if middle < width * 0.45:
        return "left"
    return "right" if middle > width * 0.55 else "undecided"


def auc(true: Sequence[float], false: Sequence[float]) -> float:
    """Every pair."""
    won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in true for b in false)
    return won / (len(true) * len(false))
