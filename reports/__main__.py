"""`python -m reports results.json [-o out.html]` renders a run again; `--schema` prints the JSON Schema."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import html, schema, wording


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 when the input is no results.json or the output cannot be written.
    """
    parser = argparse.ArgumentParser(prog="python -m reports", description="Render a results.json as one HTML file.")
    parser.add_argument("results", nargs="?", type=Path, help="a results.json")
    parser.add_argument("-o", "--output", type=Path, help="where to write; default: beside the input, ending in .html")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of results.json instead")
    options = parser.parse_args(argv)
    if options.schema:
        sys.stdout.write(schema.json_schema_text())
        return 0
    if options.results is None:
        parser.error("expected a results.json, or --schema")
    output = options.output or options.results.with_suffix(".html")
    try:
        results = schema.load(options.results)
        html.write(results, output)
    except schema.BadResults as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot write {str(output)!r}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(wording.verdict_sentence(results))
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
