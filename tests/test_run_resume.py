"""A run that was killed goes on where it stopped, and ends as if nothing had happened."""

import json
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from reports import schema
from tests.running import ROOT, Run, command, difference, environment, in_the_way, journalled, overlay, run

pytestmark = pytest.mark.slow

# As many journal lines as there can be; of audits with a premise and without, which takes long enough.
MODEL = ("--model", "control:clean")
ONE_BY_ONE = (*MODEL, "--audit-batch-size", "1", "--audit-profile", "smoke", "-k", "test_deletion.py or test_sanity.py")
NOT_ALL_ASKED = 6
PATIENCE = 600  # seconds for the first rows, on a machine that does much else


def stopped(report: Path, *how: signal.Signals, after: int) -> Run:
    """A run that was sent signals, one upon the other, as soon as its journal held that many rows."""
    process = subprocess.Popen(
        command(report, *ONE_BY_ONE),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # whoever starts the tests in the background of a shell hands down a SIGINT that is ignored
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + PATIENCE
    try:
        while sum(line["type"] == "row" for line in journalled(report)) < after:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no rows were journalled"
            time.sleep(0.005)
        for one in how:
            process.send_signal(one)
            time.sleep(0.3)  # Python may make one of two that come at once
        output = process.communicate(timeout=PATIENCE)[0]
    finally:
        process.kill()
    return Run(code=process.returncode, output=output, report=report)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("whole"), *ONE_BY_ONE)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def left_behind(report: Path) -> bytes:
    """The journal of a run that was killed while it wrote its last line."""
    killed = stopped(report, signal.SIGKILL, after=8)
    assert killed.code == -signal.SIGKILL
    assert not (report / "results.json").exists()
    journal = report / "results.jsonl"
    whole_lines = journal.read_bytes().rpartition(b"\n")[0]
    journal.write_bytes(whole_lines[:-15])
    return journal.read_bytes()


@pytest.fixture(scope="module")
def resumed(report: Path, left_behind: bytes) -> Run:
    return run(report, *ONE_BY_ONE, "--audit-resume")


def test_a_resumed_run_ends_like_one_that_was_never_killed(whole: Run, resumed: Run) -> None:
    assert whole.code == resumed.code == NOT_ALL_ASKED, resumed.output
    assert set(resumed.verdicts.values()) == {"PASS"}
    assert difference(whole.results, resumed.results, tolerance=0) == ""


def test_what_was_measured_before_the_kill_is_not_measured_again(whole: Run, resumed: Run, left_behind: bytes) -> None:
    journal = (resumed.report / "results.jsonl").read_bytes()

    assert journal.startswith(left_behind + b"\n")
    assert len(resumed.rows) == len(set(resumed.rows))
    assert sorted(resumed.rows) == sorted(whole.rows)


def test_a_line_that_was_cut_short_is_left_where_it_is_and_not_read(resumed: Run, left_behind: bytes) -> None:
    half = left_behind.rpartition(b"\n")[2].decode()
    lines = (resumed.report / "results.jsonl").read_text(encoding="utf-8").splitlines()

    with pytest.raises(json.JSONDecodeError):
        json.loads(half)
    assert half in lines


def test_another_margin_judges_again_without_measuring_again(resumed: Run, tmp_path: Path) -> None:
    policy = overlay(tmp_path, '[claims."deletion/beats_random"]\nmargin = 0.01\n')
    copy = shutil.copytree(resumed.report, tmp_path / "copy")

    judged = run(copy, *ONE_BY_ONE, "--audit-resume", "--audit-policy", policy)
    before, after = resumed.results["claims"][0], judged.results["claims"][0]

    assert judged.code == NOT_ALL_ASKED, judged.output
    assert judged.rows == resumed.rows
    assert (before["margin"], after["margin"]) == (0.05, 0.01)
    assert before["values"] == after["values"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """By a CI service that is told to stop the job, and by somebody who does not want to wait."""
    return stopped(tmp_path_factory.mktemp("interrupted"), signal.SIGTERM, signal.SIGINT, after=24)


def test_an_interrupted_run_says_so_and_shows_what_there_is(interrupted: Run) -> None:
    found = schema.load(interrupted.report / "results.json")
    page = (interrupted.report / "report.html").read_text(encoding="utf-8")
    cut_short = [claim for claim in found.claims if claim.verdict != "PASS"]  # none, if the signal came between two

    assert interrupted.code == found.exit_code == pytest.ExitCode.INTERRUPTED, interrupted.output
    assert found.run.interrupted
    assert found.verdict == "INCONCLUSIVE"
    assert all(claim.verdict == "INCONCLUSIVE" for claim in cut_short)
    assert all(claim.reason.startswith("interrupted") for claim in cut_short)
    assert max(len(claim.values) for claim in found.claims) >= 16
    assert found.not_tested
    assert "<h1>Incomplete, the run was interrupted: clean is INCONCLUSIVE" in page
    assert "Incomplete, the run was interrupted" in interrupted.output


def test_an_interrupted_run_goes_on_to_the_same_verdicts(whole: Run, interrupted: Run) -> None:
    obstacle, extra = in_the_way(interrupted.report.parent, interrupted.report / "summary.md")

    resumed = run(interrupted.report, *ONE_BY_ONE, "--audit-resume", *obstacle, extra=extra)

    assert resumed.code == NOT_ALL_ASKED, resumed.output
    assert difference(whole.results, resumed.results, tolerance=0) == ""
    assert len(resumed.rows) == len(set(resumed.rows))
    (line,) = (line for line in resumed.output.splitlines() if "cannot write the report" in line)
    assert line.startswith(f"cannot write the report to '{resumed.report}' (Is a directory); make room")
    assert "Traceback" not in resumed.output
