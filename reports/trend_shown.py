"""A history of runs, as text for a terminal and as one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from reports import axis, wording
from reports.axis import Axis
from reports.page import page
from reports.schema import Answer, Claim
from reports.terminal import WIDTH, printable
from reports.terms import SHORT
from reports.trend import Line, Point, Trend

LETTERS = {"PASS": "P", "FAIL": "F", "INCONCLUSIVE": "I", "ERROR": "E", "NOT_APPLICABLE": "N"}
SIGNS = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?", "ERROR": "!", "NOT_APPLICABLE": "–"}
LEFT, RIGHT = 56.0, 700.0  # pixels of the runs
TOP, BOTTOM = 18.0, 128.0  # of the values
WIDEST = 60.0  # between two runs: a short history is not drawn out
NARROWEST = 11.0  # a cell that still holds its sign
FEW = 8  # lines that are all unfolded


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One run of a line, in pixels."""

    x: float
    point: Point
    bar: tuple[float, float] | None
    dot: float | None
    margins: tuple[float, ...]
    label: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A line, drawn."""

    line: Line
    unfolded: bool
    up: Axis
    step: float
    drawn: tuple[Drawn, ...]
    bands: tuple[str, ...]  # points of polygons
    curves: tuple[str, ...]  # points of polylines
    cells: tuple[tuple[float, Answer | None], ...]  # one for each run; None where it did not judge the claim


def headline(found: Trend) -> str:
    """What the history comes to, in one sentence."""
    first, last = found.runs[0], found.runs[-1]
    turned = sum(line.changes > 0 for line in found.lines)
    broken = sum(any(point.broken for point in line.points) for line in found.lines)
    parts = [f"{turned} of {len(found.lines)} claims changed their verdict"]
    parts += [f"{broken} have a break where runs are not comparable"] * (broken > 0)
    parts += [f"{len(found.skipped)} file{'s' * (len(found.skipped) > 1)} skipped"] * (len(found.skipped) > 0)
    span = f"{first.when:%Y-%m-%d}" if len(found.runs) == 1 else f"{first.when:%Y-%m-%d} to {last.when:%Y-%m-%d}"
    return f"{len(found.runs)} run{'s' * (len(found.runs) != 1)}, {span}: {', '.join(parts)}."


def text(found: Trend) -> str:
    """For a terminal: the runs, a strip of verdicts for each claim, and the files that were skipped."""
    lines = ["Runs, the oldest first"]
    for number, ran in enumerate(found.runs, 1):
        models = ", ".join(f"{name} ({sha[:SHORT]})" for name, sha in ran.models.items())
        verdict = ran.said[0] + f" (exit code {ran.said[1]})" * (wording.look(*ran.said) != ran.said[0])
        told = f"{number}  {ran.when:%Y-%m-%d %H:%M}  {verdict}  {models}  seed {ran.seed}, {ran.profile}  {ran.where}"
        lines += [f"  {line}" for line in wrap(printable(told), WIDTH - 2, subsequent_indent="     ")]
    letters = ", ".join(f"{letter} {verdict.replace('_', ' ').lower()}" for verdict, letter in LETTERS.items())
    lines += ["", f"Claims, one letter for each run: {letters},"]
    lines += ["small waived; . not judged; | before it the numbers are not comparable; * other weights", ""]
    several = len({line.subject for line in found.lines}) > 1
    for line in found.lines:
        name = f"{line.subject}: {line.claim.id}" if several else line.claim.id
        told = f"{strip(line, len(found.runs))}  {name}  {_numbers(line)}".replace(
            "−", "-"
        )  # copied numbers must parse
        lines += wrap(printable(told), WIDTH, subsequent_indent="    ")
    lines += [""] * bool(found.skipped) + [f"skipped: {printable(reason)}" for reason in found.skipped]
    return "\n".join([*lines, "", *wrap(headline(found), WIDTH)])


def strip(line: Line, runs: int) -> str:
    """A letter for each run, for example "PP*P|FF."."""
    marks = ["."] * runs
    for point in line.points:
        letter = LETTERS[point.claim.shown]
        letter = letter.lower() if point.claim.waived else letter
        marks[point.run] = "|" * bool(point.broken) + "*" * point.weights + letter
    return "".join(marks)


def _numbers(line: Line) -> str:
    measured = [point.claim for point in line.points if point.estimate is not None]
    if not measured:
        return "no estimate"
    ends = measured[:1] + measured[-1:] * (len(measured) > 1)
    return " -> ".join(f"{wording.point(claim)} {wording.interval(claim)}" for claim in ends)


def render(found: Trend) -> str:
    """The history as one HTML document that needs no network and no JavaScript."""
    step = min(WIDEST, (RIGHT - LEFT) / max(len(found.runs), 1))
    return page(
        "trend.html",
        found=found,
        headline=headline(found),
        charts=[charted(line, found, step) for line in found.lines],
        signs=SIGNS if step >= NARROWEST else {},
        short=SHORT,
        left=LEFT,
        right=LEFT + step * len(found.runs),
        width=LEFT + step * len(found.runs) + 20,
        top=TOP,
        bottom=BOTTOM,
        several=len({line.subject for line in found.lines}) > 1,
    )


def charted(line: Line, found: Trend, step: float) -> Chart:
    """Place what a line's runs said in its figure.

    Args:
        line: Of one claim.
        found: The history that it belongs to.
        step: Pixels from one run to the next.
    """
    up = axis.spanning([point.claim for point in line.points], start=BOTTOM, stop=TOP)
    drawn = tuple(_drawn(point, up, LEFT + step * (point.run + 0.5), found) for point in line.points)
    place = {one.point.run: one for one in drawn}
    stretches = [[place[point.run] for point in stretch] for stretch in line.stretches]
    cells: list[Answer | None] = [None] * len(found.runs)
    for point in line.points:
        cells[point.run] = point.claim.shown
    return Chart(
        line=line,
        unfolded=len(found.lines) <= FEW or (line.claim.gates and (line.changes > 0 or line.claim.counts != "PASS")),
        up=up,
        step=step,
        drawn=drawn,
        bands=tuple(_band(stretch) for stretch in stretches if len(stretch) > 1),
        curves=tuple(
            " ".join(f"{one.x:.1f},{one.dot:.1f}" for one in stretch) for stretch in stretches if len(stretch) > 1
        ),
        cells=tuple((LEFT + step * place, verdict) for place, verdict in enumerate(cells)),
    )


def _band(stretch: Sequence[Drawn]) -> str:
    low = [f"{one.x:.1f},{one.bar[0]:.1f}" for one in stretch if one.bar]
    high = [f"{one.x:.1f},{one.bar[1]:.1f}" for one in reversed(stretch) if one.bar]
    return " ".join([*low, *high])


def _drawn(point: Point, up: Axis, x: float, found: Trend) -> Drawn:
    estimate = point.estimate
    return Drawn(
        x=round(x, 1),
        point=point,
        bar=None if estimate is None else (up(estimate.low), up(estimate.high)),
        dot=None if estimate is None else up(estimate.point),
        margins=tuple(up(edge) for edge in axis.edges(point.claim)),
        label=f"run {point.run + 1}, {found.runs[point.run].when:%Y-%m-%d %H:%M}: {wording.answer(point.claim)}, "
        f"{said(point.claim)}",
    )


def said(claim: Claim) -> str:
    """Estimate and interval, or that there is none."""
    return "no estimate" if claim.estimate is None else f"{wording.point(claim)} {wording.interval(claim)}"
