"""The audit of the audits: every control is caught by what must catch it, and nothing else raises an alarm."""

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

from audits import catalogue
from audits.policy import SHIPPED, load_policy
from audits.question import audit_of, documentation
from fixtures.controls import CONTROLS
from fixtures.controls.registry import ABOUT
from tests.running import overlay

ROOT = Path(__file__).parents[1]
POLICY = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
CLAIMS = tuple(POLICY["claims"])
AUDITS = sorted({audit_of(claim) for claim in CLAIMS})
WANTED = [
    (name, claim)
    for name, made in CONTROLS.items()
    for claim in CLAIMS
    if made.asked(audit_of(claim)) and made.wanted(claim)
]
DEFECTIVE = [name for name, made in CONTROLS.items() if made.defect is not None]


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(control, claim) -> (verdict, reason) of each of its maps, from one run of the real command on all."""
    folder = tmp_path_factory.mktemp("controls")
    report = folder / "report"
    models = [argument for name in CONTROLS for argument in ("--model", f"control:{name}")]
    # only what a control must answer is asked: what it is silent on may stay undecided to the last image, at a third of
    # the cost of the whole run
    pairs = catalogue.selection(load_policy(None, profile="smoke"), WANTED)
    batch = ("--audit-batch-size", "8")  # measuring it for every control takes as long as many an audit
    # the least effort that people run: who catches a control with it does so with more. The closest call (a map as good
    # as the middle) takes all of the images
    least = ("--audit-profile", "smoke", "--audit-policy", str(overlay(folder, "[profiles.smoke]\nimages = 256\n")))
    # two processes of one thread each: small networks gain nothing from more threads, and lose a lot on a busy machine
    audit = [sys.executable, "-m", "pytest", "audits", "-n", "2", "-k", pairs, *batch, *least]
    command = [*audit, *models, "--audit-report", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads((report / "results.json").read_text(encoding="utf-8"))
    found = defaultdict(list)
    for claim in results["claims"]:
        found[claim["subject"], claim["id"].partition("[")[0]].append((claim["verdict"], claim["reason"]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("control", "claim"), WANTED)
def test_a_claim_reaches_the_verdict_that_the_control_calls_for(
    control: str, claim: str, verdicts: dict[tuple[str, str], list[tuple[str, str]]]
) -> None:
    assert verdicts[control, claim]
    for verdict, reason in verdicts[control, claim]:
        assert verdict == CONTROLS[control].wanted(claim), reason


def test_clean_twins_are_asked_what_they_can_answer() -> None:
    needs = {audit: import_module(f"audits.test_{audit}").QUESTIONS[0].needs for audit in AUDITS}

    assert {audit: able for audit, able in needs.items() if able != "classes"} == ABOUT


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_is_tripped_by_a_control(claim: str) -> None:
    assert any(claim in CONTROLS[name].caught_by for name in DEFECTIVE)


@pytest.mark.parametrize("control", DEFECTIVE)
def test_every_defect_is_caught_by_a_claim_that_the_policy_lists(control: str) -> None:
    assert CONTROLS[control].caught_by
    assert set(CONTROLS[control].caught_by) <= set(CLAIMS)


@pytest.mark.slow
@pytest.mark.parametrize("control", DEFECTIVE)
def test_a_defective_control_fails_the_gate_whatever_it_is_silent_on(
    control: str, verdicts: dict[tuple[str, str], list[tuple[str, str]]]
) -> None:
    severities = {name: claim["severity"] for name, claim in POLICY["claims"].items()}
    caught = CONTROLS[control].caught_by
    if not any(severities[claim] == "gate" for claim in caught):
        pytest.skip(f"only claims that do not gate catch {control}: {', '.join(caught)}")

    assert any(verdict in ("FAIL", "ERROR") for name in caught for verdict, _ in verdicts[control, name])


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_passes_on_a_clean_twin(claim: str) -> None:
    twins = [made for made in CONTROLS.values() if made.defect is None and made.asked(claim.partition("/")[0])]

    assert any(made.wanted(claim) == "PASS" for made in twins)


@pytest.mark.parametrize("audit", AUDITS)
def test_an_audit_documents_the_controls_that_catch_it(audit: str) -> None:
    module = import_module(f"audits.test_{audit}")
    named = {name.strip() for name in documentation(module.__doc__ or "")["caught_by"].split(",")}

    assert named == {
        name for name, made in CONTROLS.items() if any(claim.startswith(f"{audit}/") for claim in made.caught_by)
    }
