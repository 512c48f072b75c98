import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import diff_shown, html, trend_shown
from reports.diff import diff
from reports.trend import trend
from tests.test_reports_example import VERDICTS, beside, claim, example, overlay, results
from tests.test_reports_terminal import not_applicable

ROOT = Path(__file__).parents[1]
FIXED = {
    "abilities",
    "type",
    "role",
    "kind",
    "severity",
    "verdict",
    "direction",
    "schema_version",
    "image",
    "saliency",
    "must",
}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title></svg></details><iframe src=//evil>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- ",
    "]]><![CDATA[",
    "&lt;b&gt; $\\frac{1}{0}$ \\",
    "javascript:alert(1)",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe \x1b[31m 猫",
]


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text between them."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.tags]


def filled(value: Any, text: str, key: str = "") -> Any:
    """The same data with every free string, and every name in a mapping that the user fills, replaced."""
    if isinstance(value, dict):
        if key in ("series", "versions"):
            return {text: filled(next(iter(value.values())), text, text)}
        return {name: filled(item, text, name) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, text, key) for item in value]
    return text if isinstance(value, str) and key not in FIXED else value


def small() -> dict[str, Any]:
    return example([claim(0, evidence=[overlay(), claim(0)["evidence"][4]]), claim(2), claim(4)])


@pytest.mark.parametrize("text", HOSTILE)
def test_no_string_of_others_changes_the_page(text):
    hostile = Page(html.render(results(**filled(example([claim(0), claim(2), claim(4)]), text))))
    harmless = Page(html.render(results(**filled(example([claim(0), claim(2), claim(4)]), "x"))))

    assert hostile.skeleton == harmless.skeleton
    assert html._inert(text) in hostile.text
    assert not html.UNSEEN.search(hostile.text)


HARMLESS = Page(html.render(results(**filled(small(), "x")))).skeleton


# no backtick: between two of them the report sets `code`, which is a tag more
@given(st.text(st.characters(exclude_characters="`", exclude_categories=["Cs"]), min_size=1))
@settings(derandomize=True, deadline=None, max_examples=40)
def test_no_text_at_all_changes_the_page(text):
    assert Page(html.render(results(**filled(small(), text)))).skeleton == HARMLESS


def test_backticks_set_code_and_stay_escaped():
    page = html.render(results([claim(reason="see `<b>` and one ` more")]))

    assert "see <code>&lt;b&gt;</code> and one  more" in page


def test_the_page_needs_nothing_but_itself():
    source = html.render(results())
    page = Page(source)
    loaded = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in loaded]

    assert addresses
    assert all(address.startswith(("#", "data:image/jpeg;base64,", "data:image/webp;base64,")) for address in addresses)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"@import|url\((?!#)", source)
    assert "default-src 'none'" in source


def test_every_anchor_leads_somewhere_and_no_id_is_used_twice():
    page = Page(html.render(results()))
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    targets = {attributes["href"][1:] for tag, attributes in page.tags if tag in ("a", "use")}

    assert max(ids.values()) == 1
    assert targets
    assert targets <= set(ids)


def test_the_verdict_stands_first():
    page = html.render(results())

    assert page.index("<h1>resnet50 FAILS: ") < page.index("Exit code 1") < page.index('id="claims"')
    assert page.index('id="claims"') < page.index('id="audit-0"') < page.index('id="not-tested"')


def test_each_verdict_has_its_own_colour():
    style = (html.TEMPLATES / "style.css").read_text(encoding="utf-8")
    colours = [re.search(rf"--{verdict.lower()}: (#\w+)", style)[1] for verdict in VERDICTS]

    assert len(set(colours)) == 5


def test_every_claim_is_in_the_table_and_has_a_section():
    page = Page(html.render(results()))
    classes = [attributes.get("class", "") for _, attributes in page.tags]

    told = sum(one.verdict != "NOT_APPLICABLE" for one in results().claims)  # those share one reason
    assert classes.count("row") == told == 16
    assert sum((name or "").startswith("card ") for name in classes) == told


