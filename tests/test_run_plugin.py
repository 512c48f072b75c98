"""The example plugin of docs/, copied out of this tree: what it adds is asked, judged and shown like the rest."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from tests.running import ROOT, Run, run

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "docs" / "example_plugin" / "brightness_audit"
LISTENER = """
import json, os
import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_audit_claim(claim):
    with open(os.environ["TOLD"], "a", encoding="utf-8") as file:
        file.write(json.dumps(claim) + "\\n")
"""
ENTRY_POINTS = "[camcore_audits]\nby_entry_point = brightness_audit\nbroken = no_such_module\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(EXAMPLE, made / "brightness_audit", ignore=shutil.ignore_patterns("__pycache__"))
    (made / "listener.py").write_text(LISTENER, encoding="utf-8")
    return made


def path(*folders: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def audited(folder: Path) -> Run:
    models = [
        word for name in ("control:dimmer_steps", "control:dimmer_ignored", "gap:7") for word in ("--model", name)
    ]
    plugins = ("-p", "brightness_audit", "-p", "listener")
    chosen = ("-k", "test_brightness", "--audit-profile", "smoke")
    extra = path(folder) | {"TOLD": str(folder / "told.jsonl")}
    return run(folder / "report", *plugins, *models, *chosen, extra=extra)


def test_its_audit_fails_the_planted_defect_and_passes_the_clean_twin(audited: Run) -> None:
    assert audited.verdicts["dimmer_steps", "brightness/stays"] == "FAIL", audited.output
    assert audited.verdicts["dimmer_ignored", "brightness/stays"] == "PASS"
    assert audited.code == 1


def test_its_kind_of_models_is_loaded_by_its_prefix(audited: Run) -> None:
    (subject,) = [one for one in audited.results["subjects"] if one["spec"] == "gap:7"]

    assert (subject["weights"], subject["target_layer"]) == ("drawn from seed 7", "features.1")
    assert ("7", "brightness/stays") in audited.verdicts


def test_what_it_adds_is_not_hidden(audited: Run) -> None:
    assert "plugin: brightness_audit 1.0; audits brightness; controls dimmer_steps, dimmer_ignored" in audited.output
    assert audited.results["run"]["versions"]["plugin brightness_audit"] == "1.0"
    assert audited.results["run"]["family"]["claims"] == 3 * 9  # of each model one more than without it
    page = (audited.report / "report.html").read_text(encoding="utf-8")
    assert "every value of the picture is raised by a twentieth" in page
    assert "A model that does has learned the light" in page


def test_its_claim_is_repeated_by_the_line_that_says_so(audited: Run) -> None:
    claim = next(one for one in audited.results["claims"] if one["subject"] == "dimmer_steps")
    words = shlex.split(claim["rerun"])

    assert claim["node_id"] == "audits/test_brightness.py::test_brightness_leaves_the_class[dimmer_steps-model]"
    assert words[:1] == ["pytest"]
    assert words[words.index("-p") + 1] == "brightness_audit"
    assert words[-3:] == ["audits", "-k", "test_brightness_leaves_the_class[dimmer_steps-model]"]


def test_a_plugin_is_told_each_finished_claim(audited: Run, folder: Path) -> None:
    told = [json.loads(line) for line in (folder / "told.jsonl").read_text(encoding="utf-8").splitlines()]

    assert [(one["subject"], one["id"], one["verdict"], one["values"]) for one in told] == [
        (one["subject"], one["id"], one["verdict"], one["values"]) for one in audited.results["claims"]
    ]


def test_an_installed_plugin_is_loaded_unless_it_is_refused(folder: Path) -> None:
    installed = folder / "site"
    info = installed / "brightness_audit-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness-audit\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    only = ("--collect-only", "-q", "-k", "test_brightness")

    broken = run(folder / "broken", *only, extra=path(folder, installed))
    found = run(folder / "found", "-p", "no:broken", *only, extra=path(folder, installed))

    assert broken.code == 4
    assert "the plugin 'broken' cannot be loaded" in broken.output
    assert "Traceback" not in broken.output
    assert "audits/test_brightness.py::test_brightness_leaves_the_class[clean-model]" in found.output
