"""What a model or a file is called can do no harm; and what is only listed is not loaded."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema

from tests.running import ROOT, Run, environment, factories, photographs, run
from tests.test_reports_sarif import official

pytestmark = pytest.mark.slow

NAMES = ('quote".png', "it's.png", "two\nlines.png", "re\rturn.png", "red\x1b[31m.png", "<img src=x onerror=y>.png")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("hostile")
    names = [f"{label}/{index} {name}" for label in ("0", "1") for index, name in enumerate(NAMES * 2)]
    photos = photographs(folder / "photos", names)
    (photos / "1" / "broken\n\x1b[31m<b>.png").write_bytes(b"\x89PNG")
    pages = ("--html", folder / "page.html", "--self-contained-html", "--junitxml", folder / "junit.xml")
    options = ("--data", photos, "--audit-profile", "smoke", *pages)
    return run(folder / "report", "--model", f"{factories(folder)}convolutional", *options)


def test_hostile_names_are_audited_like_any_other(hostile: Run) -> None:
    assert hostile.code in (1, 6), hostile.output
    assert "Traceback" not in hostile.output
    assert hostile.results["data"][0]["n"] == 24
    units = {unit for claim in hostile.results["claims"] for unit in claim["units"]}
    assert any("\n" in unit for unit in units)
    assert "ERROR" not in hostile.verdicts.values()


def test_hostile_names_cannot_write_on_the_terminal(hostile: Run) -> None:
    assert "broken" in hostile.output
    assert "\x1b[31m" not in hostile.output


def test_hostile_names_are_escaped_in_the_pages(hostile: Run) -> None:
    page = (hostile.report / "report.html").read_text(encoding="utf-8")
    cells = (hostile.report.parent / "page.html").read_text(encoding="utf-8")

    assert "&lt;script&gt;alert(" in page
    for text in (page, cells):
        assert "<script>alert(" not in text
        assert "<img src=x" not in text


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
    gates = {one["id"]: one["gates"] for one in hostile.results["claims"]}
    failed = {told(case)["audit_claim"] for case in suite if case.find("failure") is not None}

    assert suite.get("tests") == str(held["testcase"])
    assert suite.get("failures") == str(held["failure"])
    assert suite.get("skipped") == str(held["skipped"])
    assert failed == {one["id"] for one in hostile.results["claims"] if gates[one["id"]] and unshown(one)}


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
