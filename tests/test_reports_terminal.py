import re

from hypothesis import given, settings
from hypothesis import strategies as st

from reports import terminal, wording
from tests.test_reports_example import beside, claim, results


def test_the_table_is_narrow_aligned_and_ends_in_the_verdict():
    lines = terminal.table(results()).splitlines()

    assert max(map(len, lines)) <= terminal.WIDTH
    assert " ".join(lines[lines.index("") + 1 :]) == wording.verdict_sentence(results())
    assert lines[0].split()[:2] == ["verdict", "claim"]
    starts = {line.index("deletion/") for line in lines if "deletion/" in line}
    assert len(starts) == 1


def test_a_row_holds_verdict_claim_estimate_margin_n_and_severity():
    row = terminal.table(results([claim()])).splitlines()[2]

    assert re.fullmatch(r"PASS +deletion/beats_random\[cam0\] +0\.31 \[0\.27, 0\.35\] +> 0\.05 +12 +gate", row)


def test_an_inconclusive_row_says_what_it_would_need():
    assert "needs about 340 images" in terminal.table(results([claim(2)], verdict="INCONCLUSIVE", exit_code=6))


def test_a_row_that_passes_by_itself_and_not_beside_its_baseline_does_not_say_pass():
    lines = terminal.table(results([claim(baseline=beside("FAIL"))]), colour=True).splitlines()

    assert lines[2].startswith(f"\033[{terminal.COLOURS['FAIL']}mFAIL")
    assert lines[3].strip() == "Pass by itself; worse than the baseline then"


def test_a_run_that_passes_and_does_not_end_with_0_says_so_last():
    text = terminal.table(results([claim()], verdict="PASS", exit_code=1))

    assert text.endswith("holds, but the run ended with exit code 1.")


def not_applicable(number, reason="clip scores captions, and the question is about classes", **changes):
    names = ("bias", "wall", "wall", "deletion", "bias")
    made = claim(number, verdict="NOT_APPLICABLE", estimate=None, values=[], units=[], reason=reason, n_needed=None)
    return made | {"id": f"{names[number]}/x{number}", "audit": names[number]} | changes


def test_what_does_not_apply_for_one_reason_is_told_in_one_line():
    same = [not_applicable(number) for number in range(4)]
    lines = terminal.table(results([claim(), *same, not_applicable(4, reason="another")])).splitlines()
    told = [line for line in lines if line.startswith("NOT APPLICABLE")]

    assert [line.split()[2] for line in told] == ["bias/x4", "4"]
    assert "4 claims of bias, wall and deletion: clip scores captions, and the question is about classes" in told[1]
    assert "x0" not in "".join(lines)
    assert max(map(len, lines)) <= terminal.WIDTH


def test_two_that_do_not_apply_keep_their_rows():
    text = terminal.table(results([claim(), not_applicable(0), not_applicable(1)]))

    assert "bias/x0" in text
    assert "wall/x1" in text


def test_colour_changes_nothing_but_colour():
    plain, painted = terminal.table(results()), terminal.table(results(), colour=True)

    assert painted != plain
    assert re.sub(r"\033\[[0-9;]*m", "", painted) == plain


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_no_name_breaks_the_table_or_moves_the_cursor(name):
    lines = terminal.table(results([claim(id=name, subject=name)])).split("\n")

    assert len(lines) == 5
    assert max(map(len, lines)) <= terminal.WIDTH
    assert all(line.isprintable() for line in lines)
