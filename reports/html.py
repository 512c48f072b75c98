"""One self-contained HTML file from a run's results.

Every string of a model, a file or a caption goes through Jinja's autoescape. Two things do not: the style sheet of this
folder, and drawings that hold numbers only.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports import axis, charts, pictures, wording
from reports.axis import Axis, Plot, Strip
from reports.charts import Chart
from reports.galleries import ROOM, Gallery, galleries
from reports.pictures import Album
from reports.schema import Audit, Claim, Curve, Results, Table, write_atomically

TEMPLATES = Path(__file__).parent / "templates"
ROW = (10.0, 250.0)  # pixels of the interval column
STRIP = (12.0, 548.0)  # pixels of a claim's own figure
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MOST_HELD = 12  # claims that keep a release back and are named before the contents; the table has them all
MOST_UNTESTED = 5  # lines about what was not tested, likewise; the last section has them all
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
class Card:
    """A claim with its figures."""

    number: int
    claim: Claim
    unfolded: bool
    strip: Strip | None
    gallery: Gallery | None
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

    @property
    def tally(self) -> list[tuple[str, int]]:
        """How many of its claims got each verdict."""
        return wording.tally([card.claim for card in self.cards])


def render(results: Results, *, room: int = ROOM) -> str:
    """The report as one HTML document that needs no network and no JavaScript.

    Args:
        results: The run.
        room: Characters that pictures may take.
    """
    album = Album(room=room)
    return (
        environment()
        .get_template("template.html")
        .render(
            results=results,
            groups=_groups(results),
            sections=_sections(results, album),
            held_back=_held_back(results),
            most_held=MOST_HELD,
            untested=() if results.verdict == "PASS" else results.not_tested,
            most_untested=MOST_UNTESTED,
            asides=wording.asides(results.claims),
            tally=wording.tally(results.claims),
            look=wording.look(results.verdict, results.exit_code),
            plates=album.plates.values(),
            room=room,
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
            heat=pictures.heat_stops(),
            tables=pictures.heat_tables(),
            words=wording,
        )
    )


def _held_back(results: Results) -> list[tuple[int, Claim]]:
    """Claims that keep the release back, with their places, those that fail first."""
    found = [(number, claim) for number, claim in wording.judged(results.claims) if claim.holds_back]
    return sorted(found, key=lambda one: wording.VERDICTS.index(one[1].counts))


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


def _sections(results: Results, album: Album) -> list[Section]:
    documented = {audit.name: audit for audit in results.audits}
    judged = wording.judged(results.claims)
    shown = galleries(judged, album)
    few = len(results.claims) <= FEW
    return [
        Section(
            name=name,
            audit=documented.get(name),
            cards=tuple(
                _card(number, claim, shown.get(number), few) for number, claim in judged if claim.audit == name
            ),
        )
        for name in _names(results)
    ]


def _card(number: int, claim: Claim, gallery: Gallery | None, few: bool) -> Card:
    return Card(
        number=number,
        claim=claim,
        unfolded=few or claim.holds_back,
        strip=axis.strip(claim, start=STRIP[0], stop=STRIP[1]),
        gallery=gallery,
        charts=tuple(charts.chart(item) for item in claim.evidence if isinstance(item, Curve)),
        tables=tuple(item for item in claim.evidence if isinstance(item, Table)),
    )
