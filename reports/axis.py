"""Positions for the drawings that the template makes itself: an axis with ticks, intervals and strips of values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from reports.schema import Claim

DOT_BINS = 60
MOST_DOTS = 14  # a higher stack would be taller than the figure
HUGE, TINY = 1e300, 1e-290  # beyond them a span or a step is no number any more
GROUND = 92  # pixels from the top of a strip to the line that its dots stand on


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear scale from `low`..`high` to `start`..`stop` pixels."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Pixels from the left, clipped to the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start), 1)

    def ticks(self, about: int = 6) -> list[tuple[float, str]]:
        """Round numbers inside the axis: (pixel, label)."""
        raw = (self.high - self.low) / about
        power = 10.0 ** floor(log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
        digits = max(0, -floor(log10(step)))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        kind = f".{digits}f" if digits <= 6 and step < 1e6 else ".3g"
        labels = [f"{index * step:{kind}}" for index in range(first, last + 1)]
        return [(self(float(label)), label.replace("-", "−")) for label in labels]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """An interval against its margin, in pixels."""

    supported: tuple[tuple[float, float], ...]  # stretches in which the whole interval must lie
    margins: tuple[float, ...]
    bar: tuple[float, float] | None
    dot: float | None


@dataclass(frozen=True, kw_only=True)
class Strip:
    """All values of a claim over the axis that its interval is drawn on."""

    axis: Axis
    plot: Plot
    good: str  # paths of dots, of values that support the claim and of those that do not
    bad: str
    bars: tuple[tuple[float, float, float], ...]  # left, width, height; when there are too many to draw one by one
    n: int
    missing: int  # values that are null
    on_good_side: int


def edges(claim: Claim) -> tuple[float, ...]:
    """Where a claim's supported stretch begins (and ends)."""
    if claim.measure.direction == "within" and claim.bounds[0] < 0:
        return (-claim.margin, claim.margin)
    return (claim.margin,)


def good(claim: Claim, value: float) -> bool:
    """Whether a single value lies on the side that supports the claim."""
    return abs(value) < claim.margin if claim.measure.direction == "within" else value > claim.margin


def spanning(claims: Sequence[Claim], *, start: float, stop: float, values: bool = False) -> Axis:
    """One axis for all: it shows every margin and interval (and every value), and a little around them."""
    marks: list[float] = []
    low_bound, high_bound = float("inf"), float("-inf")
    for claim in claims:
        marks += edges(claim)
        if claim.estimate is not None:
            marks += [claim.estimate.low, claim.estimate.high, claim.estimate.point]
        if values:
            marks += [value for value in claim.values if value is not None]
        low_bound, high_bound = min(low_bound, *claim.bounds), max(high_bound, *claim.bounds)
    if all(claim.estimate is None for claim in claims):
        marks += [low_bound, high_bound]  # nothing else says what a large value is
    low, high, pad = around(marks)
    # the axis does not promise values that the measure cannot take, unless something was drawn there
    left, right = max(low - pad, min(low_bound, low)), min(high + pad, max(high_bound, high))
    if right - left <= TINY:
        left, right = left - pad, right + pad
    return Axis(low=left, high=right, start=start, stop=stop)


def around(marks: Sequence[float]) -> tuple[float, float, float]:
    """The least and the largest of what is to be drawn, and the room to leave beside them."""
    low, high = max(min(marks), -HUGE), min(max(marks), HUGE)
    return low, high, 0.08 * (high - low) if high - low > TINY else max(0.1 * abs(high), 0.05)


def plot(claim: Claim, axis: Axis) -> Plot:
    """Place an interval and its margin on an axis."""
    places = tuple(axis(edge) for edge in edges(claim))
    estimate = claim.estimate
    if len(places) == 2:
        stretch = (places[0], places[1])
    else:
        stretch = (axis.start, places[0]) if claim.measure.direction == "within" else (places[0], axis.stop)
    return Plot(
        supported=(stretch,),
        margins=places,
        bar=None if estimate is None else (axis(estimate.low), axis(estimate.high)),
        dot=None if estimate is None else axis(estimate.point),
    )


def strip(claim: Claim, *, start: float, stop: float) -> Strip | None:
    """Every value as a dot, stacked where they meet; a histogram when the stacks would grow too high.

    Returns:
        None when there is nothing to draw.
    """
    found = sorted(value for value in claim.values if value is not None)
    if not found:
        return None
    axis = spanning([claim], start=start, stop=stop, values=True)
    width = (stop - start) / DOT_BINS
    bins: dict[int, list[float]] = {}
    for value in found:
        bins.setdefault(min(int((axis(value) - start) / width), DOT_BINS - 1), []).append(value)
    tallest = max(len(members) for members in bins.values())
    many = tallest > MOST_DOTS
    dots = [] if many else list(_dots(claim, bins, start, width))
    return Strip(
        axis=axis,
        plot=plot(claim, axis),
        good=dotted((x, y) for supports, x, y in dots if supports),
        bad=dotted((x, y) for supports, x, y in dots if not supports),
        bars=tuple(
            (round(start + i * width, 1), round(width - 1, 1), round(84 * len(m) / tallest, 1))
            for i, m in sorted(bins.items())
        )
        if many
        else (),
        n=len(found),
        missing=len(claim.values) - len(found),
        on_good_side=sum(good(claim, value) for value in found),
    )


def _dots(
    claim: Claim, bins: Mapping[int, Sequence[float]], start: float, width: float
) -> Iterable[tuple[bool, float, float]]:
    """Whether it supports the claim, and where it is drawn, of each value."""
    for index, members in sorted(bins.items()):
        for level, value in enumerate(members):
            yield good(claim, value), round(start + (index + 0.5) * width, 1), round(GROUND - 4 - 6.2 * level, 1)


def dotted(points: Iterable[tuple[float, float]]) -> str:
    """A path whose strokes have no length: with round ends each is a dot, at a tenth of what a circle takes."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)
