import json

import numpy as np
import pytest
from scipy import stats

from reports import diff_shown, schema
from reports.__main__ import main
from reports.diff import diff
from tests.test_reports_example import beside, claim, example, overlay, results
from tests.test_reports_html import HOSTILE

UNITS = [f"n01/{index}.jpg" for index in range(30)]
OLD = np.random.default_rng(5).uniform(0.2, 0.6, 30).tolist()


def judged(verdict="PASS", values=OLD, **changes):
    """A claim that gates, with these values."""
    point = float(np.mean([value for value in values if value is not None]))
    estimate = claim(0)["estimate"] | {"point": point, "low": point - 0.05, "high": point + 0.05, "n": len(values)}
    return claim(0, verdict=verdict, values=values, estimate=estimate, **{"units": UNITS[: len(values)]} | changes)


def run(*claims, seed=7, **changes):
    """A run of these claims."""
    failed = any(one["verdict"] == "FAIL" and one["gates"] for one in claims)
    made = example(list(claims), verdict="FAIL" if failed else "INCONCLUSIVE", exit_code=1 if failed else 6)
    return made | {"run": made["run"] | {"seed": seed}} | changes


def compared(old, new):
    return diff(schema.Results.model_validate(old), schema.Results.model_validate(new))


def called(name, **changes):
    return [example()["subjects"][0] | {"id": name} | changes]


def test_a_run_beside_itself_moved_nothing():
    found = compared(run(judged()), run(judged()))

    assert (found.turned, found.moved, found.unlike, found.gone, found.come, found.worse) == ((),) * 6
    assert found.provenance == ()
    assert "nothing moved" in diff_shown.headline(found)


def test_differences_are_paired_by_unit_whatever_their_order():
    new = [value - 0.1 - 0.001 * index for index, value in enumerate(OLD)]
    (change,) = compared(run(judged()), run(judged(values=new[::-1], units=UNITS[::-1]))).changes
    expected = stats.ttest_rel(new, OLD).confidence_interval(0.95)

    assert change.paired.mean == pytest.approx(np.mean(new) - np.mean(OLD))
    assert change.paired.interval == pytest.approx((expected.low, expected.high))
    assert (change.paired.better, change.paired.worse) == (0, 30)
    assert change.paired.units[0].name == UNITS[-1]


def test_where_small_is_good_less_is_better():
    measure = claim(0)["measure"] | {"direction": "within"}
    (change,) = compared(
        run(judged(values=[0.3, -0.4], measure=measure)), run(judged(values=[0.1, 0.2], measure=measure))
    ).changes

    assert [unit.change for unit in change.paired.units] == pytest.approx([0.2, 0.2])


def test_units_of_one_run_or_without_a_number_are_counted_and_left_out():
    (change,) = compared(run(judged(values=[0.1, 0.2, None, 0.4])), run(judged(values=[0.2, None, 0.3]))).changes

    assert [unit.name for unit in change.paired.units] == [UNITS[0]]
    assert (change.paired.alone, change.paired.interval) == (3, None)


@pytest.mark.parametrize(
    ("old", "new", "gates", "worse"),
    [
        ("PASS", "FAIL", True, True),
        ("PASS", "INCONCLUSIVE", True, True),
        ("PASS", "ERROR", True, True),
        ("PASS", "NOT_APPLICABLE", True, True),
        ("INCONCLUSIVE", "FAIL", True, True),
        ("FAIL", "INCONCLUSIVE", True, False),
        ("FAIL", "PASS", True, False),
        ("INCONCLUSIVE", "ERROR", True, False),
        ("NOT_APPLICABLE", "FAIL", True, True),
        ("NOT_APPLICABLE", "ERROR", True, True),
        ("NOT_APPLICABLE", "INCONCLUSIVE", True, True),
        ("NOT_APPLICABLE", "PASS", True, False),
        ("NOT_APPLICABLE", "FAIL", False, False),
        ("FAIL", "NOT_APPLICABLE", True, False),
        ("PASS", "FAIL", False, False),
    ],
)
def test_only_what_gates_and_is_answered_worse_is_worse(old, new, gates, worse):
    severity = {"gates": gates, "severity": "gate" if gates else "warn"}
    found = compared(run(judged(old, **severity)), run(judged(new, **severity)))

    assert bool(found.worse) == worse
    assert [change.turned for change in found.changes] == [True]


def test_what_passed_and_gates_no_more_is_worse():
    assert compared(run(judged()), run(judged(gates=False, severity="warn"))).worse


def test_what_did_not_apply_and_fails_without_gating_any_more_is_no_worse():
    freed = judged("FAIL", gates=False, severity="warn")

    assert not compared(run(judged("NOT_APPLICABLE")), run(freed)).worse


@pytest.mark.parametrize("verdict", ["FAIL", "ERROR", "INCONCLUSIVE", "PASS"])
@pytest.mark.parametrize("passed", [True, False])
def test_what_is_new_gates_and_does_not_pass_is_worse_if_the_old_run_passed(verdict, passed):
    old = run(judged(), **{"verdict": "PASS", "exit_code": 0} if passed else {})
    found = compared(old, run(judged(), judged(verdict, id="wall/new[x]")))
    worse = passed and verdict != "PASS"

    assert [one.id for one in found.worse] == ["wall/new[x]"] * worse
    assert ("1 that gates and does not pass is new" in diff_shown.headline(found)) == worse
    assert ("1 is new" in diff_shown.headline(found)) != worse
    assert ("is new and does not pass" in diff_shown.render(found)) == worse


