"""The history of a model's claims over all runs below a folder.

A line is one claim of one model, by their ids. It goes on from run to run as long as the numbers are comparable (data,
seed, profile, version of the audit, measure); where they are not, it is broken. New weights do not break it: they are
what a history is kept for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from reports.schema import BadResults, Claim, Estimate, Results, load
from reports.terms import SHORT, apart, terms


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run, less its values and pictures: a history of hundreds must fit into memory."""

    where: str  # its file, from the folder
    when: datetime
    id: str
    said: tuple[str, int]  # verdict and exit code
    seed: int
    profile: str
    models: dict[str, str]  # id -> SHA-256 of the weights
    data: tuple[str, ...]
    interrupted: bool


@dataclass(frozen=True, kw_only=True)
class Point:
    """A claim in one run."""

    run: int  # its place in the history
    claim: Claim  # without values, units and evidence
    terms: dict[str, str]
    broken: tuple[str, ...]  # why its number is not comparable with the one before
    weights: bool  # whether the model has other weights than in the point before

    @property
    def estimate(self) -> Estimate | None:
        """Its number, if it has one."""
        return self.claim.estimate


@dataclass(frozen=True, kw_only=True)
class Line:
    """The history of one claim of one model."""

    subject: str
    claim: Claim  # as the last run has it
    points: tuple[Point, ...]

    @property
    def changes(self) -> int:
        """How often its verdict was another than before, or counted for another (waivers, a baseline)."""
        verdicts = [(point.claim.shown, point.claim.counts) for point in self.points]
        return sum(one != other for one, other in pairwise(verdicts))

    @property
    def stretches(self) -> list[list[Point]]:
        """Points with numbers, parted where they are not comparable or where a run has none."""
        found: list[list[Point]] = []
        last: Point | None = None
        for point in self.points:
            if point.estimate is not None:
                joined = last is not None and last.estimate is not None and last.run == point.run - 1
                if not joined or point.broken:
                    found.append([])
                found[-1].append(point)
            last = point
        return found


@dataclass(frozen=True, kw_only=True)
class Trend:
    """All that was found below a folder."""

    runs: tuple[Ran, ...]  # the oldest first
    lines: tuple[Line, ...]
    skipped: tuple[str, ...]  # one line for each file that could not be used


def trend(folder: Path) -> Trend:
    """Read every results.json below a folder.

    Raises:
        BadResults: There is no such folder, or nothing in it can be read.
    """
    if not folder.is_dir():
        raise BadResults(f"expected a folder with results.json files in it or below, got {str(folder)!r}")
    try:
        files = sorted(folder.rglob("results.json"))
    except OSError as error:
        raise BadResults(f"cannot read the folder {str(folder)!r}: {error.strerror or error}") from None
    found: list[tuple[Ran, list[tuple[Claim, dict[str, str]]]]] = []
    skipped = []
    for file in files:
        try:
            results = load(file)
            ran = _ran(results, str(file.relative_to(folder)))
        except BadResults as error:
            skipped.append(str(error))
            continue
        found.append((ran, [(_bare(claim), terms(results, claim)) for claim in results.claims]))
    if not found:
        why = f"; {skipped[0]}" if skipped else ""
        raise BadResults(f"expected results.json files in {str(folder)!r} or below, got {len(files)} to read{why}")
    found.sort(key=lambda item: (item[0].when, item[0].where))
    runs = tuple(ran for ran, _ in found)
    return Trend(runs=runs, lines=tuple(_lines(runs, [claims for _, claims in found])), skipped=tuple(skipped))


def _ran(results: Results, where: str) -> Ran:
    run = results.run
    try:
        when = datetime.fromisoformat(run.utc)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadResults(f"expected run.utc to be a time, got {run.utc[:40]!r} in {where!r}") from None
    return Ran(
        where=where,
        when=when,
        id=run.id,
        said=(results.verdict, results.exit_code),
        seed=run.seed,
        profile=run.profile,
        models={subject.id: subject.sha256 for subject in results.subjects},
        data=tuple(sorted(f"{data.spec} ({data.sha256[:SHORT]})" for data in results.data)),
        interrupted=run.interrupted,
    )


def _bare(claim: Claim) -> Claim:
    return claim.model_copy(update={"values": (), "units": (), "evidence": ()})


def _lines(runs: Sequence[Ran], judged: Sequence[Sequence[tuple[Claim, dict[str, str]]]]) -> list[Line]:
    points: dict[tuple[str, str], list[Point]] = {}
    for place, claims in enumerate(judged):
        for claim, shared in claims:
            line = points.setdefault((claim.subject, claim.id), [])
            last = line[-1] if line else None
            if last is not None and last.run == place:  # the same claim twice in one file: the first one counts
                continue
            weights = runs[place].models.get(claim.subject)
            line.append(
                Point(
                    run=place,
                    claim=claim,
                    terms=shared,
                    broken=tuple(apart(last.terms, shared)) if last else (),
                    weights=last is not None and runs[last.run].models.get(claim.subject) != weights,
                )
            )
    lines = [Line(subject=key[0], claim=found[-1].claim, points=tuple(found)) for key, found in points.items()]
    return sorted(lines, key=lambda line: (not line.claim.gates, -line.changes))
