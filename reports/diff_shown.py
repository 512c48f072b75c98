"""A comparison of two runs, as text for a terminal and as one HTML file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from reports import pictures, wording
from reports.axis import Axis, around
from reports.diff import Change, Diff
from reports.galleries import ROOM
from reports.page import page
from reports.paired import Paired, Unit
from reports.pictures import Album, Frames, Full, Unreadable
from reports.schema import Claim, Overlay
from reports.terminal import WIDTH, printable

ROW = (10.0, 250.0)  # pixels of the column of differences
SQUARE = (34.0, 286.0)  # of a scatter
MOST_DOTS = 600  # of a scatter: those that moved most
MOST_PICTURES = 3  # units of one claim
MOST_UNITS = 5  # of a table
FEW = 12  # claims that are shown with their units
NOT_A_TEST = (
    "Mean of new less old over the units that both runs measured, signed so that more supports the claim, with a 95 % "
    "Student interval of each claim alone: a summary, not a test. With many claims some interval leaves out zero by "
    "luck. A test is what a run with --audit-baseline says of a claim."
)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One unit: old from left to right, new from bottom to top."""

    x: float
    y: float
    good: bool
    label: str


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """The units of a claim in both runs."""

    dots: tuple[Dot, ...]
    across: Axis
    up: Axis


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A unit in both runs, as their evidence shows it; None where that run kept no picture of it."""

    name: str
    unit: Unit | None
    old: Frames | None
    new: Frames | None


@dataclass(frozen=True, kw_only=True)
class Card:
    """A claim whose verdict changed or whose values moved."""

    number: int
    change: Change
    scatter: Scatter | None
    units: tuple[Unit, ...]
    seen: tuple[Seen, ...]


def headline(found: Diff) -> str:
    """What moved, in one sentence."""
    names = ", ".join(new if old == new else f"{old}, then {new}" for old, new in found.models) or "no model in both"
    improved = len([change for change in found.turned if not change.worse])
    lost, added = len(found.dropped), len(found.added)
    counts = [
        (len(found.worse) - lost - added, "claim that gates got worse", "claims that gate got worse"),
        (lost, "that gated and passed is gone", "that gated and passed are gone"),
        (added, "that gates and does not pass is new", "that gate and do not pass are new"),
        (improved, "other verdict changed", "other verdicts changed"),
        (
            len([c for c in found.moved if not c.turned]),
            "more moved within its verdict",
            "more moved within their verdicts",
        ),
        (len(found.unlike), "is not comparable", "are not comparable"),
        (len(found.come) - added, "other is new" if added else "is new", "others are new" if added else "are new"),
        (len(found.gone) - lost, "other is gone", "others are gone"),
    ]
    told = [f"{n} {one if n == 1 else many}" for n, one, many in counts if n]
    return f"{names}: {', '.join(told) or 'nothing moved'}."


def worsened(found: Diff) -> str:
    """In what way something got worse; empty if nothing did."""
    ways = ["is answered worse than it was"] * any(change.worse for change in found.changes)
    ways += ["passed and is gone"] * bool(found.dropped)
    ways += ["is new and does not pass"] * bool(found.added)
    return f"Something that gates {', or '.join(ways)}." if ways else ""


def text(found: Diff) -> str:
    """For a terminal, at most 120 characters wide."""
    several = len(found.models) > 1
    lines: list[str] = []
    lines += _told("What else differs between the runs", (_flat(f"{w}: {a} -> {b}") for w, a, b in found.provenance))
    lines += _told("Verdicts that changed", (_verdicts(change, several) for change in found.turned))
    moved = [change for change in found.moved if not change.turned]
    lines += _told("Moved within the same verdict", (_moved(change, several) for change in moved))
    unlike = (_flat(f"{_name(change.new, several)}: {'; '.join(change.apart)}") for change in found.unlike)
    lines += _told("Not comparable", unlike)
    for title, claims in (("Gone", found.gone), ("New", found.come)):
        lines += _told(title, (_flat(f"{_word(claim)}  {_name(claim, several)}") for claim in claims))
    if any(change.paired for change in found.changes):
        lines += [*wrap(NOT_A_TEST, WIDTH), ""]
    return "\n".join([*lines, *wrap(printable(headline(found)), WIDTH)])


def _told(title: str, items: Iterable[str]) -> list[str]:
    """A title, and items whose further lines are set in."""
    lines = [
        line
        for item in items
        for number, part in enumerate(item.split("\n"))
        for line in wrap(
            printable(part).replace("−", "-"),  # copied numbers must parse
            WIDTH - 2,
            initial_indent="    " * (number > 0),
            subsequent_indent="    ",
        )
    ]
    return [title, *(f"  {line}" for line in lines), ""] if lines else []


def _verdicts(change: Change, several: bool) -> str:
    old, new = change.old, change.new
    said = [_flat(f"{_word(old)} -> {_word(new)}  {_name(new, several)} ({wording.SEVERITY_WORDS[new.severity]})")]
    said += [f"{wording.point(old)} {wording.interval(old)} -> {wording.point(new)} {wording.interval(new)}"]
    said += [_flat(line) for line in change.judged_otherwise]
    said += [f"moved by {difference(change.paired)}"] * (change.paired is not None)
    return "\n".join([*said, *[f"tested: {_flat(change.tested)}"] * bool(change.tested)])


def _moved(change: Change, several: bool) -> str:
    tested = f"\ntested: {_flat(change.tested)}" if change.tested else ""
    return f"{_flat(_name(change.new, several))}\n{difference(change.paired)}{tested}"


def _flat(text: str) -> str:
    """Without the line breaks of whoever wrote it: here they part an item."""
    return " ".join(text.splitlines())


def difference(paired: Paired | None) -> str:
    """Mean, interval and counts, for example "−0.120 [−0.150, −0.090], 3 better, 40 worse of 48"."""
    if paired is None or paired.mean is None:
        return "no unit in both runs"
    interval = "" if paired.interval is None else f" [{_signed(paired.interval[0])}, {_signed(paired.interval[1])}]"
    return f"{_signed(paired.mean)}{interval}, {paired.better} better, {paired.worse} worse of {len(paired.units)}"


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def _word(claim: Claim) -> str:
    return f"{wording.answer(claim)}{' (waived)' if claim.waived else ''}"


def _name(claim: Claim, several: bool) -> str:
    return f"{claim.subject}: {claim.id}" if several else claim.id


def render(found: Diff) -> str:
    """The comparison as one HTML document that needs no network and no JavaScript."""
    moved = [change for change in found.moved if not change.turned]
    shown = [*found.turned, *moved]
    largest = max((_reach(change) for change in shown), default=0.0) or 1.0
    album = Album(room=ROOM)
    return page(
        "diff.html",
        found=found,
        headline=headline(found),
        worse=worsened(found),
        turned=found.turned,
        moved=moved,
        axis=Axis(low=-largest, high=largest, start=ROW[0], stop=ROW[1]),
        cards=[_card(number, change, album, drawn=number < FEW) for number, change in enumerate(shown)],
        difference=difference,
        note=NOT_A_TEST,
        several=len(found.models) > 1,
        plates=album.plates.values(),
        heat=pictures.heat_stops(),
        tables=pictures.heat_tables(),
    )


def _reach(change: Change) -> float:
    """How far from zero a difference must be drawn, as a share of its range."""
    paired = change.paired
    if paired is None or paired.mean is None:
        return 0.0
    return max(map(abs, (paired.mean, *(paired.interval or ())))) / paired.scale


def _card(number: int, change: Change, album: Album, *, drawn: bool) -> Card:
    units = () if change.paired is None else change.paired.units
    return Card(
        number=number,
        change=change,
        scatter=_scatter(units) if drawn else None,
        units=units[:MOST_UNITS],
        seen=tuple(_seen(change, units, album)) if drawn else (),
    )


def _scatter(units: Sequence[Unit]) -> Scatter | None:
    values = [value for unit in units for value in (unit.old, unit.new)]
    if not values:
        return None
    low, high, pad = around(values)
    across = Axis(low=low - pad, high=high + pad, start=SQUARE[0], stop=SQUARE[1])
    up = Axis(low=low - pad, high=high + pad, start=SQUARE[1] - SQUARE[0] + 8, stop=8.0)
    dots = tuple(
        Dot(
            x=across(unit.old),
            y=up(unit.new),
            good=unit.change >= 0,
            label=f"{unit.name}: {unit.old:.4g}, then {unit.new:.4g}",
        )
        for unit in units[:MOST_DOTS]
    )
    return Scatter(dots=dots, across=across, up=up)


def _seen(change: Change, units: Sequence[Unit], album: Album) -> Iterable[Seen]:
    """Of the units that both runs kept a picture of (or else one of them), those that moved most."""
    old, new = _overlays(change.old), _overlays(change.new)
    moved = {unit.name: unit for unit in units}
    names = [name for name in moved if name in old or name in new] or [name for name in new if name in old]
    both = [name for name in names if name in old and name in new]
    for name in (both or names)[:MOST_PICTURES]:
        before, after = (_picture(run.get(name), album) for run in (old, new))
        yield Seen(name=name, unit=moved.get(name), old=before, new=after)


def _overlays(claim: Claim) -> dict[str, Overlay]:
    """The picture that says most about each unit: the first one with a map, else the first."""
    found: dict[str, Overlay] = {}
    for item in claim.evidence:
        if isinstance(item, Overlay) and (item.unit not in found or (item.saliency and not found[item.unit].saliency)):
            found[item.unit] = item
    return found


def _picture(overlay: Overlay | None, album: Album) -> Frames | None:
    try:
        return None if overlay is None else album.frames(overlay)
    except (Full, Unreadable):
        return None
