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
    neither = around - cells(one) - cells(other)
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


def shares(
    asked: Sequence[tuple[str, int, int, str | None, int | None]],
    named: Sequence[Sequence[tuple[str, str]]],
    things: Sequence[Sequence[Box]],
    boxes: Sequence[Box],
    scores: Sequence[float],
    width: float,
) -> dict[str, float]:
    """Every measure of one group, query by query.

    Args:
        asked: Family, picture (4 is the first one's mirror image), the thing meant, the side that is said, and what it
            is next to.
        named: Colour and kind of the things of each picture.
        things: The things of each picture.
        boxes: The answer to each query.
        scores: Of the answers.
        width: Of the pictures.
    """
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(float(value))

    for number, (family, picture, meant, said, beside) in enumerate(asked):
        box = boxes[number]
        if picture == 4:
            twin = next(
                other
                for other, one in enumerate(asked)
                if one[0] == "F3" and one[1] == 0 and one[2] == meant and one[3] != said
            )
            one, other = side(boxes[twin], width), side(box, width)
            note("mirror", {one, other} == {"left", "right"})
            first, second = ((each[0] + each[2]) / 2 / width for each in (boxes[twin], box))
            note("mirror:error", min(1.0, abs(first + second - 1)))
            continue
        around, here = matched(box, things[picture]), side(box, width)
        right = around == meant
        note(family, right)
        note(f"{family}:giou", generalised_iou(box, things[picture][meant]) >= 0.5)
        note(f"{family}:side", here == side(things[picture][meant], width))
        note(f"{family}:middle", here == "undecided")
        note(f"{family}:none", around == -1)
        if family == "F0":
            note("finds", right)
            note("F0:colour", around != -1 and named[picture][around][0] == named[picture][meant][0])
            note("F0:kind", around != -1 and named[picture][around][1] == named[picture][meant][1])
        if family == "F1":
            note("verdict:true", here == said)
            false = next(
                other
                for other, one in enumerate(asked)
                if one[0] == "F2" and one[1] == picture and one[2] == meant and one[3] != said
            )
            note("confidence", scores[number] > scores[false])
        if family == "F2":
            note("F2:other", around not in (-1, meant))
            note("verdict:false", here not in (said, "undecided"))
        if family == "F3":
            note("sides", right)
        if family == "F4":
            note("relations", right)
            note("F4:anchor", around == beside)
            note("F4:far", around != -1 and abs(around - (beside or 0)) > 1)
            note("F4:turned", around != meant and abs(around - (beside or 0)) == 1 and around != -1)
    return {name: sum(values) / len(values) for name, values in seen.items()}
