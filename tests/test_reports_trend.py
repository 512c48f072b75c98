import json
import re

import pytest

from reports import trend_shown
from reports.__main__ import main
from reports.schema import BadResults
from reports.trend import trend
from tests.test_reports_example import SHA, beside, claim, example
from tests.test_reports_html import HOSTILE


def saved(folder, day, *claims, sha=SHA, whole=None, **run):
    """One run, in a folder of its own."""
    made = example(list(claims), verdict="INCONCLUSIVE", exit_code=6) | (whole or {})
    made["run"] |= {"utc": f"2026-01-{day:02}T08:00:00Z", "id": f"run-{day}"} | run
    made["subjects"][0]["sha256"] = sha
    where = folder / f"day-{day}"
    where.mkdir()
    (where / "results.json").write_text(json.dumps(made), encoding="utf-8")


def test_runs_are_ordered_by_time_wherever_they_lie(tmp_path):
    saved(tmp_path, 9, claim(2))
    saved(tmp_path / "day-9", 3, claim(0))
    saved(tmp_path, 5, claim(0), utc="2026-01-05T08:00:00")
    found = trend(tmp_path)

    assert [run.when.day for run in found.runs] == [3, 5, 9]
    assert {line.claim.id: [point.run for point in line.points] for line in found.lines} == {
        "deletion/beats_random[cam0]": [0, 1],
        "deletion/beats_random[cam2]": [2],
    }


def test_a_line_goes_on_over_new_weights_and_breaks_where_runs_are_not_comparable(tmp_path):
    saved(tmp_path, 1, claim(0))
    saved(tmp_path, 2, claim(0, verdict="INCONCLUSIVE"), sha="0" * 64)
    saved(tmp_path, 3, claim(0), sha="0" * 64, seed=8)
    saved(tmp_path, 4, claim(2), sha="0" * 64, seed=8)
    saved(tmp_path, 5, claim(0), sha="0" * 64, seed=8)
    found = trend(tmp_path)
    line = next(one for one in found.lines if one.claim.id.endswith("[cam0]"))

    assert [point.weights for point in line.points] == [False, True, False, False]
    assert [point.broken for point in line.points] == [(), (), ("seed 7, then 8",), ()]
    assert [[point.run for point in stretch] for stretch in line.stretches] == [[0, 1], [2], [4]]
    assert trend_shown.strip(line, 5) == "P*I|P.P"


def test_a_verdict_beside_a_baseline_is_drawn_and_counted_as_it_counts(tmp_path):
    saved(tmp_path, 1, claim(0))
    saved(tmp_path, 2, claim(0, baseline=beside("FAIL")))
    saved(tmp_path, 3, claim(0, baseline=beside("INCONCLUSIVE")))
    found = trend(tmp_path)
    page = trend_shown.render(found)

    assert trend_shown.strip(found.lines[0], 3) == "PFI"
    assert found.lines[0].changes == 2
    assert trend_shown.headline(found).endswith("1 of 1 claims changed their verdict.")
    assert re.findall(r'class="cell (\w+)"', page) == ["pass", "fail", "inconclusive"]
    assert 'class="card inconclusive"' in page
    assert "<td>Fail beside the baseline</td>" in page


def test_a_waived_claim_keeps_its_letter_and_its_waiver_is_a_change(tmp_path):
    waiver = {"holds": True, "said": "waived", "bound": 0.0, "reason": "so", "owner": "me", "expires": "2030-01-01"}
    saved(tmp_path, 1, claim(1))
    saved(tmp_path, 2, claim(1, waiver=waiver))
    (line,) = trend(tmp_path).lines

    assert trend_shown.strip(line, 2) == "Ff"
    assert line.changes == 1


def test_a_run_that_passed_and_did_not_end_with_0_says_so(tmp_path):
    saved(tmp_path, 1, claim(0), whole={"verdict": "PASS", "exit_code": 1})
    found = trend(tmp_path)

    assert "PASS (exit code 1)" in trend_shown.text(found)
    assert 'class="hero inconclusive"' in trend_shown.render(found)


def test_the_page_draws_one_place_for_each_run(tmp_path):
    for day, verdict in enumerate(("PASS", "PASS", "INCONCLUSIVE", "ERROR"), 1):
        missing = {"estimate": None} if verdict == "ERROR" else {}
        saved(tmp_path, day, claim(0, verdict=verdict, **missing))
    page = trend_shown.render(trend(tmp_path))
    curve = re.findall(r'class="line" points="([^"]+)"', page)

    assert [len(points.split()) for points in curve] == [3]
    assert re.findall(r'class="cell (\w+)"', page) == ["pass", "pass", "inconclusive", "error"]
    assert page.count('class="break"') == 0
    assert "<script" not in page


def test_an_interval_is_drawn_where_its_numbers_are(tmp_path):
    saved(tmp_path, 1, claim(0))
    (chart,) = [trend_shown.charted(line, trend(tmp_path), 60.0) for line in trend(tmp_path).lines]
    (one,) = chart.drawn
    estimate = claim(0)["estimate"]

    assert one.bar == (chart.up(estimate["low"]), chart.up(estimate["high"]))
    assert one.bar[0] > one.dot > one.bar[1]  # upwards
    assert one.margins == (chart.up(0.05),)


def test_files_that_cannot_be_used_are_named_and_skipped(tmp_path, capsys):
    saved(tmp_path, 1, claim(0))
    saved(tmp_path, 2, claim(0), utc="yesterday")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "results.json").write_text('{"run": ', encoding="utf-8")

    assert main(["trend", str(tmp_path)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    assert len(told) == 2
    assert "yesterday" in told[0]
    assert "torn" in told[1]
    assert "yesterday" in (tmp_path / "trend.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_folder_without_a_run_is_one_line(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content, encoding="utf-8")

    assert main(["trend", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "trend.html").exists()


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(BadResults, match="expected a folder"):
        trend(tmp_path / "absent")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_others_reaches_page_or_terminal_as_it_is(tmp_path, text):
    strange = {"id": text, "sentence": text, "audit_version": text}
    saved(tmp_path, 1, claim(0, **strange))
    saved(tmp_path, 2, claim(0, **strange | {"audit_version": "2"}), profile=text)
    found = trend(tmp_path)

    assert "<script" not in trend_shown.render(found)
    assert "<img src=x" not in trend_shown.render(found)
    assert all(line.isprintable() for line in trend_shown.text(found).splitlines())


def test_a_long_history_stays_inside_its_figure(tmp_path):
    for day in range(1, 29):
        saved(tmp_path, day, claim(0))
    found = trend(tmp_path)
    (chart,) = [trend_shown.charted(line, found, (700 - 56) / 28) for line in found.lines]

    assert max(one.x for one in chart.drawn) < trend_shown.RIGHT
    assert len({one.x for one in chart.drawn}) == 28
