"""The real command beside an earlier run that is no baseline; what a regression comes to is in test_run_pipeline."""

from pathlib import Path

import pytest

from tests.running import Run, run

pytestmark = pytest.mark.slow

MODEL = ("--model", "control:clean")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("then"), *MODEL, "--audit-profile", "smoke", "-k", "toy_wall")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--audit-profile", "smoke", "--audit-seed", "3"), "seed"),
        (("--audit-profile", "pr"), "profile"),
    ],
)
def test_what_is_not_comparable_is_refused_at_once(
    options: tuple[str, ...], words: str, first: Run, tmp_path: Path
) -> None:
    found = run(tmp_path, *MODEL, "--audit-baseline", first.report / "results.json", *options)

    assert first.code == 6
    assert found.code == 4
    assert f"was run with {words}" in found.output
    assert "not comparable" in found.output
    assert "Traceback" not in found.output


def test_a_baseline_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    missing = run(tmp_path / "now", *MODEL, "--audit-baseline", tmp_path / "none.json")

    assert missing.code == 4
    assert "--audit-baseline: expected a results.json, cannot read" in missing.output
    assert "Traceback" not in missing.output
