"""A finished run under another policy: from its values alone."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from audits import test_deletion as deletion
from audits import test_wall as wall
from audits.encode import claim_record
from audits.gate import assemble
from audits.judge_again import judge_again
from audits.policy import Policy, load_policy
from camcore.engine import Terms, judged_again
from camcore.errors import BadInput
from camcore.statistics import simultaneous_level
from reports.schema import Results
from tests.running import overlay, run
from tests.test_gate import plan, record

TODAY = date(2030, 1, 1)


def measured(folder: Path, *, margin_of: Policy, **changes: Any) -> dict[str, Any]:
    """A run of one model with one measured claim, as its results.json has it."""
    values = {f"img{index}": 0.25 + 0.001 * index for index in range(64)}
    claim = wall.LEAKAGE.claim("hirescam", margin_of.claims["wall/leakage"])
    made = plan(folder, "a")
    terms = Terms(level=0.99, budget=64, seed=0, batch_size=1)
    verdict = judged_again(claim, values, terms=terms)
    one = claim_record(verdict, subject="a", node_id="", version=wall.VERSION, rerun="") | {"waiver": None} | changes
    broken = record("a", "deletion/beats_random[hirescam]", "ERROR") | {"reason": "it broke", "waiver": None}
    broken["audit_version"] = deletion.VERSION
    made_of = assemble(made, [one, broken], command="", seconds=0.0, interrupted=False)
    return Results.model_validate(made_of).model_dump()


def claims(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    Results.model_validate(found)
    return {claim["id"]: claim for claim in found["claims"]}


def test_another_margin_another_verdict_from_the_same_values(tmp_path: Path) -> None:
    lenient = load_policy(overlay(tmp_path, '[claims."wall/leakage"]\nmargin = 0.9'), profile="pr")
    old = measured(tmp_path, margin_of=lenient)
    strict = load_policy(overlay(tmp_path, '[claims."wall/leakage"]\nmargin = 0.03\nseverity = "info"'), profile="pr")

    new = judge_again(old, strict, command="again", today=TODAY)
    one, other = (claims(found)["wall/leakage[hirescam]"] for found in (old, new))

    assert (one["verdict"], other["verdict"]) == ("PASS", "FAIL")
    assert one["values"] == other["values"]
    assert (other["margin"], other["severity"], other["gates"]) == (0.03, "info", False)
    assert new["run"]["policy_sha256"] == strict.sha256
    assert new["run"]["command"] == "again"


def test_what_came_into_doubt_stays_in_doubt(tmp_path: Path) -> None:
    """It has values and no estimate: no margin makes a verdict of them."""
    shipped = load_policy(None, profile="pr")
    in_doubt = {"verdict": "INCONCLUSIVE", "reason": "unreliable: so", "estimate": None, "p": None, "n_needed": None}
    old = measured(tmp_path, margin_of=shipped, **in_doubt)
    lenient = load_policy(overlay(tmp_path, '[claims."wall/leakage"]\nmargin = 0.9'), profile="pr")

    one = claims(judge_again(old, lenient, command="", today=TODAY))["wall/leakage[hirescam]"]
    assert len(one["values"]) == 64
    assert {key: one[key] for key in in_doubt} == in_doubt


def test_the_level_is_that_of_the_new_family(tmp_path: Path) -> None:
    shipped = load_policy(None, profile="pr")
    alone = overlay(
        tmp_path,
        "".join(f'[claims."{name}"]\nseverity = "warn"\n' for name in shipped.claims if name != "wall/leakage"),
    )

    new = judge_again(measured(tmp_path, margin_of=shipped), load_policy(alone, profile="pr"), command="", today=TODAY)

    # two methods, one claim that gates
    assert claims(new)["wall/leakage[hirescam]"]["estimate"]["level"] == simultaneous_level(shipped.level, 2)
    assert new["run"]["family"]["claims"] == 2


def test_what_was_not_measured_stays_as_it_was(tmp_path: Path) -> None:
    shipped = load_policy(None, profile="pr")

    old = measured(tmp_path, margin_of=shipped)
    new = judge_again(old, shipped, command="", today=TODAY)

    assert claims(new)["deletion/beats_random[hirescam]"]["verdict"] == "ERROR"
    assert claims(new)["deletion/beats_random[hirescam]"]["reason"] == "it broke"
    assert new["verdict"] == old["verdict"] == "FAIL"  # of the other claim


def test_what_broke_after_it_was_measured_stays_broken(tmp_path: Path) -> None:
    lenient = load_policy(overlay(tmp_path, '[claims."wall/leakage"]\nmargin = 0.9'), profile="pr")
    old = measured(tmp_path, margin_of=lenient, verdict="ERROR", reason="ValueError: no picture")
    new = judge_again(old, lenient, command="", today=TODAY)

    assert claims(new)["wall/leakage[hirescam]"]["verdict"] == "ERROR"
    assert claims(new)["wall/leakage[hirescam]"]["reason"] == "ValueError: no picture"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("worse = 0.05", "PASS"),
        ("worse = 0.02", "INCONCLUSIVE"),  # straddled
        ("worse = 0.05\nlevel = 0.999", "INCONCLUSIVE"),  # a wider interval would be needed
    ],
)
def test_what_is_worse_than_the_baseline_is_the_new_policy_s_to_say(tmp_path: Path, text: str, verdict: str) -> None:
    shipped = load_policy(None, profile="pr")
    alike = {"point": 0.0, "low": -0.03, "high": 0.03, "level": 0.9999, "n": 64, "interval": "drawn"}
    alike["level"] = simultaneous_level(shipped.level, shipped_family(tmp_path))
    beside = {"run": "then", "subject": "a", "verdict": "PASS", "said": "", "worse": 0.05, "estimate": alike}
    old = measured(tmp_path, margin_of=shipped, baseline=beside | {"mcnemar": None})
    new = claims(judge_again(old, load_policy(overlay(tmp_path, text), profile="pr"), command="", today=TODAY))

    assert new["wall/leakage[hirescam]"]["baseline"]["verdict"] == verdict


def shipped_family(folder: Path) -> int:
    """Of the model that `measured` tells of."""
    found = judge_again(
        measured(folder, margin_of=load_policy(None, profile="pr")),
        load_policy(None, profile="pr"),
        command="",
        today=TODAY,
    )
    return int(found["run"]["family"]["claims"])


def test_a_waiver_of_the_new_policy_counts(tmp_path: Path) -> None:
    text = (
        '[claims."wall/leakage"]\nmargin = 0.03\n[[waivers]]\nclaim = "wall/leakage[*]"\nbound = 0.9\n'
        'reason = "so"\nowner = "me"\nexpires = 2030-01-01\n'
    )
    policy = load_policy(overlay(tmp_path, text), profile="pr")
    old = measured(tmp_path, margin_of=load_policy(None, profile="pr"))

    found = claims(judge_again(old, policy, command="", today=TODAY))["wall/leakage[hirescam]"]
    late = claims(judge_again(old, policy, command="", today=date(2030, 1, 2)))["wall/leakage[hirescam]"]

    assert (found["verdict"], found["waiver"]["holds"]) == ("FAIL", True)
    assert (late["verdict"], late["waiver"]["holds"]) == ("FAIL", False)


@pytest.mark.parametrize("changes", [{"audit_version": "0"}, {"audit": "walls"}])
def test_values_of_another_version_of_the_audit_are_refused(changes: dict[str, str], tmp_path: Path) -> None:
    shipped = load_policy(None, profile="pr")
    old = measured(tmp_path, margin_of=shipped)
    old["claims"] = [{**claim, **changes} for claim in old["claims"]]

    with pytest.raises(BadInput, match="run the audit again"):
        judge_again(old, shipped, command="", today=TODAY)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("chance_draws = 500", "500 draws .* and this run had 2 draws"),
        ("attacks.restarts = 50", "restarts 50.*, and this run had .*restarts 1,"),
        ("attacks.area = 0.1", "area 0.1,.*, and this run had .*area 0.2,"),
    ],
)
def test_a_policy_that_asks_for_more_per_image_has_to_measure_it(tmp_path: Path, profile: str, words: str) -> None:
    shipped = load_policy(None, profile="pr")
    old = measured(tmp_path, margin_of=shipped)
    more = load_policy(overlay(tmp_path, f"[profiles.pr]\n{profile}\n"), profile="pr")

    with pytest.raises(BadInput, match=f"(?s){words}.*run the audits again"):
        judge_again(old, more, command="", today=TODAY)

    images = load_policy(overlay(tmp_path, "[profiles.pr]\nimages = 4000\n"), profile="pr")
    assert judge_again(old, images, command="", today=TODAY)["claims"]  # an interval holds however many were planned


def test_a_run_before_1_2_which_did_not_say_what_was_done_to_each_image_is_refused(tmp_path: Path) -> None:
    shipped = load_policy(None, profile="pr")
    old = measured(tmp_path, margin_of=shipped)
    old["run"]["per_image"] = None

    with pytest.raises(BadInput, match="did not record; run the audits again"):
        judge_again(old, shipped, command="", today=TODAY)


@pytest.mark.slow
def test_the_same_policy_gives_the_same_run(tmp_path: Path) -> None:
    options = ("--audit-profile", "smoke", "-k", "test_wall.py", "-p", "no:html", "--model", "control:edge_map")
    first = run(tmp_path / "first", *options)

    asked = {"GITHUB_STEP_SUMMARY": str(tmp_path / "step.md")}
    again = run(tmp_path / "again", "--audit-rejudge", tmp_path / "first" / "results.json", extra=asked)
    refused = run(tmp_path / "again", "--audit-rejudge", tmp_path / "first" / "results.json")

    assert again.code == first.code == 1
    assert again.results["claims"] == first.results["claims"]
    assert again.results["verdict"] == first.results["verdict"]
    assert (tmp_path / "again" / "report.html").exists()
    assert (tmp_path / "step.md").read_text("utf-8") == (tmp_path / "again" / "summary.md").read_text("utf-8")
    assert "edge_map FAILS" in (tmp_path / "first" / "summary.md").read_text("utf-8")
    assert json.loads((tmp_path / "first" / "model-index.yaml").read_text("utf-8"))["model-index"]
    assert refused.code == 4
    assert "holds a results.json already" in refused.output
    assert "Traceback" not in refused.output
