"""The real command beside an earlier run: a planted regression that every claim of its own survives is caught."""

from pathlib import Path

import pytest

from tests.running import only_gate, overlay, run

pytestmark = pytest.mark.slow

FACTORIES = '''
from dataclasses import replace

from torch import nn

from fixtures.subjects.spec import find_subject


class Cooler(nn.Module):
    """The same network, less sure: every map is the same, and deleting what it marks costs less."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return 0.25 * self.module(images)


def released():
    return find_subject("control:clean")


def cooler():
    subject = released()
    return replace(subject, module=Cooler(subject.module).eval(), target_layer=f"module.{subject.target_layer}")
'''


def test_a_regression_is_caught_and_the_same_model_is_no_worse(tmp_path: Path) -> None:
    file = tmp_path / "models.py"
    file.write_text(FACTORIES, encoding="utf-8")
    policy = overlay(tmp_path, only_gate("deletion/beats_random"))
    options = ("--data", "scenes", "--audit-profile", "smoke", "--audit-policy", policy, "-k", "beats_random")
    then = tmp_path / "then" / "results.json"

    first = run(tmp_path / "then", "--model", f"py:{file}:released", "--audit-full", *options)
    same = run(tmp_path / "same", "--model", f"py:{file}:released", "--audit-baseline", then, *options)
    worse = run(tmp_path / "worse", "--model", f"py:{file}:cooler", "--audit-baseline", then, *options)

    assert (first.code, same.code, worse.code) == (0, 0, 1), first.output + same.output + worse.output
    (claim,) = (one for one in worse.results["claims"] if one["id"].startswith("deletion/beats_random"))
    (kept,) = (one for one in same.results["claims"] if one["id"].startswith("deletion/beats_random"))
    assert (claim["verdict"], claim["baseline"]["verdict"]) == ("PASS", "FAIL")
    assert (kept["verdict"], kept["baseline"]["verdict"], kept["baseline"]["estimate"]["point"]) == ("PASS", "PASS", 0)
    assert kept["baseline"]["estimate"]["n"] == kept["estimate"]["n"] == 192  # certain or not
    assert "worse than the baseline" in worse.output
    assert "models.py-cooler FAILS: 1 of 1 gating claim fails." in worse.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--audit-seed", "3"), "seed"),
        (("--audit-profile", "pr"), "profile"),
    ],
)
def test_what_is_not_comparable_and_what_is_not_there_is_refused_at_once(
    options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    first = run(tmp_path / "then", "--audit-profile", "smoke", "--model", "control:clean", "-k", "toy_wall")
    then = tmp_path / "then" / "results.json"

    found = run(
        tmp_path / "now", "--audit-profile", "smoke", "--audit-baseline", then, "--model", "control:clean", *options
    )
    missing = run(tmp_path / "now", "--audit-baseline", tmp_path / "none.json", "--model", "control:clean")

    assert first.code == 6
    assert (found.code, missing.code) == (4, 4)
    assert f"was run with {words}" in found.output
    assert "not comparable" in found.output
    assert "--audit-baseline: expected a results.json, cannot read" in missing.output
    assert "Traceback" not in found.output + missing.output
