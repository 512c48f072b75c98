"""`pytest audits` on the clean controls: the same answer whatever the batch size and the number of workers."""

import html
import shlex
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from audits import catalogue
from audits.options import CLEAN
from audits.policy import load_policy
from fixtures.controls import CONTROLS
from tests.running import Run, difference, overlay
from tests.running import run as run_audits

pytestmark = pytest.mark.slow

run = partial(run_audits, extra={"AUDIT_PROFILE": "smoke"})


SILENT = CONTROLS["clean"].silent_on
SHOWN = ("scenes", "binding scenes", "grounding scenes")  # to each of CLEAN
RANKED = ("faithfulness", "invariance")
# enough to compare two ways of measuring, not to pass: of these images, claims that are certain at once take half
FEW = """
min_images = 8

[profiles.smoke]
images = 16

[profiles.smoke.attacks]
sizes = [4, 8]
steps = 2
restarts = 1
queries = 10
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("whole") / "report", "--audit-batch-size", "32")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return "--audit-policy", overlay(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="module")
def sevens(few: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sevens")
    pages = ("--html", folder / "page.html", "--self-contained-html", "--junitxml", folder / "junit.xml")
    return run(folder / "report", "--audit-batch-size", "7", *few, *pages)


@pytest.fixture(scope="module")
def singles(few: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    without = ("-p", "no:html", "-p", "no:xdist")
    return run(tmp_path_factory.mktemp("singles"), "--audit-batch-size", "1", *few, *without)


@pytest.fixture(scope="module")
def two_workers(few: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("workers")
    pages = ("--html", folder / "page.html", "--self-contained-html", "--junitxml", folder / "junit.xml")
    return run(folder / "report", "--audit-batch-size", "7", "-n", "2", *few, *pages)


def test_the_clean_control_exits_0_and_says_where_the_report_is(whole: Run) -> None:
    assert whole.code == 0, whole.output
    assert f"report: {whole.report / 'report.html'}" in whole.output
    assert (whole.report / "report.html").stat().st_size > 10_000
    assert whole.results["exit_code"] == 0
    assert not_passed(whole) <= SILENT
    assert whole.results["not_tested"] == []


def not_passed(found: Run) -> set[str]:
    """Claims that do not pass on a model that they are about; to what scores no classes most do not apply."""
    of_classes = {
        name
        for name, question in catalogue.questions(load_policy(None, profile="smoke")).items()
        if question.needs == "classes"
    }
    return {
        name
        for (subject, name), verdict in found.verdicts.items()
        if verdict != "PASS" and (verdict != "NOT_APPLICABLE" or (subject == "clean" and name in of_classes))
    }


def test_the_header_says_what_is_audited_and_how(whole: Run) -> None:
    header = whole.output.partition("collected")[0]
    results = whole.results

    assert "profile smoke" in header
    assert "seed 0" in header
    assert f"device {results['run']['device']}" in header
    assert results["run"]["policy_sha256"][:12] in header
    assert [one["spec"] for one in results["subjects"]] == list(CLEAN)
    data = {one["spec"]: one["sha256"][:12] for one in results["data"]}
    for spec, subject, shown in zip(CLEAN, results["subjects"], SHOWN, strict=True):
        assert f"audited: {spec} (" in header
        assert subject["sha256"][:12] in header
        assert f"on {shown} (192 images, sha256 {data[shown]})" in header


def test_results_do_not_depend_on_the_batch_size(sevens: Run, singles: Run) -> None:
    assert sevens.code == singles.code
    assert difference(less_ranked(sevens), less_ranked(singles), tolerance=1e-5) == ""
    for one, other in zip(ranked(sevens), ranked(singles), strict=True):
        assert (one["id"], one["verdict"], one["units"]) == (other["id"], other["verdict"], other["units"])
        assert one["values"] == pytest.approx(other["values"], abs=5e-3)


def ranked(found: Run) -> list[dict[str, Any]]:
    """Claims about correlations of ranks: what ties (a patch without saliency) is set apart by the last bit or not."""
    return [claim for claim in found.results["claims"] if claim["audit"] in RANKED]


def less_ranked(found: Run) -> dict[str, Any]:
    return {**found.results, "claims": [claim for claim in found.results["claims"] if claim["audit"] not in RANKED]}


def test_results_do_not_depend_on_the_number_of_workers(sevens: Run, two_workers: Run) -> None:
    assert sevens.code == two_workers.code
    assert difference(sevens.results, two_workers.results, tolerance=0) == ""


def test_workers_measure_no_image_twice(two_workers: Run) -> None:
    assert len(list(two_workers.report.glob("results.gw*.jsonl"))) == 2
    assert len(two_workers.rows) == len(set(two_workers.rows))


def test_no_image_is_measured_that_no_claim_asked_for(sevens: Run, singles: Run) -> None:
    # the claims of an audit share their rows, but for those that are measured apart
    apart = ("wall/", "invariance/shift")
    share = {
        claim["id"]: claim["id" if claim["id"].startswith(apart) else "audit"] for claim in sevens.results["claims"]
    }
    asked = {
        (claim["subject"], share[claim["id"]], unit) for claim in sevens.results["claims"] for unit in claim["units"]
    }

    assert len(sevens.rows) == len(singles.rows) == len(asked)


@pytest.mark.parametrize("fixture", ["sevens", "two_workers"])
def test_pytest_html_has_the_columns_of_the_audits(fixture: str, request: pytest.FixtureRequest) -> None:
    found: Run = request.getfixturevalue(fixture)
    page = (found.report.parent / "page.html").read_text(encoding="utf-8")
    shown = html.unescape(html.unescape(page))

    assert 'data-column-type="verdict"' in shown
    assert 'class=\\"col-verdict\\"' in shown
    for claim in found.results["claims"]:
        assert claim["id"] in shown
        assert claim["reason"] in shown


@pytest.mark.parametrize("fixture", ["sevens", "two_workers"])
def test_junit_xml_carries_the_verdicts(fixture: str, request: pytest.FixtureRequest) -> None:
    found: Run = request.getfixturevalue(fixture)
    cases = ElementTree.parse(found.report.parent / "junit.xml").getroot().iter("testcase")
    properties = [{one.get("name"): one.get("value") for one in case.iter("property")} for case in cases]

    assert {(each["audit_claim"], each["audit_verdict"]) for each in properties} == {
        (claim["id"], claim["verdict"]) for claim in found.results["claims"]
    }


def test_runs_without_pytest_html_and_xdist(singles: Run) -> None:
    assert singles.results["claims"], singles.output


def test_the_rerun_line_repeats_one_claim(sevens: Run, tmp_path: Path) -> None:
    claim = next(one for one in sevens.results["claims"] if one["audit"] == "wall")
    pytest_, *arguments, node_id = shlex.split(claim["rerun"])

    found = run(tmp_path, *arguments, what=node_id)

    assert pytest_ == "pytest"
    assert found.code == 6, found.output  # the other claims are missing
    assert [one["id"] for one in found.results["claims"]] == [claim["id"]]
    # but for Holm's correction, which needs all p-values of the family
    own = [one for one in sevens.results["claims"] if one["subject"] == claim["subject"]]
    gates = sum(one["gates"] and one["verdict"] != "NOT_APPLICABLE" for one in own)
    alone = {**claim, "p_holm": min(1.0, gates * claim["p"])}
    assert difference(found.results["claims"], [alone], tolerance=1e-5) == ""
