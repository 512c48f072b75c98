"""`python -m camcore.explain IMAGE... --model SPEC`: the same as `camcore explain`."""

import sys

from camcore.command import main

if __name__ == "__main__":
    sys.exit(main(["explain", *sys.argv[1:]]))
