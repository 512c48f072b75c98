"""`python -m camcore COMMAND ...`: the same as `camcore COMMAND ...`."""

import sys

from camcore.command import main

if __name__ == "__main__":
    sys.exit(main())
