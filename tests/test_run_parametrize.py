"""`parametrize_with_audits` in somebody else's suite: their own root, strict, warnings as errors, two workers."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest

from tests.running import ROOT, environment

pytestmark = pytest.mark.slow

PLUGIN = ROOT / "docs" / "example_plugin"
SUITE = '''
import brightness_audit
import torch
from torch import nn

from camcore.testing import parametrize_with_audits

TWINS = ["control:dimmer_ignored", "control:dimmer_steps"]
BRIGHTNESS = {"plugins": [brightness_audit], "audits": ["brightness"], "profile": "smoke", "batch_size": 16}


class Dense(nn.Module):
    """No map of features."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 4))

    def forward(self, images):
        return self.dense(images)


class Breaks(Dense):
    def forward(self, images):
        if len(images) > 1:  # not while it is loaded
            raise RuntimeError("the forward broke")
        return super().forward(images)


FEW = {"data": (torch.zeros(8, 3, 24, 24), torch.arange(8) % 4), "normalise": "inside", "profile": "smoke"}
FEW["batch_size"] = 4


@parametrize_with_audits(TWINS, **BRIGHTNESS)
def test_twins(model, claim):
    assert claim(model).outcome == "PASS"


@parametrize_with_audits(TWINS, expected_failures={"brightness/stays": "known since spring"}, **BRIGHTNESS)
def test_expected(model, claim):
    claim(model)


@parametrize_with_audits([Dense], audits=["brightness", "shuffling"], plugins=[brightness_audit], **FEW)
def test_few(model, claim):
    claim(model)


@parametrize_with_audits({"breaks": Breaks}, audits=["brightness"], plugins=[brightness_audit],
                         expected_failures={"brightness/stays": "it never worked"}, **FEW)
def test_breaks(model, claim):
    claim(model)


@parametrize_with_audits(["control:grounder-oracle"], audits=["cues"], profile="smoke", policy="required.toml")
def test_required(model, claim):
    claim(model)


@parametrize_with_audits([TWINS[1]], policy="answered.toml", **BRIGHTNESS)
def test_answered(model, claim):
    claim(model)


@parametrize_with_audits({"absent": "control:cleen"}, audits=["cues"])
def test_absent(model, claim):
    claim(model)


def test_claims_say_what_they_are():
    (mark,) = test_twins.pytestmark
    claim = mark.args[1][0].values[1]
    assert "brightness/stays" in repr(claim) and len(repr(claim)) < 300
'''


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Test -> (what became of it, what was said), of a suite outside this tree."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "pytest.ini").write_text("[pytest]\nstrict = true\nfilterwarnings = error\njunit_family = xunit1\n")
    (folder / "conftest.py").write_text("import pytest\n\n\n@pytest.fixture\ndef ask():\n    return 'theirs'\n")
    (folder / "test_model.py").write_text(SUITE, encoding="utf-8")
    (folder / "required.toml").write_text('required = ["cues"]\n', encoding="utf-8")
    (folder / "answered.toml").write_text('required = ["brightness"]\n', encoding="utf-8")
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (folder / "test_example.py").write_text(example, encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(PLUGIN)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-q", "--junitxml", "junit.xml"],
        cwd=folder,
        env=environment({"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(folder / "junit.xml").iter("testcase"):
        told = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        kind = "passed" if told is None else told.get("type") if told.tag == "skipped" else told.tag
        found[str(case.get("name"))] = (str(kind), "" if told is None else str(told.get("message")))
    return found


@pytest.mark.parametrize(
    ("test", "kind", "said"),
    [
        ("test_twins[dimmer_ignored-brightness-stays]", "passed", ""),
        ("test_twins[dimmer_steps-brightness-stays]", "failure", "FAIL brightness/stays: the predicted class stays"),
        ("test_expected[dimmer_steps-brightness-stays]", "pytest.xfail", "known since spring"),
        ("test_expected[dimmer_ignored-brightness-stays]", "failure", "Take it off the list"),
        ("test_few[Dense-brightness-stays]", "failure", "INCONCLUSIVE"),
        ("test_few[Dense-shuffling-structure]", "pytest.xfail", "INCONCLUSIVE"),
        ("test_few[Dense-shuffling-map_follows-hirescam]", "pytest.skip", "NOT_APPLICABLE"),
        ("test_breaks[breaks-brightness-stays]", "failure", "the forward broke"),
        ("test_required[grounder-oracle-cues-shape]", "pytest.skip", "NOT_APPLICABLE"),
        ("test_required[grounder-oracle-required-cues]", "failure", "which the policy requires: no verdict about"),
        ("test_answered[dimmer_steps-brightness-stays]", "failure", "FAIL brightness/stays"),
        ("test_answered[dimmer_steps-required-brightness]", "passed", ""),
        ("test_absent[absent-cues-shape]", "failure", "no control named 'cleen'; did you mean"),
        ("test_claims_say_what_they_are", "passed", ""),
        ("test_net[net-sanity-depends_on_weights-hirescam]", "passed", ""),
        ("test_net[net-sanity-depends_on_class-hirescam]", "passed", ""),
        ("test_net_draws_another_map_for_another_class", "passed", ""),
    ],
)
def test_a_verdict_ends_its_test_as_it_must(
    outcomes: dict[str, tuple[str, str]], test: str, kind: str, said: str
) -> None:
    found, message = outcomes[test]

    assert found == kind, message
    assert said in message


def test_nothing_else_failed(outcomes: dict[str, tuple[str, str]]) -> None:
    assert Counter(kind for kind, _ in outcomes.values())["error"] == 0
