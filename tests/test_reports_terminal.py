import re

from hypothesis import given, settings
from hypothesis import strategies as st

from reports import terminal, wording
from tests.test_reports_example import claim, results


def test_the_table_is_narrow_aligned_and_ends_in_the_verdict():
    lines = terminal.table(results()).splitlines()

    assert max(map(len, lines)) <= terminal.WIDTH
    assert lines[-1] == wording.verdict_sentence(results())
    assert lines[0].split()[:2] == ["verdict", "claim"]
    starts = {line.index("deletion/") for line in lines if "deletion/" in line}
    assert len(starts) == 1


def test_a_row_holds_verdict_claim_estimate_margin_n_and_severity():
    row = terminal.table(results([claim()])).splitlines()[2]

    assert re.fullmatch(r"PASS +deletion/beats_random\[cam0\] +0\.31 \[0\.27, 0\.35\] +> 0\.05 +12 +gate", row)


def test_an_inconclusive_row_says_what_it_would_need():
    assert "needs about 340 images" in terminal.table(results([claim(2)], verdict="INCONCLUSIVE", exit_code=6))


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
