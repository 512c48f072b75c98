"""results.jsonl: one flushed line per measured batch and per finished claim, so that a killed run can be resumed.

Every worker writes a file of its own (results.jsonl, results.gw0.jsonl, …): lines of some size are not atomic. Every
line ends in a checksum of itself: a disk or a kill may leave any bytes, and a digit that has changed is a number like
any other. What does not add up is measured again.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from math import isfinite, nan
from pathlib import Path
from typing import Any

from audits.report_folder import JOURNALS, written

SUM = ', "sum": "'  # what separates a line from its checksum
# why a claim has no verdict that was begun and not concluded
CUT_SHORT = "interrupted"  # how the reason begins where whoever stopped the run kept it from being reached
VANISHED = "what measured it ended before its verdict: the process was killed, ran out of memory or crashed"


class Unwritable(OSError):
    """The journal could not be written: the one OSError that costs a verdict. One line."""


class Cells(Mapping[str, float]):
    """A row. Audits have hundreds of columns, and there is a row for every image: eight bytes a cell, not eighty."""

    __slots__ = ("_places", "_values")

    def __init__(self, places: Mapping[str, int], values: Iterable[float]) -> None:
        self._places, self._values = places, array("d", values)

    def __getitem__(self, column: str) -> float:
        return self._values[self._places[column]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._values)


class Journal(MutableMapping[str, Mapping[str, float]]):
    """Rows of one measurement by image id; what is set is written at once."""

    def __init__(self, log: "Log", key: str) -> None:
        self._log, self._key = log, key
        self._rows = log.rows.setdefault(key, {})

    def __getitem__(self, image_id: str) -> Mapping[str, float]:
        return self._rows[image_id]

    def __setitem__(self, image_id: str, row: Mapping[str, float]) -> None:
        self._rows[image_id] = self._log.cells(row)
        cells = {name: value if isfinite(value) else None for name, value in row.items()}
        self._log.append({"type": "row", "key": self._key, "id": image_id, "row": cells})

    def __delitem__(self, image_id: str) -> None:
        raise TypeError("a journal only grows")

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class Log:
    """The files of one run."""

    def __init__(
        self,
        folder: Path,
        worker: str,
        *,
        run: str,
        resume: bool,
        on_claim: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.run = run
        self.on_claim = on_claim  # is shown each claim that this process concludes
        self.path = folder / ("results.jsonl" if worker == "master" else f"results.{worker}.jsonl")
        self.rows: dict[str, dict[str, Cells]] = {}
        self._columns: dict[tuple[str, ...], dict[str, int]] = {}  # shared by all rows that have the same
        self.claims: dict[str, dict[str, Any]] = {}
        if resume:
            for line in read_lines(folder):
                if line["type"] == "row":
                    row = {name: nan if value is None else value for name, value in line["row"].items()}
                    self.rows.setdefault(line["key"], {})[line["id"]] = self.cells(row)
                elif line["type"] == "claim":
                    self.claims[line["key"]] = line["claim"]
        # a kill cut the last line short: the next one must not be glued to it
        self._torn = self.path.exists() and _cut_short(self.path)

    def cells(self, row: Mapping[str, float]) -> Cells:
        """A row as it is kept."""
        names = tuple(row)
        places = self._columns.setdefault(names, {name: place for place, name in enumerate(names)})
        return Cells(places, row.values())

    def append(self, line: dict[str, Any]) -> None:
        """Write one line and flush it: a SIGKILL costs at most the line being written.

        Raises:
            Unwritable: The disk is full, say. A later line starts on a line of its own.
        """
        start, self._torn = "\n" if self._torn else "", True
        try:
            text = json.dumps(line, allow_nan=False)[:-1]
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f'{start}{text}{SUM}{_sum(text)}"}}\n')
        except OSError as problem:
            raise Unwritable(
                f"cannot write to {str(self.path)!r} ({problem.strerror}); what was measured before is there: "
                "make room, and go on with --audit-resume"
            ) from None
        self._torn = False

    def begin(self, key: str, record: dict[str, Any]) -> None:
        """A claim that is about to be measured, as it is recorded if nothing more is heard of it."""
        self.append({"type": "begun", "run": self.run, "key": key, "claim": record})

    def claim(self, key: str, record: dict[str, Any]) -> None:
        """A claim that this run concluded, measured now or found in the journal."""
        self.claims[key] = record
        self.append({"type": "claim", "run": self.run, "key": key, "claim": record})
        if self.on_claim is not None:  # after it is safe in the file: the caller's code may raise
            self.on_claim(record)


def read_lines(folder: Path, *, kind: str = "") -> Iterator[dict[str, Any]]:
    """All lines of all workers that are as they were written, or those of one type alone."""
    start = f'{{"type": "{kind}'.encode()
    for path in sorted(written(folder, *JOURNALS)):
        with path.open("rb") as file:
            for raw in file:
                if not raw.startswith(start):
                    continue
                text, _, rest = raw.decode("utf-8", errors="replace").rpartition(SUM)
                if text and rest == f'{_sum(text)}"}}\n':
                    yield json.loads(text + "}")


def _sum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _cut_short(path: Path) -> bool:
    """Whether a kill left a last line without its end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() not in (b"", b"\n")


def finished_claims(folder: Path, *, run: str, interrupted: bool = False) -> list[dict[str, Any]]:
    """The claims that the workers of this run concluded, and those that they began and did not.

    These are ERROR, or INCONCLUSIVE in a run that was interrupted: then it was not the model that ended them. What an
    earlier run left in the folder counts only once this run has concluded it again: it may have been judged with other
    weights or under another policy.
    """
    concluded, begun = (
        {line["key"]: line["claim"] for line in read_lines(folder, kind=kind) if line["run"] == run}
        for kind in ("claim", "begun")
    )
    left = [claim for key, claim in begun.items() if key not in concluded]
    if interrupted:
        left = [
            {**claim, "verdict": "INCONCLUSIVE", "reason": f"{CUT_SHORT}; --audit-resume goes on"} for claim in left
        ]
    return [*concluded.values(), *left]
