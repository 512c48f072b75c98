"""What a plugin may add, and what is refused in one line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from audits import catalogue
from audits.ask import Ask
from audits.extensions import LOADED, Extension, loaded
from audits.plan import family_size
from audits.policy import load_policy
from audits.question import Question
from camcore import BadInput, Batch, Classifier
from camcore.testing import audit_model
from camcore.verdict import Table
from fixtures.controls import CONTROLS, Control, find_control
from fixtures.subjects.spec import find_subject
from reports import html, terminal
from tests.tiny import GapNet, tiny_subject

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\nof the picture"
DOCUMENTED = """Is it?

## What it measures

Nothing.

## Why it matters

It does not.

## Known limits

All.

## Caught by

planted

## References

None.
"""
POLICY = '[claims."{0}/is"]\nseverity = "gate"\nmargin = 0.5\nsource = "nowhere"\nwhy = "because"\n'


def question(name: str = "third/is", **changes: Any) -> Question:
    words = {"sentence": "it is", "kind": "MFT", "measure": "being", "unit": "share", "bounds": (0.0, 1.0), **changes}
    return Question(name=name, **words)


def measured(subject: Classifier, batch: Batch) -> dict[str, torch.Tensor]:
    return {"is": torch.ones(len(batch), dtype=torch.float64)}


def audit(*questions: Question, documented: str = DOCUMENTED, version: Any = "1") -> ModuleType:
    module = ModuleType("test_third", documented)

    def test_it_is(ask: Ask) -> None:
        def show(*_: Any) -> tuple[Table]:
            return (Table(title=HOSTILE, columns=(HOSTILE,), rows=((HOSTILE,),)),)

        ask(module.QUESTIONS[0], measure=measured, column="is", show=show, version="1")

    vars(module).update(VERSION=version, QUESTIONS=questions or (question(),), test_it_is=test_it_is)
    return module


def control(name: str = "planted", claim: str = "third/is") -> Control:
    return Control(name=name, defect="it is not", build=lambda: tiny_subject(GapNet()), caught_by={claim: "FAIL"})


@pytest.fixture
def margins(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "policy.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture
def third(margins: Callable[[str], Path]) -> Extension:
    return Extension(
        name="third",
        version="2",
        audits=(audit(),),
        policy=margins(POLICY.format("third")),
        controls=(control(),),
        families={"thirds": lambda rest, weights: tiny_subject(GapNet(), "conv2")},
    )


def test_what_is_added_belongs_to_the_suite_and_is_gone_afterwards(third: Extension, tmp_path: Path) -> None:
    before = load_policy(None, profile="smoke")
    with loaded([third]):
        policy = load_policy(None, profile="smoke")
        assert policy.claims["third/is"].margin == 0.5
        assert policy.sha256 != before.sha256
        assert family_size(policy, ["hirescam"], ["classes"]) == family_size(before, ["hirescam"], ["classes"]) + 1
        assert catalogue.questions(policy)["third/is"].sentence == "it is"
        assert find_control("planted").name == tiny_subject(GapNet()).name
        assert find_subject("thirds:1").spec == "thirds:1"
        over = tmp_path / "over.toml"
        over.write_text('[claims."third/is"]\nmargin = 0.7\n', encoding="utf-8")
        assert load_policy(over, profile="smoke").claims["third/is"].margin == 0.7  # the user has the last word

    assert load_policy(None, profile="smoke") == before
    assert "planted" not in CONTROLS
    assert not LOADED
    with pytest.raises(BadInput, match="unknown kind of model"):
        find_subject("thirds:1")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "<third>"}, "an extension's name must be"),
        ({"version": "1\n2"}, "must be a string of one line"),
        ({"audits": (audit(question("deletion/is")),)}, "the audit 'deletion' is there already"),
        ({"audits": (audit(question("Third/is")),)}, "must be called"),
        ({"audits": (audit(question(), question("other/is")),)}, "must be called third/<claim>"),
        ({"audits": (audit(question(), question("third/was", needs="boxes")),)}, "must all need the same"),
        ({"audits": (audit(documented="Is it?"),)}, "needs the sections"),
        ({"audits": (audit(version=1),)}, "needs a VERSION"),
        ({"audits": (ModuleType("test_empty", DOCUMENTED),)}, "test_empty needs QUESTIONS"),
        ({"audits": (audit(), audit())}, "the audit 'third' is there already"),
        ({"policy": None}, "says nothing about 'third/is'"),
        ({"policy": POLICY.format("deletion")}, "is about 'deletion/is', which is no question of its own"),
        ({"policy": POLICY.format("third") + "\n[profiles.pr]\nimages = 1\n"}, "claims and nothing else"),
        ({"policy": POLICY.format("third").replace('"gate"', '"often"')}, "third/is: severity"),
        ({"policy": POLICY.format("third").replace("why", "because")}, "third/is: "),
        ({"policy": "margin ="}, "cannot be read as TOML"),
        ({"controls": ()}, "no control trips 'third/is'"),
        ({"controls": (control(), control("clean"))}, "the control 'clean' is there already"),
        ({"controls": (control("pl/../anted"),)}, "the control 'pl/../anted' needs a name"),
        ({"families": {"torchvision": None}}, "the kind of models 'torchvision' is there already"),
        ({"families": {"mdetr": None}}, "the kind of models 'mdetr' is there already"),
    ],
)
def test_what_is_not_whole_is_refused_in_one_line_and_leaves_nothing(
    third: Extension, margins: Callable[[str], Path], changes: dict[str, Any], said: str
) -> None:
    if isinstance(changes.get("policy"), str):
        changes = {"policy": margins(changes["policy"])}
    known = set(CONTROLS)

    with pytest.raises(BadInput) as refused, loaded([replace(third, **changes)]):
        pass

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not LOADED
    assert not catalogue.ADDED
    assert set(CONTROLS) == known


def test_two_of_one_name_are_refused(third: Extension) -> None:
    with pytest.raises(BadInput, match="the extension 'third' is there already"), loaded([third, third]):
        pass


@pytest.mark.slow
def test_its_words_are_inert_in_the_report_and_its_gating_claim_counts(third: Extension, tmp_path: Path) -> None:
    hostile = replace(
        third, audits=(audit(question(sentence=HOSTILE), documented=DOCUMENTED.replace("Nothing.", HOSTILE)),)
    )
    plugin = ModuleType("plugin")
    vars(plugin)["pytest_audit_register"] = lambda: hostile
    pictures = torch.rand(24, 3, *tiny_subject(GapNet(), "conv2").geometry.crop), torch.zeros(24, dtype=torch.long)
    how: dict[str, Any] = {"data": pictures, "profile": "smoke", "batch_size": 8, "plugins": [plugin]}

    results = audit_model(tiny_subject(GapNet(), "conv2"), audits=["third"], report=tmp_path / "report", **how)

    (claim,) = results.claims
    assert (claim.sentence, claim.verdict, claim.gates) == (HOSTILE, "PASS", True)
    assert results.run.versions["plugin third"] == "2"
    assert results.verdict == "INCONCLUSIVE"
    missing = audit_model(tiny_subject(GapNet(), "conv2"), audits=["cues"], **how)
    assert any(line.startswith("third/is on") for line in missing.not_tested)
    page = html.render(results)
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "\x1b" not in terminal.table(results)
