import re
from html import unescape
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from reports import cells

KEYS = ("audit_verdict", "audit_estimate", "audit_margin", "audit_claim", "audit_reason", "audit_beside")


def test_headers_are_sortable_columns():
    assert cells.header_cells()[0] == '<th class="sortable" data-column-type="verdict">Verdict</th>'
    assert len(cells.header_cells()) == len(cells.row_cells({})) == 3


def test_a_row_shows_verdict_estimate_and_margin():
    row = cells.row_cells({"audit_verdict": "PASS", "audit_estimate": "0.31 [0.27, 0.35]", "audit_margin": "> 0.05"})

    assert row == [
        '<td class="col-verdict">PASS</td>',
        '<td class="col-estimate">0.31 [0.27, 0.35]</td>',
        '<td class="col-margin">&gt; 0.05</td>',
    ]


def test_what_passes_by_itself_and_not_beside_its_baseline_says_so():
    row = cells.row_cells({"audit_verdict": "PASS", "audit_beside": "worse than the baseline"})

    assert row[0] == '<td class="col-verdict">PASS, worse than the baseline</td>'


def test_a_test_that_is_no_audit_gets_empty_cells():
    assert [re.fullmatch(r'<td class="col-\w+">(.*)</td>', cell)[1] for cell in cells.row_cells({})] == [""] * 3


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(derandomize=True, deadline=None)
def test_any_property_stays_on_one_line_inside_its_cell(text):
    for cell in cells.row_cells(dict.fromkeys(KEYS, text)):
        seen = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, _, seen=seen: seen.append(tag)
        parser.feed(cell)
        found = re.search(r"<td.*?>(.*?)</td>", cell)  # how pytest-html reads it

        assert seen == ["td"]
        assert len(cell.splitlines()) == 1
        both = cell.startswith('<td class="col-verdict"')  # the claim by itself, and beside its baseline
        assert unescape(found[1]) == " ".join((f"{text}, {text}" if text and both else text).split())
