import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audits import catalogue
from audits.gate import Asked, asked, assemble, decide, expected_claims, required_of
from audits.options import read_settings
from audits.plan import Audited, Plan, family_size
from audits.policy import load_policy
from audits.roles import Role
from camcore.cam import METHODS
from camcore.engine import Terms
from reports.schema import Results
from reports.wording import exit_sentence
from tests.tiny import GapNet, numbered_dataset, tiny_subject

ANSWERS = ("PASS", "FAIL", "INCONCLUSIVE", "NOT_APPLICABLE", "ERROR", None)  # None: there is no record


def decided(*gating: str | None, warn: str | None = "PASS") -> str:
    answers = {**{f"gate{index}": answer for index, answer in enumerate(gating)}, "warn": warn}
    records = [{"subject": "m", "id": name, "verdict": answer} for name, answer in answers.items() if answer]
    return decide(records, [("m", name, name.rstrip("0123456789")) for name in answers])


@pytest.mark.parametrize("answers", list(itertools.product(ANSWERS, repeat=2)))
def test_nothing_passes_but_what_was_shown(answers: tuple[str | None, ...]) -> None:
    verdict = decided(*answers)

    if "FAIL" in answers:
        assert verdict == "FAIL"
    elif set(answers) <= {"PASS", "NOT_APPLICABLE"} and "PASS" in answers:
        assert verdict == "PASS"
    else:
        assert verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("warn", ANSWERS)
def test_what_only_warns_decides_nothing(warn: str | None) -> None:
    assert decided("PASS", warn=warn) == "PASS"
    assert decided("FAIL", warn=warn) == "FAIL"
    assert decided("ERROR", warn=warn) == "INCONCLUSIVE"


def test_a_run_in_which_nothing_gates_does_not_pass() -> None:
    assert decide([], []) == "INCONCLUSIVE"
    assert decided(warn="PASS") == "INCONCLUSIVE"


def test_a_record_of_another_model_shows_nothing() -> None:
    records = [{"subject": "other", "id": "gate", "verdict": "PASS"}]

    assert decide(records, [("m", "gate", "gate")]) == "INCONCLUSIVE"


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
@pytest.mark.parametrize("holds", [True, False])
def test_what_is_waived_keeps_nobody_back_while_the_waiver_holds(verdict: str, holds: bool) -> None:
    records = [
        {"subject": "m", "id": "a/gate", "verdict": verdict, "waiver": {"holds": holds}},
        {"subject": "m", "id": "a/other", "verdict": "PASS", "waiver": None},
    ]

    found = decide(records, [("m", "a/gate", "gate"), ("m", "a/other", "gate")])

    assert found == ("PASS" if holds else verdict)


def test_an_audit_that_is_required_has_to_answer() -> None:
    expected = [("m", "a/x", "gate"), ("m", "wall/leakage[gradcam]", "gate")]
    answers = dict.fromkeys(((subject, name) for subject, name, _ in expected), "NOT_APPLICABLE") | {
        ("m", "a/x"): "PASS"
    }

    def records() -> list[dict[str, str]]:
        return [{"subject": subject, "id": name, "verdict": verdict} for (subject, name), verdict in answers.items()]

    assert decide(records(), expected) == "PASS"
    assert decide(records(), expected, required=[("wall", "m")]) == "INCONCLUSIVE"
    assert decide(records(), expected, required=[("wall", "")]) == "INCONCLUSIVE"
    answers["m", "wall/leakage[gradcam]"] = "ERROR"  # no verdict about the model either
    assert decide(records(), [("m", "a/x", "gate")], required=[("wall", "m")]) == "INCONCLUSIVE"
    answers["m", "wall/leakage[gradcam]"] = "PASS"
    assert decide(records(), expected, required=[("wall", "m")]) == "PASS"
    assert decide(records(), expected, required=[("wall", "")]) == "PASS"
    assert decide([], [], required=[("wall", "")]) == "INCONCLUSIVE"