def test_what_is_new_and_only_warns_is_no_worse():
    old = run(judged(), verdict="PASS", exit_code=0)

    assert not compared(old, run(judged(), judged("FAIL", id="wall/new[x]", gates=False, severity="warn"))).worse


def test_a_claim_that_is_worse_than_its_baseline_is_not_shown_as_a_pass():
    found = compared(run(judged()), run(judged(baseline=beside("FAIL"))))
    page = diff_shown.render(found)

    assert "PASS -> FAIL beside the baseline" in diff_shown.text(found)
    assert page.count('class="chip double fail"') == 2  # in the table and on the card
    assert page.count('class="chip pass"') == 2  # what it was


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (run(judged()), run(judged(), seed=8), "seed 7, then 8"),
        (run(judged()), run(judged(audit_version="2")), "version of the audit 1, then 2"),
        (run(judged()), run(judged(), data=[example()["data"][0] | {"sha256": "0" * 64}]), "data 9c1f"),
        (run(judged()), run(judged(measure=claim(0)["measure"] | {"unit": "logit"})), "measure "),
    ],
)
def test_what_is_not_comparable_is_said_and_not_subtracted(old, new, why):
    found = compared(old, new)

    assert [change.paired for change in found.unlike] == [None]
    assert why in found.unlike[0].apart[0]
    assert why in diff_shown.text(found)
    assert "Not comparable" in diff_shown.render(found)


def test_other_weights_are_what_is_compared():
    found = compared(run(judged()), run(judged(), subjects=called("resnet50", sha256="0" * 64)))

    assert found.unlike == ()
    assert any(what == "weights" for what, _, _ in found.provenance)


def test_the_only_models_of_two_runs_are_paired_however_called():
    new = run(judged("FAIL", subject="next"), subjects=called("next"))

    assert [change.worse for change in compared(run(judged()), new).changes] == [True]
    two = new | {"subjects": [*called("next"), *called("other")]}
    assert compared(run(judged()), two).changes == ()


def test_claims_that_come_and_go_are_listed_and_a_pass_that_is_gone_is_worse():
    found = compared(run(judged(id="wall/a[x]")), run(judged(id="wall/b[x]")))

    assert [one.id for one in found.gone] == ["wall/a[x]"]
    assert [one.id for one in found.come] == ["wall/b[x]"]
    assert [one.id for one in found.worse] == ["wall/a[x]"]


def test_a_test_is_reported_only_if_the_new_run_was_tested_beside_the_old():
    tested = run(judged(baseline=beside("FAIL", said="worse, said the test", run="20260102-a1b2")))
    elsewhere = run(judged(baseline=beside("FAIL", said="worse, said the test", run="another")))

    assert "worse, said the test" in diff_shown.text(compared(run(judged()), tested))
    assert "worse, said the test" not in diff_shown.text(compared(run(judged()), elsewhere))
    assert compared(run(judged()), tested).worse


def test_changed_verdicts_come_first_and_then_what_moved_most():
    names = ["wall/still[x]", "wall/little[x]", "wall/much[x]", "wall/turned[x]"]
    old = [judged(id=name) for name in names]
    moved = [[value - by for value in OLD] for by in (0, 0.01, 0.1, 0)]
    new = [judged(id=name, values=values) for name, values in zip(names, moved, strict=True)]
    new[3] |= {"verdict": "FAIL"}

    assert [change.new.id for change in compared(run(*old), run(*new)).changes] == names[::-1]


def test_pictures_of_a_unit_stand_side_by_side():
    old = judged(evidence=[overlay() | {"unit": UNITS[0]}, overlay() | {"unit": UNITS[3]}])
    new = judged("FAIL", values=[value - 0.1 for value in OLD], evidence=[overlay() | {"unit": UNITS[3]}])
    page = diff_shown.render(compared(run(old), run(new)))

    assert page.count('class="frame"') == 4
    assert page.count("data:image") == 2  # both runs kept the same picture and map, which is in the file once
    assert f'aria-label="{UNITS[3]}, old: the saliency map over the image"' in page
    assert f'aria-label="{UNITS[3]}, new: the saliency map over the image"' in page


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_others_reaches_page_or_terminal_as_it_is(text):
    strange = {"id": text, "sentence": text, "reason": text, "subject": text, "units": [text], "values": [0.1]}
    new = run(judged("FAIL") | strange | {"values": [0.0]}, subjects=called(text, spec=text))
    found = compared(run(judged() | strange, subjects=called(text)), new)
    page, told = diff_shown.render(found), diff_shown.text(found)

    assert len(found.changes) == 1
    assert "<script" not in page
    assert "<img src=x" not in page
    assert all(line.isprintable() for line in told.splitlines())


def test_the_command_writes_a_page_and_exits_1_if_what_gates_got_worse(tmp_path, capsys):
    for name, verdict in (("old", "PASS"), ("new", "FAIL")):
        (tmp_path / f"{name}.json").write_text(json.dumps(run(judged(verdict))), encoding="utf-8")
    old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")

    assert main(["diff", old, new]) == 1
    assert "1 claim that gates got worse" in capsys.readouterr().out
    assert (tmp_path / "diff.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["diff", new, old, "-o", str(tmp_path / "back.html")]) == 0
    assert main(["diff", old, str(tmp_path / "absent.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_page_asks_nobody_and_runs_nothing():
    page = diff_shown.render(diff(results(), results()))

    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
