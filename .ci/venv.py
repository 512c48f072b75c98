"""Make .venv and install this checkout into it, with the extras that are named, unless that was done before.

    python .ci/venv.py test

All of tox's environments share one .venv, and each begins with this: pip takes 10 to 15 seconds to find that nothing is
missing. What was installed is written down beside it, with a hash of pyproject.toml; delete .venv to begin anew.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(root: Path, extras: list[str]) -> None:
    """Bring root/.venv to what root/pyproject.toml asks for."""
    folder = root / ".venv"
    if not (folder / "bin" / "pip").exists():
        venv.create(folder, with_pip=True)
    wanted = hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest()
    stamps = [folder / f"installed-{extra}" for extra in extras]
    if all(stamp.is_file() and stamp.read_text() == wanted for stamp in stamps):
        return
    python = folder / "bin" / "python"
    # pip compiles one file after another, a minute of torch and its company; compileall on all cores
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, "-e", f"{root}[{','.join(extras)}]"], check=True)
    # what does not compile is of another Python, in a package's own tests: 0 or 1 says nothing to us
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", folder / "lib"], check=False)
    for stamp in stamps:
        stamp.write_text(wanted)


if __name__ == "__main__":
    main(ROOT, sys.argv[1:])
