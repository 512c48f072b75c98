"""The real command beside an earlier run that is no baseline; what a regression comes to is in test_run_pipeline."""

from pathlib import Path

import pytest

from tests.running import run

pytestmark = pytest.mark.slow


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