def test_a_model_of_which_nothing_was_shown_does_not_pass_on_another_s_account() -> None:
    expected = [("m", "a/x", "gate"), ("n", "a/x", "gate")]
    shown = {"subject": "m", "id": "a/x", "verdict": "PASS"}

    for said in ("NOT_APPLICABLE", "ERROR", "INCONCLUSIVE"):
        assert decide([shown, {"subject": "n", "id": "a/x", "verdict": said}], expected) == "INCONCLUSIVE"
    assert decide([shown, {"subject": "n", "id": "a/x", "verdict": "PASS"}], expected) == "PASS"
    # nor one that only warns
    assert (
        decide([shown, {"subject": "n", "id": "a/x", "verdict": "PASS"}], [*expected[:1], ("n", "a/x", "warn")])
        != "PASS"
    )


def test_what_is_required_is_asked_of_every_model_that_can_answer() -> None:
    policy = load_policy(None, profile="smoke").model_copy(update={"required": ("wall", "grounding")})
    models = [
        Asked(subject="m", cams=("gradcam",), able=("classes",)),
        Asked(subject="n", cams=(), able=("captions", "classes")),
        Asked(subject="o", cams=(), able=("captions",)),
    ]

    assert required_of(policy, models) == [("wall", "m"), ("wall", "n"), ("grounding", "")]


def plan(tmp_path: Path, *names: str) -> Plan:
    subject = replace(tiny_subject(GapNet(), "conv2"), sha256="0" * 64, weights="drawn")
    audited = tuple(
        Audited(
            id=name,
            roles={
                "classes": Role(
                    subject=replace(subject, name=name, preprocess=lambda images: images),
                    dataset=numbered_dataset(4),
                    terms=Terms(level=0.99, budget=4, seed=0, batch_size=2),
                )
            },
            cams={"hirescam": METHODS["hirescam"], "gradcam": METHODS["gradcam"]},
        )
        for name in names
    )
    settings = read_settings({"audit_option_report": str(tmp_path)}, {})
    return Plan(settings=settings, policy=load_policy(None, profile="pr"), device="cpu", audited=audited, artefacts=())


def record(subject: str, name: str, verdict: str, *, gates: bool = True, p: float | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "node_id": "",
        "subject": subject,
        "audit": name.partition("/")[0],
        "audit_version": "1",
        "kind": "DIR",
        "sentence": "",
        "severity": "gate" if gates else "warn",
        "gates": gates,
        "verdict": verdict,
        "reason": "",
        "measure": {"name": "", "unit": "", "direction": "above"},
        "estimate": None,
        "bounds": [0.0, 1.0],
        "margin": 0.1,
        "margin_source": "",
        "p": p,
        "p_holm": None,
        "n_needed": None,
        "cost": {"seconds": 0.0, "forwards": 0, "backwards": 0},
        "values": [],
        "units": [],
        "evidence": [],
        "controls": [],
        "rerun": "",
    }


def results(made: Plan, *records: dict[str, Any]) -> Results:
    return Results.model_validate(assemble(made, records, command="pytest audits", seconds=1.0, interrupted=0))


def test_every_claim_of_the_policy_is_expected_of_every_model_and_method(tmp_path: Path) -> None:
    made = plan(tmp_path, "a", "b")
    expected = expected_claims(made.policy, asked(made))

    of_maps = sum(question.of_map for question in catalogue.questions(made.policy).values())
    of_models = len(made.policy.claims) - of_maps
    assert len(expected) == len(set(expected)) == 2 * (2 * of_maps + of_models)
    assert 0 < of_models < of_maps
    assert ("b", "wall/leakage[gradcam]", "gate") in expected
    assert ("b", "bias/pull", "gate") in expected


def test_what_was_not_tested_is_named_and_keeps_the_run_from_passing(tmp_path: Path) -> None:
    made = plan(tmp_path, "a")
    found = results(made, record("a", "wall/leakage[gradcam]", "PASS", p=0.01))

    assert (found.verdict, found.exit_code) == ("INCONCLUSIVE", 6)
    assert len(found.not_tested) == len(expected_claims(made.policy, asked(made))) - 1
    assert not any(line.startswith("wall/leakage[gradcam]") for line in found.not_tested)


