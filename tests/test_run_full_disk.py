"""A disk that is full in the middle of a run: two lines say so, and nothing that was measured before is lost."""

import resource
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.running import ROOT, Run, command, environment, run

pytestmark = pytest.mark.slow

FEW = ("--model", "control:clean", "--audit-profile", "smoke", "-k", "test_wall.py")
ROOM = 8_000  # bytes of any one file: some rows of the journal


def test_a_full_disk_passes_nothing_and_costs_nothing_that_was_measured(tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = subprocess.run(
        [*command(report, *FEW), "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (ROOM, ROOM)),
    )
    before = Run(code=done.returncode, output=done.stdout, report=report)
    kept, unfinished = before.rows, not (report / "results.json").exists()

    after = run(report, *FEW, "--audit-resume")

    assert before.code == 6, before.output
    assert "results.jsonl' (File too large); what was measured before is there: make room" in before.output
    assert f"cannot write the report to {str(report)!r} (File too large)" in before.output
    assert "Traceback" not in before.output
    assert unfinished
    assert kept
    assert after.code == 6, after.output  # not all that gates was asked
    assert set(kept) <= set(after.rows)
    assert len(after.rows) == len(set(after.rows))
    assert set(after.verdicts.values()) == {"PASS"}
