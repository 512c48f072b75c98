"""`camcore COMMAND ...`: a word for each thing that people do with the project.

The modules behind the words are imported when they are asked for: those of the suite (`camcore.suite`) can be found
only then, and none of them needs what another needs.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import NoReturn

from camcore.errors import BadInput, printable
from camcore.suite import enter

WRONG = 4  # exit code of what the user got wrong, as of the audits themselves


class Parser(argparse.ArgumentParser):
    """Of a command's options. Errors of the user's go where all others go, on one line."""

    def error(self, message: str) -> NoReturn:
        """What argparse calls.

        Raises:
            BadInput: Always.
        """
        raise BadInput(f"{message}; see {self.prog} --help")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a word does, and where."""

    module: str  # its main() takes the words that follow, and returns the exit code
    help: str
    needs: tuple[str, ...] = ()  # packages of the extra "audits" that are imported before anything can be said


AUDITS = ("jinja2", "PIL", "pydantic", "pytest", "safetensors")
COMMANDS = {
    "audit": Command(
        module="audits.command", help="put the audits to a model: verdicts, a report, an exit code", needs=AUDITS
    ),
    "explain": Command(module="camcore.explain.command", help="show what speaks for a class in photographs"),
    "report": Command(module="reports.command", help="make reports of finished runs", needs=AUDITS),
    "completion": Command(
        module="audits.completion", help="print the completion of this command for bash or zsh", needs=AUDITS
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["-h"], ["--help"]):
        sys.stdout.write(usage())
        return 0
    if words == ["--version"]:
        sys.stdout.write(f"camcore {version('camcore')}\n")
        return 0
    try:
        return run(words)
    except BadInput as problem:
        sys.stderr.write(f"camcore: {printable(str(problem))}\n")
        return WRONG


def run(words: Sequence[str]) -> int:
    """The command that the first word names, with the rest.

    Raises:
        BadInput: There is no such command, or what it needs is not installed.
    """
    name = words[0] if words else ""
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COMMANDS)}"
        raise BadInput(f"no command {name!r}; {hint}" if words else f"name a command: {', '.join(COMMANDS)}")
    missing = [package for package in COMMANDS[name].needs if find_spec(package) is None]
    if missing:
        raise BadInput(f"{missing[0]!r} is not installed; camcore {name} needs the extra: pip install 'WHEEL[audits]'")
    enter()
    return int(import_module(COMMANDS[name].module).main(list(words[1:])))


def usage() -> str:
    """What `camcore --help` prints."""
    lines = [f"  {name:<12}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: camcore COMMAND ...", "", *lines, "", "camcore COMMAND --help says more.\n"])