def test_claims_without_an_estimate_render():
    page = Page(html.render(results([claim(3), claim(4)], verdict="INCONCLUSIVE", exit_code=6)))

    assert "No estimate; needs > 0.05" in page.text
    assert "No value was measured" in page.text


def test_null_values_are_counted():
    page = Page(html.render(results([claim(values=[0.1, None, 0.2, 0.0], units=["a", "b", "c", "d"])])))

    assert "2 of 3 single values do; 1 more gave no value" in page.text


def test_numbers_stand_in_words():
    page = Page(html.render(results()))

    assert "0.31 [0.27, 0.35], 99.2 % simultaneous interval, n = 12; needs > 0.05" in page.text
    assert "needs about 340 images" in page.text


def test_whoever_answers_for_a_waived_claim_is_named():
    waiver = {"bound": -0.5, "reason": "shown to nobody", "owner": "A. Name", "expires": "2030-01-01"}
    waived = claim(1, severity="gate", gates=True, waiver=waiver | {"holds": True, "said": "is waived until then"})
    past = claim(
        3, severity="gate", gates=True, waiver=waiver | {"holds": False, "said": "was waived; that day is past"}
    )

    page = Page(html.render(results([waived, past, claim(0)])))

    assert "1 of them waived" in page.text
    assert page.text.count("shown to nobody") == 2
    assert "This claim is waived until then." in page.text
    assert "This claim was waived; that day is past." in page.text
    assert "no: it was waived; that day is past" in page.text
    assert "Waivers" not in Page(html.render(results([claim(0)]))).text


def test_claims_that_do_not_apply_for_one_reason_are_listed_together_and_have_no_section():
    same = [not_applicable(number) for number in range(4)]
    page = Page(html.render(results([claim(0), *same])))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]

    assert "4 claims of bias, wall and deletion: clip scores captions" in page.text
    assert all(one["id"] in page.text for one in same)
    assert [name for name in ids if name and name.startswith("claim-")] == ["claim-0"]


def test_what_was_not_tested_is_listed():
    text = Page(html.render(results())).text
    last = text[text.index("What was not tested", text.index("Run it again")) :]

    assert "hijack: not selected" in last
    assert "n01/broken.jpg truncated" in last
    assert "a pickle was loaded" in last


def test_an_audit_without_documentation_keeps_its_claims():
    page = Page(html.render(results([claim(audit="unknown")], audits=[])))

    assert "Audit unknown" in page.text
    assert claim()["sentence"] in page.text


def test_a_run_without_anything_renders():
    empty = results([], subjects=[], data=[], audits=[], not_tested=[], verdict="INCONCLUSIVE", exit_code=6)

    assert "The run is INCONCLUSIVE: not everything that gates was tested." in html.render(empty)


def test_an_interrupted_run_says_so():
    made = example()
    made["run"] |= {"interrupted": True}

    assert "This run was interrupted" in html.render(results(**made))
    assert "This run was interrupted" not in html.render(results())


def test_a_broken_picture_is_named_and_costs_nothing_else():
    page = Page(html.render(results([claim(evidence=[overlay() | {"image": "bm90IGEgcGljdHVyZQ=="}])])))

    assert "The picture in results.json could not be read." in page.text
    assert "great white shark" in page.text


def test_a_report_is_the_same_bytes_each_time():
    assert html.render(results()) == html.render(results())


def test_write_leaves_the_rendered_page(tmp_path):
    html.write(results(), tmp_path / "report.html")

    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html.render(results())
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_reports_load_nothing_of_ours():
    probe = (
        "import sys, reports.html, reports.terminal, reports.cells, reports.__main__; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'camcore', 'audits', 'fixtures'}))"
    )

    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_what_keeps_the_release_back_stands_before_all_else_and_failures_first():
    open_ = claim(2, severity="gate", gates=True)
    text = html.render(results([open_, claim(0), claim(1, severity="gate", gates=True), claim(1)]))
    held = text[text.index("What keeps the release back") : text.index('id="contents"')]

    assert re.findall(r'href="#claim-(\d)"', held) == ["2", "0"]
    assert "What keeps the release back" not in html.render(results([claim(0)], not_tested=[]))


