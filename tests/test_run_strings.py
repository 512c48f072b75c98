"""What a model or a file is called can do no harm; and what is only listed is not loaded."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema

from tests.running import ROOT, Run, environment, factories, overlay, photographs, run
from tests.test_reports_sarif import official

pytestmark = pytest.mark.slow

NAMES = (
    *('quote".png', "it's.png", "two\nlines.png", "re\rturn.png", "red\x1b[31m.png", "<img src=x onerror=y>.png"),
    *("\u202egnp.txt.png", "x" * 200 + ".png", "{{ 7 * 7 }}.png", "|a`b](c).png"),
)
MODEL = """
from models import Convolutional

CLASSES = ["<script>alert(0)</script>", "\\x1b[31mred", "\\u202esdrawkcab", "two\\nlines", "nul\\0", "half \\ud800"]
CLASSES += ["x" * 10_000, "| a ` b | [c](javascript:d)", "]]><b>", "../../etc/passwd"]


class Hostile(Convolutional):
    classes = CLASSES


def hostile():
    return Hostile()
"""
POLICY = """
[[waivers]]
claim = "wall/leakage[*]"
bound = 0.99
reason = "<img src=x> \\u001b[31m \\u202e \\u0000 two\\nlines"
owner = "<script>alert(1)</script>"
expires = 2099-01-01
"""
UNSEEN = ("\x1b", "\u202e", "\0", "\ud800")  # as bytes: \x1b[31m colours a terminal, \u202e turns the line around


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("hostile")
    names = [f"{label}/{index} {name}" for label in ("0", "1") for index, name in enumerate((*NAMES, *NAMES[:2]))]
    photos = photographs(folder / "photos", names)
    (photos / "1" / "broken\n\x1b[31m<b>.png").write_bytes(b"\x89PNG")
    factories(folder)
    (folder / "hostile.py").write_text(MODEL, encoding="utf-8")
    pages = ("--html", folder / "page.html", "--self-contained-html", "--junitxml", folder / "junit.xml")
    options = ("--data", photos, "--audit-profile", "smoke", "--audit-policy", overlay(folder, POLICY), *pages)
    artefact = photographs(folder, ["<b>\x1b[31m\u202e.png"]) / "<b>\x1b[31m\u202e.png"
    return run(
        folder / "report",
        *("--model", f"py:{folder / 'hostile.py'}:hostile", "--audit-artefact", artefact, *options),
        extra={"PYTHONPATH": f"{folder}", "GITHUB_STEP_SUMMARY": str(folder / "step.md")},
    )


def written(found: Run, name: str) -> str:
    """A file of the run, of its report or beside it, which has to be UTF-8."""
    file = found.report / name
    return (file if file.exists() else found.report.parent / name).read_text(encoding="utf-8")


def test_hostile_names_are_audited_like_any_other(hostile: Run) -> None:
    assert hostile.code in (1, 6), hostile.output
    assert "Traceback" not in hostile.output
    assert hostile.results["data"][0]["n"] == 24
    units = {unit for claim in hostile.results["claims"] for unit in claim["units"]}
    assert any("\n" in unit for unit in units)
    assert any("\u202e" in unit for unit in units)
    assert "ERROR" not in hostile.verdicts.values()


def test_hostile_names_cannot_write_on_the_terminal(hostile: Run) -> None:
    assert "broken" in hostile.output
    assert not any(mark in hostile.output for mark in UNSEEN)


def test_hostile_names_are_kept_in_valid_utf_8(hostile: Run) -> None:
    names = hostile.results["data"][0]["classes"]

    assert names[:5] == ["<script>alert(0)</script>", "\x1b[31mred", "\u202esdrawkcab", "two\nlines", "nul\0"]
    assert names[5] == "half \\ud800"
    assert len(names[6]) == 10_000
    assert any(claim["waiver"] for claim in hostile.results["claims"])


def test_hostile_names_are_escaped_in_the_pages(hostile: Run) -> None:
    page, cells = written(hostile, "report.html"), written(hostile, "page.html")

    assert "&lt;script&gt;alert(" in page
    for text in (page, cells):
        assert "<script>alert(" not in text
        assert "<img src=x" not in text
        assert not any(mark in text for mark in UNSEEN)
        assert "7 * 7" in page or "49" not in page


def test_hostile_names_do_not_break_xml_markdown_or_yaml(hostile: Run) -> None:
    cases = ElementTree.fromstring(written(hostile, "junit.xml")).findall(".//testcase")
    assert len(cases) == len(hostile.results["claims"])
    for name in ("junit.xml", "summary.md", "step.md", "model-index.yaml"):
        text = written(hostile, name)
        assert not any(mark in text for mark in UNSEEN), name
        assert len(text.encode()) < 2**20  # as much as GitHub takes
    assert "model-index" in json.loads(written(hostile, "model-index.yaml"))


def test_hostile_names_are_no_names_of_files(hostile: Run) -> None:
    files = {file.name for file in hostile.report.rglob("*")}

    assert files == {
        *("results.json", "results.jsonl", "report.html", "summary.md", "model-index.yaml", "results.sarif")
    }
    ids = [claim["node_id"] for claim in hostile.results["claims"]]
    assert all(re.fullmatch(r"[\w./:\[\]-]+", node_id) for node_id in ids)


@pytest.fixture(scope="module")
def junit(hostile: Run) -> Path:
    return hostile.report.parent / "junit.xml"


def test_junit_xml_is_what_ci_services_read(junit: Path) -> None:
    schema = xmlschema.XMLSchema(Path(__file__).with_name("junit_xunit1.xsd"))
    whole = ElementTree.parse(junit)
    assert [error.reason for error in schema.iter_errors(whole)] == []

    whole.getroot()[0][0].set("verdict", "PASS")
    assert not schema.is_valid(whole), "the schema refuses nothing"


def test_junit_xml_counts_what_it_holds_and_what_gates_is_a_failure(junit: Path, hostile: Run) -> None:
    (suite,) = ElementTree.parse(junit).getroot()
    held = Counter(element.tag for element in suite.iter())
    keeps = {one["id"]: one["gates"] and not (one["waiver"] or {}).get("holds") for one in hostile.results["claims"]}
    failed = {told(case)["audit_claim"] for case in suite if case.find("failure") is not None}

    assert suite.get("tests") == str(held["testcase"])
    assert suite.get("failures") == str(held["failure"])
    assert suite.get("skipped") == str(held["skipped"])
    assert failed == {one["id"] for one in hostile.results["claims"] if keeps[one["id"]] and unshown(one)}


def test_junit_xml_carries_verdict_estimate_margin_and_reason(junit: Path, hostile: Run) -> None:
    claims = {one["id"]: one for one in hostile.results["claims"]}
    found = [told(case) for case in ElementTree.parse(junit).getroot().iter("testcase")]

    assert {each["audit_claim"] for each in found} == claims.keys()
    for each in found:
        claim = claims[each["audit_claim"]]
        point = each["audit_estimate"].partition(" ")[0]
        assert each["audit_verdict"] == claim["verdict"]
        assert each["audit_margin"] == f"{claim['margin']:g}"
        assert each["audit_reason"] == claim["reason"]
        assert point == ("" if claim["estimate"] is None else f"{claim['estimate']['point']:.3f}")


def told(case: ElementTree.Element) -> dict[str, str]:
    """The properties of a test."""
    return {one.attrib["name"]: one.attrib["value"] for one in case.iter("property")}


def unshown(claim: dict[str, object]) -> bool:
    """Whether a claim was judged, and did not pass."""
    return claim["verdict"] not in ("PASS", "NOT_APPLICABLE")


def test_hostile_names_are_inert_in_what_machines_read(hostile: Run, junit: Path) -> None:
    sarif = (hostile.report / "results.sarif").read_text(encoding="utf-8")

    assert "<script" not in junit.read_text(encoding="utf-8")
    assert "\x1b" not in junit.read_text(encoding="utf-8") + sarif
    assert len(json.loads(sarif)["runs"][0]["results"]) == sum(map(unshown, hostile.results["claims"]))
    assert official().is_valid(json.loads(sarif))


LISTING = """
import sys
import pytest

class Loaded:
    def pytest_unconfigure(self):
        loaded = [name for name in ("torchvision", "transformers", "matplotlib") if name in sys.modules]
        print("loaded:", loaded)

code = pytest.main(["audits", "--collect-only", "-q", *sys.argv[1:]], plugins=[Loaded()])
raise SystemExit(code)
"""


def test_listing_the_audits_loads_no_model_and_nothing_heavy(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n", encoding="utf-8")
    arguments = ["--model", "resnet50", "--model", f"py:{model}:build", "--audit-report", str(tmp_path / "report")]

    done = subprocess.run(
        [sys.executable, "-c", LISTING, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "audits/test_wall.py::test_nothing_leaks_through_the_wall[resnet50-hirescam]" in done.stdout
    assert "[model.py-build-hirescam]" in done.stdout
    assert "loaded: []" in done.stdout
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "report").exists()
