"""A release in a CI service, case by case: what goes on and what stops it, in every file that somebody reads."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.running import ROOT, Run, environment, only_gate, overlay, run

pytestmark = pytest.mark.slow

MODELS = '''
import os
import signal
from dataclasses import replace

from torch import nn

from fixtures.subjects.spec import find_subject


class Cooler(nn.Module):
    """The same network, less sure: every map is the same, and deleting what it marks costs less."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return 0.25 * self.module(images)


class Killed(nn.Module):
    """The same network, until something ends a worker's process in the middle of an audit."""

    calls = 0

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        if "PYTEST_XDIST_WORKER" in os.environ and "convolution" in os.environ.get("PYTEST_CURRENT_TEST", ""):
            self.calls += 1
            if self.calls > 40:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.module(images)


def around(kind):
    subject = find_subject("control:clean")
    return replace(subject, module=kind(subject.module).eval(), target_layer=f"module.{subject.target_layer}")


def cooler():
    return around(Cooler)


def killed():
    with open(__file__ + ".loads", "a") as file:
        print(os.getpid(), file=file)
    return around(Killed)
'''
SCRIPT = ROOT / "tests" / "pipeline.sh"
# enough to tell a regression; measured on all of them, certain or not
GATES = "[profiles.smoke]\nimages = 128\n" + only_gate("deletion/beats_random")
ASKED = ("-k", "(beats_random and not inpainted) or test_binding.py")
WALL = ("-k", "leaks_through_the_wall and not toy")
WAIVED = """
[[waivers]]
claim = "wall/leakage[*]"
bound = 0.99
reason = "shown to nobody"
owner = "A. Name"
expires = {day}
"""


def released(folder: Path, *arguments: str | Path) -> Run:
    """What the pipeline made of a model."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", SCRIPT, folder, "--audit-batch-size", "8", *map(str, arguments)],
        cwd=ROOT,
        env={**environment(), "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,  # of a run that hangs
        check=False,
    )
    assert (folder / "released").exists() == (done.returncode == 0), done.stdout
    assert (folder / "output").read_text(encoding="utf-8") == f"exit_code={done.returncode}\n"
    return Run(code=done.returncode, output=done.stdout, report=folder / "report")


def policy(folder: Path, text: str) -> tuple[str, Path]:
    folder.mkdir(exist_ok=True)
    return "--audit-policy", overlay(folder, text)


def model(folder: Path, name: str) -> str:
    file = folder / "models.py"
    file.write_text(MODELS, encoding="utf-8")
    return f"py:{file}:{name}"


def cases(found: Run) -> dict[str, ElementTree.Element]:
    """JUnit's cases by the claim that they are about."""
    return {
        str(one.get("value")): case
        for case in ElementTree.parse(found.report.parent / "junit.xml").getroot().iter("testcase")
        for one in case.iter("property")
        if one.get("name") == "audit_claim"
    }


def rows(found: Run) -> list[dict[str, Any]]:
    """The rows of pytest-html's page, which its script shows."""
    page = (found.report.parent / "page.html").read_text(encoding="utf-8")
    blob = re.search(r'data-jsonblob="([^"]*)"', page)
    assert blob is not None
    return [row for test in json.loads(html.unescape(blob[1]))["tests"].values() for row in test]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Listed as failing are a claim that holds and one that there is not."""
    folder = tmp_path_factory.mktemp("clean")
    listed = folder / "xfails.txt"
    listed.write_text("deletion/beats_random[*]  # once\nwal/leakage  # misspelt\n", encoding="utf-8")
    options = ("--model", "control:clean", "--audit-full", "--audit-xfails-file", listed, "-m", "audit")
    return released(folder, *options, *policy(folder, GATES), *ASKED)


def test_a_clean_model_is_released(clean: Run) -> None:
    assert clean.code == clean.results["exit_code"] == 0, clean.output
    summary = (clean.report.parent / "step_summary.md").read_text(encoding="utf-8")
    assert "clean PASSES" in summary
    assert "\x1b" not in clean.output  # no terminal: no line of progress, no colours


def test_what_is_listed_as_failing_and_passes_or_is_not_there_is_told(clean: Run) -> None:
    assert "1 xpassed" in clean.output
    assert re.search(r"warning: .*xfails.txt: \S*test_deletion_beats_random\S* passes, though", clean.output)
    assert re.search(r"warning: .*xfails.txt: 'wal/leakage' matches no claim and no test of this run", clean.output)


def test_a_model_that_goes_by_a_shortcut_is_not_released_whether_that_is_known_or_not(tmp_path: Path) -> None:
    listed = tmp_path / "xfails.txt"
    listed.write_text("bias/pull  # known since May\n", encoding="utf-8")
    options = ("--model", "control:shortcut100", "--audit-xfails-file", listed, "-k", "pulls_no_picture")
    few = "[profiles.smoke]\nimages = 36\n"  # a third is searched, the rest has to show it

    found = released(tmp_path / "out", *options, *policy(tmp_path, few + only_gate("bias/pull")))

    assert found.code == 1, found.output
    assert found.verdicts["shortcut100", "bias/pull"] == "FAIL"
    assert re.search(r"\b1 xfailed", found.output)
    assert "warning" not in found.output
    assert "shortcut100 FAILS" in (tmp_path / "out" / "step_summary.md").read_text(encoding="utf-8")


def test_a_run_without_time_decides_nothing(tmp_path: Path) -> None:
    starved = policy(tmp_path, "[profiles.smoke]\nseconds = 0.001\n" + only_gate("wall/leakage"))

    found = released(tmp_path / "out", "--model", "control:clean", *starved, *WALL)

    assert found.code == 6, found.output
    assert set(found.verdicts.values()) == {"INCONCLUSIVE"}
    assert "out of time before anything was measured" in found.results["claims"][0]["reason"]


def test_no_worse_than_the_last_release_is_not_enough_where_an_audit_is_required(clean: Run, tmp_path: Path) -> None:
    asked = policy(tmp_path, 'required = ["binding"]\n' + GATES)
    then = ("--audit-baseline", clean.report / "results.json")

    found = released(tmp_path / "out", "--model", "control:clean", *then, *asked, *ASKED)

    assert found.code == 6, found.output
    assert found.results["not_tested"][0] == "binding, which the policy requires: no verdict"
    junit = ElementTree.parse(found.report.parent / "junit.xml").getroot()
    (missing,) = (case for case in junit.iter("testcase") if case.get("name") == "not_tested")
    error = missing.find("error")
    assert error is not None
    assert "binding, which the policy requires: no verdict" in str(error.text)
    assert {(one.get("name"), one.get("value")) for one in junit.iterfind("testsuite/properties/property")} == {
        ("audit_verdict", "INCONCLUSIVE"),
        ("audit_exit_code", "6"),
    }
    (kept,) = (one for one in found.results["claims"] if one["id"].startswith("deletion/beats_random"))
    assert (kept["verdict"], kept["baseline"]["verdict"], kept["baseline"]["estimate"]["point"]) == ("PASS", "PASS", 0)
    assert kept["baseline"]["estimate"]["n"] == kept["estimate"]["n"] == 128  # certain or not


def test_a_regression_that_every_claim_survives_is_caught(clean: Run, tmp_path: Path) -> None:
    options = ("--model", model(tmp_path, "cooler"), "--data", "scenes")
    then = ("--audit-baseline", clean.report / "results.json")

    found = released(tmp_path / "out", *options, *then, *policy(tmp_path, GATES), *ASKED)

    assert found.code == 1, found.output
    (claim,) = (one for one in found.results["claims"] if one["id"].startswith("deletion/beats_random"))
    assert (claim["verdict"], claim["baseline"]["verdict"]) == ("PASS", "FAIL")
    assert "worse than the baseline" in found.output
    assert "models.py-cooler FAILS: 1 of 1 gating claim fails." in found.output


def test_a_waiver_lets_a_release_go_on_until_its_day(tmp_path: Path) -> None:
    expired = policy(tmp_path, WAIVED.format(day="2026-01-01") + only_gate("wall/leakage"))
    found = released(tmp_path / "out", "--model", "control:edge_map", *expired, *WALL)

    assert found.code == 1, found.output
    assert found.verdicts["edge_map", "wall/leakage"] == "FAIL"
    assert not found.results["claims"][0]["waiver"]["holds"]
    assert "until 2026-01-01 by A. Name: shown to nobody" in found.output

    holding = policy(tmp_path / "later", WAIVED.format(day="2999-12-31") + only_gate("wall/leakage"))
    again = run(tmp_path / "again", "--audit-rejudge", found.report / "results.json", *holding)

    assert again.code == 0, again.output
    assert again.results["claims"][0]["waiver"]["holds"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("killed")
    listed = folder / "xfails.txt"
    listed.write_text("# as above\nwal/leakage\nwall/input[*]\n", encoding="utf-8")
    options = ("--model", model(folder, "killed"), "--data", "scenes", "-n", "1", "--audit-xfails-file", listed)
    severity = '[claims."wall/convolution"]\nseverity = "gate"\n'
    gates = policy(folder, severity + only_gate("wall/leakage", "wall/convolution"))
    return released(folder, *options, *gates, "-k", "test_wall.py")


def test_a_worker_that_is_killed_is_an_error_to_the_gate(killed: Run) -> None:
    assert killed.code == killed.results["exit_code"] == 6, killed.output
    assert {name: verdict for (_, name), verdict in killed.verdicts.items()} == {
        "wall/leakage": "PASS",  # before
        "wall/convolution": "ERROR",
        "wall/input": "PASS",  # by the worker that replaced it
    }
    assert "crashed while running" in killed.output
    assert "1 error" in killed.output
    told = re.findall(r"warning: \S+xfails.txt: (\S+) (?:matches no|passes)", killed.output)
    assert told == ["'wal/leakage'", next(one["node_id"] for one in killed.results["claims"] if "input" in one["id"])]
    assert "ERROR    wall/convolution[hirescam]" in killed.output


def test_a_worker_that_is_killed_is_an_error_in_every_file(killed: Run) -> None:
    claim = "wall/convolution[hirescam]"
    case = cases(killed)[claim]
    properties = {one.get("name"): one.get("value") for one in case.iter("property")}
    (row,) = (row for row in rows(killed) if row["result"] == "Error")
    report = (killed.report / "report.html").read_text(encoding="utf-8")
    summary = (killed.report.parent / "step_summary.md").read_text(encoding="utf-8")
    (reason,) = (one["reason"] for one in killed.results["claims"] if one["id"] == claim)

    assert case.find("error") is not None
    assert properties["audit_verdict"] == "ERROR"
    assert claim in " ".join(row["resultsTableRow"])
    assert len(rows(killed)) == len(cases(killed)) == 3
    assert "the process was killed" in reason
    for text in (report, summary, properties["audit_reason"]):
        assert reason in str(text)


def test_every_process_loads_the_model_once(killed: Run) -> None:
    loads = (killed.report.parent / "models.py.loads").read_text(encoding="utf-8").split()

    assert len(loads) == len(set(loads)) == 3  # the main process, the worker, and the one that replaced it


def test_what_a_killed_worker_had_measured_is_kept(killed: Run) -> None:
    (key,) = {key for key, _ in killed.rows if "wall/convolution" in key}

    assert 0 < sum(one == key for one, _ in killed.rows) < 192
    assert len(killed.rows) == len(set(killed.rows))
    assert (killed.report / "results.gw1.jsonl").exists()  # of the worker that replaced it
