"""One self-contained HTML file from a run's results.

Every string of a model, a file or a caption goes through Jinja's autoescape. Two things do not: the style sheet of this
folder, and drawings that hold numbers only.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports import axis, pictures, wording
from reports.axis import Axis, Plot, Strip
from reports.pictures import Pair, Series
from reports.schema import Audit, Claim, Curve, Overlay, Results, Table, write_atomically

TEMPLATES = Path(__file__).parent / "templates"
ROW = (10.0, 250.0)  # pixels of the interval column
STRIP = (12.0, 548.0)  # pixels of a claim's own figure
COLUMNS = 3  # of pictures
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FEW = 8  # claims that are all unfolded; in longer reports only those that keep a release back


@dataclass(frozen=True, kw_only=True)
class Row:
    """A claim and its place on the axis that it shares with its neighbours."""

    number: int  # position in results.claims: the anchor of its section
    claim: Claim
    plot: Plot


@dataclass(frozen=True, kw_only=True)
class Group:
    """Claims of one subject and one audit that are measured in the same unit, on one axis."""

    title: str
    subject: str
    measure: str
    unit: str
    axis: Axis
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A curve, drawn."""

    curve: Curve
    drawing: Markup
    legend: tuple[Series, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A claim with its figures."""

    number: int
    claim: Claim
    unfolded: bool
    strip: Strip | None
    pairs: tuple[tuple[Overlay, Pair | None], ...]
    columns: int  # of the pictures: those of one image stand in one row
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """An audit and the claims it judged."""

    name: str
    audit: Audit | None  # None when the run knows nothing about it but the claims
    cards: tuple[Card, ...]

    @property
    def title(self) -> str:
        """Its question, or its name when nobody wrote one."""
        return self.audit.title if self.audit else self.name


def render(results: Results) -> str:
    """The report as one HTML document that needs no network and no JavaScript."""
    return (
        environment()
        .get_template("template.html")
        .render(
            results=results,
            groups=_groups(results),
            sections=_sections(results),
            asides=wording.asides(results.claims),
            tally=[(v, sum(c.verdict == v for c in results.claims)) for v in wording.VERDICTS],
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
            heat=pictures.heat_stops(),
            words=wording,
        )
    )


def write(results: Results, path: Path | str) -> None:
    """Write the report whole or not at all."""
    write_atomically(render(results), Path(path))


def _inert(value: object) -> object:
    """Marks that turn the reading direction and control characters written out: no name rewrites its neighbours."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value) if type(value) is str else value


@cache
def environment() -> Environment:
    """Of all pages: everything is escaped, and a name that nobody set is an error."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _names(results: Results) -> list[str]:
    """Audits in the order the run documents them, then those it does not."""
    return list(dict.fromkeys([audit.name for audit in results.audits] + [claim.audit for claim in results.claims]))


def _titles(results: Results) -> dict[str, str]:
    return {name: name for name in _names(results)} | {audit.name: audit.title for audit in results.audits}


def _groups(results: Results) -> list[Group]:
    titles = _titles(results)
    order = {name: place for place, name in enumerate(titles)}
    subjects = list(dict.fromkeys([s.id for s in results.subjects] + [c.subject for c in results.claims]))
    members: dict[tuple[str, str, str, str], list[tuple[int, Claim]]] = {}
    ranked = sorted(
        wording.judged(results.claims), key=lambda item: (subjects.index(item[1].subject), order[item[1].audit])
    )
    for number, claim in ranked:
        key = (claim.subject, claim.audit, claim.measure.name, claim.measure.unit)
        members.setdefault(key, []).append((number, claim))
    groups = []
    for (subject, audit, measure, unit), numbered in members.items():
        shared = axis.spanning([claim for _, claim in numbered], start=ROW[0], stop=ROW[1])
        rows = tuple(Row(number=number, claim=claim, plot=axis.plot(claim, shared)) for number, claim in numbered)
        groups.append(Group(title=titles[audit], subject=subject, measure=measure, unit=unit, axis=shared, rows=rows))
    return groups


def _sections(results: Results) -> list[Section]:
    documented = {audit.name: audit for audit in results.audits}
    few = len(results.claims) <= FEW
    return [
        Section(
            name=name,
            audit=documented.get(name),
            cards=tuple(_cards(((i, c) for i, c in wording.judged(results.claims) if c.audit == name), few=few)),
        )
        for name in _names(results)
    ]


def _cards(numbered: Iterable[tuple[int, Claim]], *, few: bool) -> Iterable[Card]:
    for number, claim in numbered:
        yield Card(
            number=number,
            claim=claim,
            unfolded=few or (claim.gates and claim.verdict in ("FAIL", "INCONCLUSIVE", "ERROR")),
            strip=axis.strip(claim, start=STRIP[0], stop=STRIP[1]),
            pairs=tuple(_pairs(claim)),
            columns=_columns(claim),
            charts=tuple(_charts(number, claim)),
            tables=tuple(item for item in claim.evidence if isinstance(item, Table)),
        )


def _pairs(claim: Claim) -> Iterable[tuple[Overlay, Pair | None]]:
    overlays = [item for item in claim.evidence if isinstance(item, Overlay)]
    for overlay in sorted(overlays, key=lambda item: item.role != "worst"):
        yield overlay, pictures.pair(overlay)


def _columns(claim: Claim) -> int:
    shown = Counter((item.role, item.unit) for item in claim.evidence if isinstance(item, Overlay))
    most = max(shown.values(), default=1)
    return most if 1 < most <= COLUMNS + 1 else COLUMNS


def _charts(number: int, claim: Claim) -> Iterable[Chart]:
    curves = [item for item in claim.evidence if isinstance(item, Curve)]
    for place, curve in enumerate(curves):
        yield Chart(
            curve=curve,
            drawing=Markup(pictures.chart(curve, prefix=f"c{number}-{place}")),
            legend=tuple(pictures.legend(curve)),
        )
