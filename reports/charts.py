"""Curves, drawn: positions and paths for the template. No text of others is in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.axis import HUGE, TINY, Axis, dotted
from reports.schema import Curve

WIDTH, HEIGHT = 440, 200
LEFT, RIGHT, TOP, BOTTOM = 46.0, 430.0, 8.0, 176.0
COLOURS = 7  # of the style sheet; then dashes tell lines of one colour apart
DASHES = ("", "6 3", "1.5 3", "8 3 1.5 3")
FEW = 24  # points: so many are marked one by one


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series."""

    name: str
    colour: int
    dash: str
    path: str
    dots: str  # a path of points


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A curve with its axes; without lines when nothing in it is a number."""

    curve: Curve
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]  # ticks: pixel, label
    up: tuple[tuple[float, str], ...]


def chart(curve: Curve) -> Chart:
    """Place every series on axes that all share; null is a gap."""
    xs = [_drawable(x) for x in curve.x]
    series = {name: [None if y is None else _drawable(y) for y in ys] for name, ys in curve.series.items()}
    values = [y for ys in series.values() for y in ys if y is not None]
    x, y = _axis(xs, LEFT, RIGHT), _axis(values, BOTTOM, TOP, pad=0.06)
    lines = tuple(_line(place, name, xs, ys, x, y) for place, (name, ys) in enumerate(series.items()))
    return Chart(curve=curve, lines=lines, across=tuple(x.ticks()), up=tuple(y.ticks(about=4)))


def _drawable(value: float) -> float:
    return min(max(value, -HUGE), HUGE)


def _axis(values: Sequence[float], start: float, stop: float, *, pad: float = 0.0) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low <= TINY:
        low, high = low - (0.1 * abs(low) or 0.5), high + (0.1 * abs(high) or 0.5)
    room = pad * (high - low)
    return Axis(low=low - room, high=high + room, start=start, stop=stop)


def _line(place: int, name: str, xs: Sequence[float], ys: Sequence[float | None], x: Axis, y: Axis) -> Line:
    points = [None if value is None else (x(at), y(value)) for at, value in zip(xs, ys, strict=True)]
    return Line(
        name=name,
        colour=place % COLOURS,
        dash=DASHES[place // COLOURS % len(DASHES)],
        path="".join(_joined(points)),
        dots=dotted(filter(None, points)) if len(xs) <= FEW else "",
    )


def _joined(points: Iterable[tuple[float, float] | None]) -> Iterable[str]:
    pen = "M"
    for point in points:
        if point is None:
            pen = "M"
        else:
            yield f"{pen}{point[0]:g} {point[1]:g}"
            pen = "L"
