"""results.jsonl: one flushed line per measured batch and per finished claim, so that a killed run can be resumed.

Every worker writes a file of its own (results.jsonl, results.gw0.jsonl, …): lines of some size are not atomic.
"""

import json
from collections.abc import Callable, Iterator, MutableMapping
from math import isfinite, nan
from pathlib import Path
from typing import Any

# why a claim has no verdict that was begun and not concluded
CUT_SHORT = "interrupted"  # how the reason begins where whoever stopped the run kept it from being reached
VANISHED = "what measured it ended before its verdict: the process was killed, ran out of memory or crashed"


class Journal(MutableMapping[str, dict[str, float]]):
    """Rows of one measurement by image id; what is set is written at once."""

    def __init__(self, log: "Log", key: str) -> None:
        self._log, self._key = log, key
        self._rows = log.rows.setdefault(key, {})

    def __getitem__(self, image_id: str) -> dict[str, float]:
        return self._rows[image_id]

    def __setitem__(self, image_id: str, row: dict[str, float]) -> None:
        self._rows[image_id] = row
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
        self.rows: dict[str, dict[str, dict[str, float]]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        if resume:
            for line in read_lines(folder):
                if line["type"] == "row":
                    cells = {name: nan if value is None else value for name, value in line["row"].items()}
                    self.rows.setdefault(line["key"], {})[line["id"]] = cells
                elif line["type"] == "claim":
                    self.claims[line["key"]] = line["claim"]
        # a kill cut the last line short: the next one must not be glued to it
        self._torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")

    def append(self, line: dict[str, Any]) -> None:
        """Write one line and flush it: a SIGKILL costs at most the line being written.

        Raises:
            OSError: The disk is full, say. A later line starts on a line of its own.
        """
        start, self._torn = "\n" if self._torn else "", True
        with self.path.open("a", encoding="utf-8") as file:
            file.write(start + json.dumps(line, allow_nan=False) + "\n")
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


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """All lines of all workers; a last line that a kill cut short is left out."""
    for path in sorted(written(folder, "results.jsonl", "results.gw*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:  # a disk that failed may have left any bytes
            for text in file:
                try:
                    yield json.loads(text)
                except json.JSONDecodeError:
                    continue


def finished_claims(folder: Path, *, run: str, interrupted: bool = False) -> list[dict[str, Any]]:
    """The claims that the workers of this run concluded, and those that they began and did not.

    These are ERROR, or INCONCLUSIVE in a run that was interrupted: then it was not the model that ended them. What an
    earlier run left in the folder counts only once this run has concluded it again: it may have been judged with other
    weights or under another policy.
    """
    lines = [line for line in read_lines(folder) if line.get("run") == run]
    concluded = {line["key"]: line["claim"] for line in lines if line["type"] == "claim"}
    begun = {line["key"]: line["claim"] for line in lines if line["type"] == "begun"}
    left = [claim for key, claim in begun.items() if key not in concluded]
    if interrupted:
        left = [
            {**claim, "verdict": "INCONCLUSIVE", "reason": f"{CUT_SHORT}; --audit-resume goes on"} for claim in left
        ]
    return [*concluded.values(), *left]


def make(folder: Path) -> None:
    """Make the folder, if need be.

    Raises:
        OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()


def forget(folder: Path) -> None:
    """Remove what an earlier run wrote: only once nothing is wrong with the new one.

    Raises:
        OSError: Something cannot be removed.
    """
    for path in written(folder, "results.jsonl", "results.gw*.jsonl", "results.json", "report.html"):
        path.unlink()


def written(folder: Path, *patterns: str) -> list[Path]:
    """The files that a run wrote; the folder may be the user's own, with other files in it."""
    return [path for pattern in patterns for path in folder.glob(pattern)]
