"""The folder of a report: nothing in it that somebody may still want is written over."""

from contextlib import suppress
from pathlib import Path

from camcore.errors import BadInput

RESULTS = "results.json"
JOURNALS = ("results.jsonl", "results.gw*.jsonl")
MADE_FROM_RESULTS = ("report.html", "summary.md", "model-index.yaml", "results.sarif")
PREVIOUS = "results.previous."
PICTURES, PREVIOUS_PICTURES = "hijacked", "hijacked.previous"
SHOWN = "*/*-[0-9]-*.png"  # in either, as `audits.hijack_shown` names them
BEGINNING = b'{"schema_version"'  # of a results.json
LINE = b'{"type": "'  # of a journal


def make(folder: Path) -> None:
    """Make the folder, if need be.

    Raises:
        OSError: The folder cannot be made or written.
        BadInput: It holds no earlier run but something else, or links in an earlier run's place: nobody's files are
            written over or mixed with a report's by mistake.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = written(folder, RESULTS, *JOURNALS, f"{PREVIOUS}*")
    strangers = [path for path in ours if path.is_symlink() or not _is_ours(path)] if ours else sorted(folder.iterdir())
    if strangers:
        raise BadInput(
            f"the report's folder {str(folder)!r} holds {strangers[0].name!r}, which no audit wrote; "
            "give a new or an empty folder with --audit-report"
        )
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()


def set_aside(folder: Path, *, resume: bool = False) -> str:
    """Call what an earlier run measured results.previous.*, in place of what was called so: nothing is lost unseen.

    Only once nothing is wrong with the new run. What is made from results.json is removed: it can be made again. The
    hijacked pictures can not, and go to hijacked.previous: beside the new run's they would be evidence of nothing.

    Args:
        folder: The report's.
        resume: Whether the journals are gone on with, and stay; with them the pictures.

    Returns:
        What became of earlier runs, in words; empty if there was none.

    Raises:
        OSError: Something cannot be renamed.
    """
    earlier = written(folder, RESULTS, *(() if resume else JOURNALS))
    if folder / RESULTS in earlier:  # without it nothing was made of it, and what is called so is somebody's own
        for path in written(folder, *MADE_FROM_RESULTS):
            path.unlink()
    gone = []
    for path in earlier:
        aside = folder / path.name.replace("results.", PREVIOUS, 1)
        gone += [aside.name] * aside.exists()
        path.replace(aside)
    if not earlier:
        return ""
    moved = False
    if not resume:
        gone += [PREVIOUS_PICTURES] * _emptied(folder / PREVIOUS_PICTURES, None)
        moved = _emptied(folder / PICTURES, folder / PREVIOUS_PICTURES)
    instead = f", in place of the one before it ({', '.join(gone)})" if gone else ""
    return f"the run before this one was set aside as {PREVIOUS}*{f' and {PREVIOUS_PICTURES}' * moved}{instead}"


def _emptied(pictures: Path, to: Path | None) -> bool:
    """Move or remove the pictures that a run wrote, and the folders if nothing else is in them; whether it had any."""
    ours = [] if pictures.is_symlink() else [path for path in pictures.glob(SHOWN) if not path.parent.is_symlink()]
    for path in ours:
        if to is None:
            path.unlink()
        else:
            (to / path.parent.name).mkdir(parents=True, exist_ok=True)
            path.replace(to / path.parent.name / path.name)
    for held in (*{path.parent for path in ours}, pictures):
        with suppress(OSError):  # somebody else's files
            held.rmdir()
    return bool(ours)


def _is_ours(path: Path) -> bool:
    """Others' tools write files of these names too. A journal may be damaged, but not all of it."""
    if not path.is_file() or path.name.startswith(PREVIOUS):
        return path.is_file()
    with path.open("rb") as file:
        if path.name == RESULTS:
            return file.read(len(BEGINNING)) == BEGINNING
        # a full disk may have left the beginning of one line, or nothing
        return any(line.startswith(LINE) or LINE.startswith(line) for line in file) or path.stat().st_size == 0


def written(folder: Path, *patterns: str) -> list[Path]:
    """The files that a run wrote; the folder may be the user's own, with other files in it."""
    return [path for pattern in patterns for path in folder.glob(pattern)]
