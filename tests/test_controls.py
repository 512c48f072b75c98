"""The audit of the audits: every control is caught by what must catch it, and nothing else raises an alarm."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from audits.policy import SHIPPED
from audits.question import documentation
from fixtures.controls import CONTROLS
from fixtures.controls.registry import ABOUT
from tests.running import overlay

ROOT = Path(__file__).parents[1]
POLICY = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
CLAIMS = tuple(POLICY["claims"])
AUDITS = sorted({claim.partition("/")[0] for claim in CLAIMS})
ASKED = [(name, audit) for name, made in CONTROLS.items() for audit in AUDITS if made.asked(audit)]
DEFECTIVE = [name for name, made in CONTROLS.items() if made.defect is not None]


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[str, str]]:
    """(control, claim) -> (verdict, reason), from one run of the real command over all controls and what they ask."""
    folder = tmp_path_factory.mktemp("controls")
    report = folder / "report"
    models = [argument for name in CONTROLS for argument in ("--model", f"control:{name}")]
    # two processes of one thread each: small networks gain nothing from more threads, and lose a lot on a busy machine
    pairs = " or ".join(f"(test_{audit}.py and [{name}-)" for name, audit in ASKED)
    batch = ("--audit-batch-size", "8")  # measuring it for every control takes as long as many an audit
    # what a control is silent on may stay undecided to the last image: fewer of them, the rest is decided before
    policy = overlay(folder, "[profiles.pr]\nimages = 256\n")
    audit = [sys.executable, "-m", "pytest", "audits", "-n", "2", "-k", pairs, *batch, "--audit-policy", str(policy)]
    command = [*audit, *models, "--audit-report", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads((report / "results.json").read_text(encoding="utf-8"))
    return {
        (claim["subject"], claim["id"].partition("[")[0]): (claim["verdict"], claim["reason"])
        for claim in results["claims"]
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "claim"),
    [(name, claim) for name, audit in ASKED for claim in CLAIMS if claim.startswith(f"{audit}/")],
)
def test_a_claim_reaches_the_verdict_that_the_control_calls_for(
    control: str, claim: str, verdicts: dict[tuple[str, str], tuple[str, str]]
) -> None:
    verdict, reason = verdicts[control, claim]
    wanted = CONTROLS[control].wanted(claim)

    assert verdict in ({wanted} if wanted else {"PASS", "FAIL", "INCONCLUSIVE", "NOT_APPLICABLE"}), reason


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
    control: str, verdicts: dict[tuple[str, str], tuple[str, str]]
) -> None:
    severities = {name: claim["severity"] for name, claim in POLICY["claims"].items()}
    caught = CONTROLS[control].caught_by
    if not any(severities[claim] == "gate" for claim in caught):
        pytest.skip(f"only claims that do not gate catch {control}: {', '.join(caught)}")

    assert any(verdicts.get((control, name), ("", ""))[0] in ("FAIL", "ERROR") for name in caught)


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
