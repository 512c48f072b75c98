"""Who watches the run: its exit code is the run's, and no other reaches whoever started it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.running import ROOT, run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="runs are watched on Linux only")

MODEL = """
import os

import torch
from torch import nn

from camcore.images import Geometry


class Ends(nn.Module):
    geometry, normalise, calls = Geometry(crop=(48, 48)), "inside", 0

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        self.calls += 1
        if self.calls > 20:
            os._exit(0)
        return self.head(self.features(images).mean((2, 3)))
"""


def started(code: str) -> "subprocess.Popen[str]":
    lines = "import atexit, os, signal, sys, time\nfrom audits.watcher import split\ntell = split()\n" + code
    return subprocess.Popen(
        [sys.executable, "-c", lines],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("tell(0)", 0),
        ("tell(1); sys.exit(1)", 1),
        ("tell(0); sys.exit(5)", 5),  # pytest gave 0, and something failed after it
        ("atexit.register(os._exit, 0); tell(6); sys.exit(6)", 6),
        ("tell(None); sys.exit(4)", 4),
        ("atexit.register(os._exit, 0); tell(None); sys.exit(4)", 6),  # nothing began, and nothing was shown
    ],
)
def test_the_exit_code_is_that_of_the_run(code: str, ends: int) -> None:
    process = started(code)
    _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (ends, "")


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os._exit(0)", "ended with exit code 0"),
        ("sys.exit(0)", "ended with exit code 0"),
        ("os._exit(1)", "ended with exit code 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
    ],
)
def test_an_end_that_nobody_told_of_does_not_pass(code: str, how: str) -> None:
    process = started(code)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 6
    assert said.strip().startswith(f"ERROR: the process that runs the model {how} in the middle of the run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_run(number: signal.Signals) -> None:
    process = started(
        f"signal.signal({int(number)}, lambda *_: (tell(2), os._exit(2)))\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(6):  # once, on a busy machine, the first was not seen to arrive; whoever stops a run tries again
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
            break

    assert process.returncode == 2


def test_the_run_does_not_outlive_who_waits_for_it() -> None:
    process = started("print('ready', flush=True)\ntime.sleep(20)\nprint('outlived', flush=True)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()

    assert process.stdout.read() == ""  # ends when the last that could write to it has gone
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_model_that_ends_the_process_with_0_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODEL, encoding="utf-8")
    options = ("--model", f"py:{tmp_path / 'models.py'}:Ends", "--data", "scenes", "--audit-profile", "smoke")

    found = run(tmp_path / "report", *options, "-k", "test_wall.py")

    assert found.code == 6, found.output
    assert "ended with exit code 0 in the middle of the run" in found.output
    assert not (found.report / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("spread", [(), ("-n", "1")])
def test_a_factory_that_breaks_and_leaves_with_0_does_not_pass(spread: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import atexit\nimport os\n\n\ndef build():\n    atexit.register(os._exit, 0)\n    raise RuntimeError('torn')\n"
    )
    (tmp_path / "models.py").write_text(code, encoding="utf-8")

    found = run(tmp_path / "report", "--model", f"py:{tmp_path / 'models.py'}:build", "--data", "scenes", *spread)

    assert found.code in (4, 6), found.output
    assert "raised RuntimeError: torn" in found.output


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_what_only_tells_something_ends_in_0(words: list[str], tmp_path: Path) -> None:
    assert run(tmp_path / "report", *words).code == 0


@pytest.mark.slow
def test_nor_does_it_under_the_other_command(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODEL, encoding="utf-8")
    options = ["--model", f"py:{tmp_path / 'models.py'}:Ends", "--data", "scenes", "--audit-batch-size", "8"]
    words = [sys.executable, "-m", "camcore", "audit", "audits/test_wall.py", *options, "--audit-report", "report"]
    found = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )

    assert found.returncode == 6, found.stdout + found.stderr
    assert "ended with exit code 0 in the middle of the run" in found.stderr
