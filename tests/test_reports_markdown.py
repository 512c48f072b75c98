import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports import markdown, wording
from tests.test_reports_example import beside, claim, results
from tests.test_reports_html import HOSTILE
from tests.test_reports_terminal import not_applicable

OURS = {"h2", "h3", "p", "code", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "br", "ul", "li"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def spans(line: str) -> str:
    """What is left of a line of Markdown without its code spans, found as CommonMark finds them."""
    left, at = "", 0
    while found := re.compile("`+").search(line, at):
        left += line[at : found.start()]
        end = re.compile(f"(?<!`){found.group()}(?!`)").search(line, found.end())
        if end is None:
            return left + line[found.start() :]
        at = end.end()
    return left + line[at:]


def test_the_verdict_stands_first_and_what_gates_comes_before_what_holds():
    text = markdown.summary(results([claim(), claim(1, severity="gate", gates=True)], verdict="FAIL", exit_code=1))

    assert wording.verdict_sentence(results([claim(1)], verdict="FAIL", exit_code=1)).split()[0] in text.splitlines()[0]
    assert text.index("What gates and does not pass") < text.index("cam1") < text.index("claims that hold")
    assert text.index("claims that hold") < text.index("cam0")


def test_what_passes_by_itself_and_not_beside_its_baseline_has_no_sign_of_a_pass():
    text = markdown.summary(results([claim(baseline=beside("FAIL"))]))
    gates = text[text.index("What gates and does not pass") :]

    assert "| ❌ Fail beside the baseline | `deletion/beats_random[cam0]`" in gates
    assert "| | `Pass by itself; worse than the baseline then` |" in gates
    assert markdown.SIGNS["PASS"] not in text


def test_a_run_that_passes_and_does_not_end_with_0_has_no_sign_of_a_pass():
    head, _, exit_code = markdown.summary(results([claim()], verdict="PASS", exit_code=1)).splitlines()[:3]

    assert markdown.SIGNS["PASS"] not in head
    assert "something beside the claims failed" in exit_code
    assert "goes on" not in exit_code


def test_every_row_of_a_table_has_its_six_cells():
    text = markdown.summary(results([*(claim(index) for index in range(10)), *(not_applicable(i) for i in range(4))]))
    rows = [line for line in text.splitlines() if line.startswith("|")]

    assert rows
    assert {len(re.findall(r"\|", row)) for row in rows} == {7}
    assert "4 claims do not apply" in text


def test_a_long_table_is_cut_and_says_so():
    text = markdown.summary(results([claim(0, id=f"deletion/beats_random[cam{index}]") for index in range(80)]))

    assert "and 30 more, in the report" in text


@pytest.mark.parametrize(
    "text", [*HOSTILE, "`", "``` | ```", "@everyone https://evil [x](y) ![i](j)", "a|b\\|c", "\n# x"]
)
def test_nothing_of_others_leaves_its_code_span(text):
    found = markdown.summary(results([claim(0, id=text, sentence=text, subject=text), claim(2, reason=text)]))

    assert {line.count("|") for line in found.splitlines() if line.startswith("|")} == {7}
    for line in found.splitlines():
        for sign in ("<script", "@everyone", "https://", "![", "](", "<img"):
            assert sign not in spans(line), line


class Tags(HTMLParser):
    """Every element of a page, and the names of its attributes."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        self.found |= {tag, *(f"@{name}" for name, _ in attrs)}


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        "a|b`c``|d",
        "<details><b>x",
        "* x\n\n<script>",
        "\N{RIGHT-TO-LEFT OVERRIDE}\x1b[31m",
        "[x](javascript:y)",
    ],
)
def test_a_reader_of_markdown_finds_no_element_but_ours(text):
    strange = {"id": text, "sentence": text, "subject": text, "reason": text}
    made = [
        claim(0, **strange),
        claim(1, **strange),
        claim(2, **strange),
        *(not_applicable(i) | strange for i in range(4)),
    ]
    source = markdown.summary(results(made, not_tested=[text, text]))
    page = Tags()
    page.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(source))

    assert page.found <= {*OURS, "strong", "@style"}
    assert {"table", "code", "details", "li"} <= page.found
    assert all(line.isprintable() for line in source.splitlines())


def test_a_summary_fits_into_a_comment_whatever_the_claims_say():
    long = "x" * 5000
    made = [claim(index, id=f"a/{long}[{index}]", sentence=long, reason=long) for index in range(300)]
    text = markdown.summary(results(made, not_tested=[long] * 400))

    assert len(text) <= 65_536
    assert "more, in the report" in text


@given(TEXT)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_a_code_span_holds_any_text(text):
    assert spans(f"a {markdown.code(text)} b") == "a  b"
    assert "\n" not in markdown.code(text)
