"""Files that torch refuses to load: what they would have run."""

import re
from pathlib import Path
from pickle import UnpicklingError


def code_in(file: Path, error: Exception) -> str:
    """What torch refused to run, in words; empty if the file is merely damaged."""
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return refused[1]
    if "TorchScript" in str(error):
        return "a TorchScript program"
    with file.open("rb") as opened:
        head = opened.read(2)
    # Newer protocols than torch's own fail at their first instruction, before torch comes to what they would call.
    is_pickle = head[:1] == b"\x80" and head[1:] <= b"\x05"
    return "a plain pickle" if is_pickle and isinstance(error, UnpicklingError) else ""