def test_a_policy_may_end_what_was_not_shown_as_a_failure_ends(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("inconclusive_exit = 1\n", encoding="utf-8")
    strict = replace(plan(tmp_path, "a"), policy=load_policy(file, profile="pr"))
    found = results(strict, record("a", "wall/leakage[gradcam]", "PASS", p=0.01))

    assert (found.verdict, found.exit_code) == ("INCONCLUSIVE", 1)
    assert "nothing that gates failed, but not all of it was shown" in exit_sentence(found)


def test_claims_come_in_the_order_of_the_policy_and_strangers_are_left_out(tmp_path: Path) -> None:
    names = [name for _, name, _ in expected_claims(load_policy(None, profile="pr"), asked(plan(tmp_path, "a")))]
    backwards = [record("a", name, "PASS") for name in reversed(names)]
    found = results(plan(tmp_path, "a"), record("z", names[0], "FAIL"), record("a", "x/y[z]", "FAIL"), *backwards)

    assert [claim.id for claim in found.claims] == names
    assert found.verdict == "PASS"


def test_holm_counts_the_claims_of_one_model_that_are_missing_too(tmp_path: Path) -> None:
    made = plan(tmp_path, "a", "b")
    gates = family_size(made.policy, made.audited[0].cams, ["classes"])  # those that a model of classes answers
    found = results(
        made,
        record("a", "wall/leakage[gradcam]", "PASS", p=0.001),
        record("a", "deletion/sharp_drop[gradcam]", "PASS", gates=False, p=0.001),
        record("b", "wall/leakage[gradcam]", "PASS", p=0.5),
    )
    adjusted = {(claim.subject, claim.id): claim.p_holm for claim in found.claims}

    assert adjusted["a", "wall/leakage[gradcam]"] == pytest.approx(0.001 * gates)
    assert adjusted["a", "deletion/sharp_drop[gradcam]"] is None
    assert adjusted["b", "wall/leakage[gradcam]"] == 1


def test_audits_are_documented_whether_or_not_they_ran(tmp_path: Path) -> None:
    made = plan(tmp_path, "a")
    found = results(made, record("a", "wall/leakage[gradcam]", "PASS"))

    assert [audit.name for audit in found.audits] == list(
        dict.fromkeys(name.split("/")[0] for name in made.policy.claims)
    )
    assert {"deletion", "wall"} < {audit.name for audit in found.audits}
    assert "uniform_map" in found.claims[0].controls


def test_a_subject_is_described_alike_in_every_run(tmp_path: Path) -> None:
    described = results(plan(tmp_path, "a")).subjects[0]

    assert "0x" not in described.preprocess  # the address of a function
    assert described == results(plan(tmp_path, "a")).subjects[0]
    assert described.n_params == sum(weights.numel() for weights in GapNet().parameters())


def test_data_that_two_models_share_is_listed_once(tmp_path: Path) -> None:
    assert len(results(plan(tmp_path, "a", "b")).data) == 1


@pytest.mark.parametrize("code", [2, 3])
@pytest.mark.parametrize(("answer", "ends", "verdict"), [("PASS", 0, "INCONCLUSIVE"), ("FAIL", 1, "FAIL")])
def test_a_run_that_was_stopped_passes_nothing(answer: str, ends: int, verdict: str, code: int, tmp_path: Path) -> None:
    made = plan(tmp_path, "a")
    claims = [
        record("a", name, answer, gates=gate == "gate") for _, name, gate in expected_claims(made.policy, asked(made))
    ]
    whole = assemble(made, claims, command="", seconds=0.0, interrupted=0)
    stopped = Results.model_validate(assemble(made, claims, command="", seconds=0.0, interrupted=code))

    assert (whole["verdict"], whole["exit_code"]) == (answer, ends)
    assert (stopped.verdict, stopped.exit_code, stopped.run.interrupted) == (verdict, code, True)