def held_back(page):
    """The section that says what does, with what stands in it."""
    return page[page.index('<section class="held"') : page.index('id="contents"')]


def test_what_fails_beside_its_baseline_only_has_no_chip_of_a_pass_and_its_reason_is_given():
    page = html.render(results([claim(0, baseline=beside("FAIL"))], not_tested=[]))
    held = held_back(page)

    assert '<span class="chip double fail">' in held
    assert "beside the baseline" in held
    assert "Pass by itself; worse than the baseline then" in held
    assert 'class="chip pass"' not in page  # neither in the tally, nor in the table, nor on the card
    assert "pass by itself" in page[page.index('id="claims"') :]
    assert '<details class="card fail"' in page


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
def test_what_was_not_tested_is_among_what_keeps_the_release_back(verdict):
    lines = [f"wall/claim{number}: no verdict" for number in range(html.MOST_UNTESTED + 3)]
    claims = [claim(1, severity="gate", gates=True)] if verdict == "FAIL" else [claim(0)]
    held = held_back(html.render(results(claims, verdict=verdict, exit_code=6, not_tested=lines)))

    assert [line in held for line in lines] == [True] * html.MOST_UNTESTED + [False] * 3
    assert 'And 3 more: see <a href="#not-tested">' in held
    assert ('href="#claim-0"' in held) == (verdict == "FAIL")


def test_what_was_not_tested_of_a_run_that_passes_keeps_nothing_back():
    page = html.render(results([claim(0)], verdict="PASS", exit_code=0, not_tested=["wall/warns: no verdict"]))

    assert "What keeps the release back" not in page
    assert "not everything was tested" in page


def test_a_run_that_passes_and_does_not_end_with_0_is_not_green():
    page = html.render(results([claim(0)], verdict="PASS", exit_code=1))

    assert '<header class="hero inconclusive">' in page
    assert "something beside the claims failed" in page
    assert "goes on" not in page
    assert '<header class="hero pass">' in html.render(results([claim(0)], verdict="PASS", exit_code=0))


def test_every_head_of_every_table_says_what_it_heads(tmp_path):
    waiver = {"bound": 0.0, "reason": "so", "owner": "me", "expires": "2030-01-01", "holds": True, "said": "waived"}
    made = results([claim(0), claim(0), *(claim(index, waiver=waiver) for index in range(1, 5))])
    other = example([claim(1, id=claim(0)["id"]), claim(2, audit_version="2")], subjects=made.model_dump()["subjects"])
    other["run"] |= {"seed": 8}
    (tmp_path / "results.json").write_text(made.model_dump_json(), encoding="utf-8")
    pages = [
        html.render(made),
        diff_shown.render(diff(made, results(**other))),
        trend_shown.render(trend(tmp_path)),
    ]

    for page in map(Page, pages):
        heads = [attributes for tag, attributes in page.tags if tag == "th"]
        assert heads
        assert all("scope" in attributes for attributes in heads)


def test_of_many_claims_that_keep_a_release_back_the_rest_is_counted():
    text = html.render(results([claim(1, severity="gate", gates=True)] * 15))

    assert text.count('<span class="numbers">') == html.MOST_HELD == 12
    assert "And 3 more" in text


def test_an_audit_says_how_often_it_is_wrong_itself_and_a_claim_too():
    text = Page(html.render(results([claim(0)]))).text

    rates = "Put to models whose truth is known, over 20 seeds: where a defect was planted, 18 of 20 verdicts said so"
    assert text.count(rates) == 2  # the audit and the claim
    assert "label_blind the label is never looked at" in text
    assert "18 of 20" in text
    assert "Pass 2" in text
    assert "Put to models" not in Page(html.render(results([claim(0)], audits=[]))).text


@pytest.mark.parametrize(("views", "columns"), [(1, 3), (2, 2), (4, 4), (5, 3)])
def test_the_pictures_of_one_image_stand_in_one_row(views, columns):
    evidence = [overlay() | {"unit": unit} for unit in ("a", "b") for _ in range(views)]
    assert f"--columns:{columns}" in html.render(results([claim(evidence=evidence)]))
