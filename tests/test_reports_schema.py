import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from reports import schema
from tests.test_reports_example import beside, claim, curve, example, results, table

DOCS = Path(__file__).parents[1] / "docs"


def test_results_survive_a_round_trip(tmp_path):
    made = results()

    schema.dump(made, tmp_path / "results.json")

    assert schema.load(tmp_path / "results.json") == made
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == json.loads(json.dumps(example()))


def test_results_of_1_0_had_no_waivers_and_are_still_read(tmp_path):
    old = example() | {"schema_version": "1.0", "claims": [without_waiver(one) for one in example()["claims"]]}
    (tmp_path / "results.json").write_text(json.dumps(old), encoding="utf-8")

    assert not any(one.waived for one in schema.load(tmp_path / "results.json").claims)


def without_waiver(one):
    return {key: value for key, value in one.items() if key != "waiver"}


def test_published_schema_is_the_one_of_the_models():
    published = (DOCS / "results.schema.json").read_text(encoding="utf-8")

    assert published == schema.json_schema_text(), "run: camcore report schema > docs/results.schema.json"


def test_schema_closes_every_object():
    closed = [schema.json_schema(), *schema.json_schema()["$defs"].values()]

    assert all(part["additionalProperties"] is False for part in closed if part["type"] == "object")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file: Invalid JSON"),
        (b'{"schema_version": "1.0"', "the file: Invalid JSON"),
        (b"\xff\xfe", "the file: Invalid JSON"),
        (b"[1, 2]", "the file: Input should be an object"),
        (json.dumps(example() | {"schema_version": "2.0"}).encode(), "schema_version: Input should be '1.0', '1.1' or"),
        (json.dumps(example() | {"extra": 1}).encode(), "extra: Extra inputs are not permitted"),
        (
            json.dumps(example(claims=[claim(margin="0.05")])).encode(),
            "claims.0.margin: Input should be a valid number",
        ),
        (
            json.dumps(example(claims=[claim(margin=float("nan"))])).encode(),
            "claims.0.margin: Input should be a finite",
        ),
    ],
)
def test_load_says_in_one_line_what_is_broken(tmp_path, content, complaint):
    (tmp_path / "broken.json").write_bytes(content)

    with pytest.raises(schema.BadResults) as refusal:
        schema.load(tmp_path / "broken.json")

    assert complaint in str(refusal.value)
    assert "broken.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400 + len(str(tmp_path))


def test_load_names_a_file_that_is_not_there(tmp_path):
    with pytest.raises(schema.BadResults, match=r"cannot read .*absent\.json.*No such file"):
        schema.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"values": [0.1, 0.2], "units": ["a"]}, "1 units for 2 values"),
        ({"estimate": claim()["estimate"] | {"low": 1.0}}, "low <= high"),
        ({"evidence": [curve() | {"series": {"short": [0.1]}}]}, "got 1 for 3"),
        ({"evidence": [table() | {"rows": [["gradcam"]]}]}, "2 cells, got 1"),
        ({"evidence": [{"type": "video"}]}, "'video'"),
        ({"verdict": "WARN"}, "'PASS'"),
    ],
)
def test_claims_that_contradict_themselves_are_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        results([claim(**changes)])


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE", "ERROR"])
def test_a_pass_over_a_gating_claim_that_was_not_shown_is_refused(verdict):
    with pytest.raises(ValidationError, match="every gating claim to hold"):
        results([claim(verdict=verdict)], verdict="PASS", exit_code=0)


def test_exit_code_0_without_a_pass_is_refused():
    with pytest.raises(ValidationError, match="exit code 0"):
        results([claim()], verdict="INCONCLUSIVE", exit_code=0)


def gating(verdict, **changes):
    return claim(1, verdict=verdict, severity="gate", gates=True, **changes)


WAIVER = {"holds": True, "said": "waived", "bound": 0.0, "reason": "so", "owner": "me", "expires": "2030-01-01"}


@pytest.mark.parametrize(
    "claims",
    [
        [],
        [claim(1, severity="warn", gates=False), claim(0, severity="info", gates=False)],
        [gating("NOT_APPLICABLE"), claim(0, severity="warn", gates=False)],
        [gating("PASS"), gating("NOT_APPLICABLE", subject="other")],
    ],
    ids=["nothing", "nothing gates", "nothing applies", "nothing applies to one model"],
)
def test_a_pass_without_a_gating_claim_that_holds_is_refused(claims):
    with pytest.raises(ValidationError, match="needs a gating claim that holds"):
        results(claims, verdict="PASS", exit_code=0)


@pytest.mark.parametrize(
    "one", [gating("PASS", baseline=beside("FAIL")), gating("NOT_APPLICABLE", baseline=beside("INCONCLUSIVE"))]
)
def test_a_pass_over_a_gating_claim_that_does_not_hold_beside_its_baseline_is_refused(one):
    with pytest.raises(ValidationError, match="every gating claim to hold"):
        results([claim(0), one], verdict="PASS", exit_code=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"exit_code": 1},
        {"claims": [gating("FAIL", waiver=WAIVER)], "exit_code": 0},
        {"claims": [gating("PASS"), gating("NOT_APPLICABLE")], "exit_code": 0},
        {"claims": [gating("PASS"), gating("PASS", subject="other"), claim(4, subject="third")], "exit_code": 0},
        {"claims": [gating("INCONCLUSIVE")], "verdict": "INCONCLUSIVE", "exit_code": 1},
        {"claims": [gating("PASS")], "verdict": "INCONCLUSIVE", "exit_code": 2},
        {"claims": [], "verdict": "INCONCLUSIVE", "exit_code": 6},
    ],
    ids=["another test failed", "waived", "not applicable", "models", "inconclusive_exit", "interrupted", "empty"],
)
def test_what_the_gate_can_say_is_read(changes):
    made = results(**{"claims": [gating("PASS")], "verdict": "PASS"} | changes)

    assert made.exit_code == changes["exit_code"]


def test_a_claim_that_does_not_gate_may_fail_under_a_pass():
    made = results([claim(), claim(1, severity="warn", gates=False)], verdict="PASS", exit_code=0)

    assert made.claims[1].verdict == "FAIL"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "results.json"
    target.write_text("old", encoding="utf-8")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        schema.dump(results(), target)

    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]
