"""What can be done with results.json without the model: `camcore report` and `python -m reports`.

Exit codes: 0, done; 1, `diff` only: something that gates is answered worse than it was, or is new and does not pass
beside a run that passed; 2, the command line, a file that is no results.json, or an output that cannot be written.
Whatever is wrong with the input is told in one line.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from reports import diff, diff_shown, html, schema, trend, trend_shown, wording
from reports.terminal import printable

WORSE = 1
BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the words in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """What argparse calls.

        Raises:
            SystemExit: With code 2, always.
        """
        self.exit(BAD_INPUT, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None, *, prog: str = "camcore report") -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: The words after the command; None: those that this process was started with.
        prog: What the command is called in its own help.

    Raises:
        SystemExit: With code 2 for words that are no command, with 0 after `--help`.
    """
    options = _parser(prog).parse_args(argv)
    do: Callable[[argparse.Namespace], tuple[int, str]] = options.do
    try:
        code, told = do(options)
    except schema.BadResults as error:
        print(printable(str(error)), file=sys.stderr)
        return BAD_INPUT
    try:
        print(told, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; Python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog,
        description="Reports from finished runs; no model is loaded.",
        epilog="Exit codes: 0 done; 1 (diff only) something that gates is answered worse; 2 bad input.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("render", help="render a results.json as one HTML file")
    one.add_argument("results", type=Path, metavar="RESULTS", help="a results.json")
    one.add_argument("-o", "--output", type=Path, help="where to write; default: beside the input, ending in .html")
    one.set_defaults(do=_render)

    one = commands.add_parser("schema", help="print the JSON Schema of results.json")
    one.set_defaults(do=_schema)

    one = commands.add_parser("diff", help="what moved between two runs; exits 1 if something that gates got worse")
    one.add_argument("old", type=Path, metavar="OLD", help="the results.json of the earlier run")
    one.add_argument("new", type=Path, metavar="NEW", help="the results.json of the later run")
    one.add_argument("-o", "--output", type=Path, help="where to write; default: diff.html beside NEW")
    one.set_defaults(do=_diff)

    one = commands.add_parser("trend", help="the history of all runs below a folder")
    one.add_argument("folder", type=Path, metavar="DIR", help="a folder with results.json files in it or below")
    one.add_argument("-o", "--output", type=Path, help="where to write; default: trend.html in DIR")
    one.set_defaults(do=_trend)
    return parser


def _render(options: argparse.Namespace) -> tuple[int, str]:
    results = schema.load(options.results)
    output = options.output or options.results.with_suffix(".html")
    _write(html.render(results), output)
    return 0, _lines(wording.verdict_sentence(results), str(output))


def _schema(options: argparse.Namespace) -> tuple[int, str]:
    return 0, schema.json_schema_text().rstrip("\n")


def _diff(options: argparse.Namespace) -> tuple[int, str]:
    found = diff.diff(schema.load(options.old), schema.load(options.new))
    output = options.output or options.new.with_name("diff.html")
    _write(diff_shown.render(found), output)
    return WORSE if found.worse else 0, f"{diff_shown.text(found)}\n{_lines(str(output))}"


def _trend(options: argparse.Namespace) -> tuple[int, str]:
    found = trend.trend(options.folder)
    output = options.output or options.folder / "trend.html"
    _write(trend_shown.render(found), output)
    return 0, f"{trend_shown.text(found)}\n{_lines(str(output))}"


def _lines(*lines: str) -> str:
    return "\n".join(map(printable, lines))


def _write(text: str, output: Path) -> None:
    try:
        schema.write_atomically(text, output)
    except OSError as error:
        raise schema.BadResults(f"cannot write {str(output)!r}: {error.strerror or error}") from None
