"""The page of rates: counted by seed, forgotten with an audit's version, and honest about what was not measured."""

import json
from pathlib import Path

import pytest

from audits.calibration import of_audit
from benchmarks import calibration
from benchmarks.calibration import Row, current, once, page
from fixtures.controls.registry import ABOUT

KEY = ("uniform_map", "wall/leakage")


def row(**given: object) -> Row:
    control, claim = KEY
    return Row(**{"control": control, "claim": claim, "version": current()[KEY].version, **given})  # type: ignore[arg-type]


def test_a_seed_is_counted_once_more() -> None:
    found = row().also(2, "FAIL", 16).also(1, "PASS", 32)
    assert (found.verdicts, found.images, found.seeds) == ({"FAIL": 1, "PASS": 1}, 48, (1, 2))


def test_a_seed_that_was_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a seed that uniform_map on wall/leakage was not asked under, got 2"):
        row().also(2, "FAIL", 16).also(2, "FAIL", 16)


@pytest.mark.parametrize("verdicts", [("FAIL", "PASS", "FAIL"), ("PASS", "FAIL", "INCONCLUSIVE")])
def test_several_maps_of_a_control_are_one_trial_that_the_one_that_misses_decides(verdicts: tuple[str, ...]) -> None:
    found = once([(*KEY, verdict, images) for images, verdict in enumerate(verdicts)])
    assert found == {KEY: ("PASS", verdicts.index("PASS"))}


def test_no_row_of_the_shipped_rates_counts_a_seed_twice() -> None:
    assert all(len(set(one.seeds)) == len(one.seeds) == sum(one.verdicts.values()) for one in current().values())


def test_the_page_gives_rate_interval_and_what_else_came() -> None:
    twenty = row()
    for seed in range(20):
        twenty = twenty.also(seed, "PASS" if seed == 7 else "FAIL", 16)
    text = page({KEY: twenty})
    assert "| uniform_map | wall/leakage | FAIL | 19 of 20 | [0.75, 1.00] | PASS 1 | 16 |" in text
    assert "caught 19 of 20 (0 of 1 rows every time)" in text
    assert text.index("## Power") < text.index("| uniform_map |")
    assert "## False alarms" not in text


def test_what_was_not_measured_is_said_to_be_so() -> None:
    assert "| uniform_map | wall/leakage | FAIL | not measured |" in page({KEY: row()})


@pytest.mark.parametrize(("version", "kept"), [(None, (1,)), ("before", ())])
def test_rates_of_another_version_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, kept: tuple[int, ...]
) -> None:
    known = row().also(1, "FAIL", 16)
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps([{**vars(known), "version": version or known.version}]))
    monkeypatch.setattr(calibration, "FOUND", file)
    assert current()[KEY].seeds == kept


def test_a_run_hands_on_the_rates_of_the_audit_as_it_is_now() -> None:
    rows = of_audit("wall", current()[KEY].version)
    found = {(row["control"], row["claim"]): row for row in rows}

    assert {row["must"] for row in rows} >= {"PASS", "FAIL"}
    assert all(sum(row["verdicts"].values()) == row["share"]["n"] > 0 for row in rows)
    assert all((row["defect"] is None) == (row["must"] == "PASS") for row in rows if row["control"] == "clean")
    known = found[KEY]
    assert known["share"]["point"] == known["verdicts"].get("FAIL", 0) / known["share"]["n"]
    assert of_audit("wall", "another") == []


def test_every_control_is_asked_and_a_clean_twin_about_every_claim() -> None:
    rows = current()
    clean = {name for name, made in calibration.CONTROLS.items() if made.defect is None}
    of_classes = {claim for claim in calibration.claims() if claim.partition("/")[0] not in ABOUT}
    assert {claim for control, claim in rows if control in clean} == set(calibration.claims())
    assert {claim for control, claim in rows if control == "clean"} == of_classes
    assert {control for control, _ in rows} == set(calibration.CONTROLS)
