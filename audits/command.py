"""`camcore audit ...`: pytest on the audits, from any folder, wherever they lie.

The same options, verdicts and exit codes as `pytest audits ...` in the checkout. pytest is told to read the suite's own
settings and no others: neither an ini file nor a conftest.py of the user's folder has a say, and nothing is written
beside the suite, which may lie in site-packages.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from audits import listing, options, watcher
from audits.policy import load_policy
from audits.project import find_project
from camcore.command import Parser
from camcore.suite import suite

PROGRAM = "camcore audit"
# camcore imports jaxtyping, which is a plugin of pytest's too, before pytest does; it asserts nothing of ours
LATE = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"
UNCACHED = "ignore::pytest.PytestCacheWarning"  # a folder that cannot be written costs --lf, and no verdict
ONE_AUDIT = re.compile(r"audits/test_\w+\.py(::.*)?", re.DOTALL)  # as reports and reruns name it


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code.

    Raises:
        BadInput: What `--list` is asked about cannot be used. In a run pytest tells it.
    """
    words = list(argv)
    if "-h" in words or "--help" in words:
        sys.stdout.write(parser().format_help())
        return 0
    if "--list" in words:
        sys.stdout.write(listed(words))
        return 0
    # for pytest's rewritten modules, here and in the processes of -n
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    tell = watcher.split()
    code = int(pytest.main([*settings_of_pytest(suite()), *audits_in(words, suite())]))
    tell(code)
    return code


def settings_of_pytest(folder: Path) -> list[str]:
    """What pytest is told before what the user says: the ini file, above whose folder no conftest.py counts.

    And what failed last, for `--lf`, is kept where the command is run, as it would be of tests that lie there.
    """
    cache = f"cache_dir={Path.cwd() / '.pytest_cache'}"
    return ["-c", str(folder / "pyproject.toml"), "-o", cache, "-W", LATE, "-W", UNCACHED]


def audits_in(words: Sequence[str], folder: Path) -> list[str]:
    """The words with the audits that they name where they lie; with all of them if they name none."""
    placed = [str(folder / word) if ONE_AUDIT.fullmatch(word) else word for word in words]
    return placed if placed != list(words) else [str(folder / "audits"), *words]


def as_typed(args: Sequence[str], folder: Path) -> str:
    """The command line of a person, from pytest's arguments: less what `main` added to them."""
    ours = settings_of_pytest(folder)
    if list(args[: len(ours)]) != ours:
        return " ".join(["pytest", *map(options.quoted, args)])
    words = [word.removeprefix(f"{folder}{os.sep}") for word in args[len(ours) :]]
    return " ".join([PROGRAM, *map(options.quoted, words[1:] if words[:1] == ["audits"] else words)])


def program(inifile: str | None, folder: Path) -> str:
    """What an audit is asked again with: what this run was started with, of which workers know pytest's `-c` only."""
    return PROGRAM if inifile == str(folder / "pyproject.toml") else "pytest"


def parser() -> argparse.ArgumentParser:
    """The options of the audits, and what else there is to say of the command."""
    made = Parser(
        prog=PROGRAM,
        usage="camcore audit [--model SPEC] [options of the audits or of pytest] [audits/test_<name>.py ...]",
        description="Put the audits to a vision model. Ends in a table of verdicts, an exit code and a report.",
        epilog="Each option has an environment variable (--audit-seed: AUDIT_SEED), and a key in the [audit] table of "
        "a pyproject.toml (seed). Options of pytest pass through: -k NAME, -x, -n 2, --junitxml FILE. Exit codes: 0 "
        "every claim that gates passes; 1 one fails; 6 none fails, and one was not shown; 4 a bad option, model or "
        "policy.",
        allow_abbrev=False,
    )
    made.add_argument("--list", action="store_true", help="explain every audit under the policy in force, and leave")
    made.add_argument("--json", action="store_true", help="with --list: for machines")
    for option in options.OPTIONS:
        kind = "append" if option.many else "store"
        text = option.help.replace("%", "%%")
        if option.is_flag:
            made.add_argument(option.flag, dest=option.dest, action="store_true", default=None, help=text)
        else:
            made.add_argument(option.flag, dest=option.dest, action=kind, metavar=option.metavar, help=text)
    return made


def listed(words: Sequence[str]) -> str:
    """What `--list` prints.

    Raises:
        BadInput: An option or the policy cannot be used.
    """
    given = parser().parse_args(words)
    settings = options.read_settings(vars(given), os.environ, project=find_project(Path.cwd()))
    policy = load_policy(settings.policy, profile=settings.profile, under=settings.laid_under)
    return listing.as_json(policy) if given.json else listing.as_text(policy)
