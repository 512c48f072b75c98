"""`--audit-xfails-file`: claims that are known to fail, so that a new failure stands out among them.

To pytest a listed test that fails is expected to (x, not F): it does not stop `-x`, and one that passes is told (X).
The verdict of the run and the exit code do not know the list: what gates and is expected to fail still fails the
release. To let it through is a decision that somebody answers for, until a day and down to a bound: a waiver of the
policy.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from camcore.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A line of the file."""

    name: str  # a claim's or a test's id; * stands for anything
    reason: str

    def covers(self, *ids: str) -> bool:
        """Whether one of these is meant. Brackets are letters: ids are full of them."""
        pattern = re.compile(".*".join(map(re.escape, self.name.split("*"))))
        return any(pattern.fullmatch(one) for one in ids)


def read_xfails(file: Path | None) -> tuple[Expected, ...]:
    """One id a line, with its reason behind a `#`; or below a comment, which holds up to the next one or an empty line.

    Raises:
        BadInput: The file cannot be read, or an id has no reason.
    """
    if file is None:
        return ()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        told = getattr(problem, "strerror", None) or "no UTF-8"
        raise BadInput(f"--audit-xfails-file {str(file)!r} cannot be read ({told}); give a text file") from None
    found, above = [], ""
    for number, line in enumerate(lines, start=1):
        name, _, behind = (part.strip() for part in line.partition("#"))
        if not name:
            above = behind
        elif not (behind or above):
            raise BadInput(
                f"{file}:{number}: {name!r} has no reason; say after a # why it is expected to fail, and until when"
            )
        else:
            found.append(Expected(name=name, reason=behind or above))
    return tuple(found)


def told(file: Path, nowhere: Iterable[str], passing: Iterable[str]) -> list[str]:
    """What whoever keeps the list has to look at, one line each."""
    return [
        *(f"warning: {file}: {name!r} matches no claim and no test of this run" for name in nowhere),
        *(f"warning: {file}: {test} passes, though it is expected to fail; take it off the list" for test in passing),
    ]
