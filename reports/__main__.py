"""`python -m reports results.json [-o out.html]` renders a run again; `python -m reports --help` lists the rest."""

import sys
from collections.abc import Sequence

from reports import command

COMMANDS = ("render", "schema", "diff", "trend", "-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; a file stands for `render FILE`, and `--schema` for `schema`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--schema"]:
        words = ["schema"]
    elif words and words[0] not in COMMANDS:
        words = ["render", *words]
    return command.main(words, prog="python -m reports")


if __name__ == "__main__":
    sys.exit(main())
