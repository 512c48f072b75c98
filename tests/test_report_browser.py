"""The pages as a browser has them: quiet, alone, accessible, and whole without JavaScript."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from reports import diff_shown, html, trend_shown
from reports.diff import Diff
from reports.schema import Results
from reports.trend import Trend, trend
from tests.test_reports_diff import OLD, UNITS, called, compared, judged, run
from tests.test_reports_example import beside, claim, overlay, results
from tests.test_reports_trend import saved

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PAGES = ("report", "diff", "trend")


def cannot(what: str) -> NoReturn:
    """Skips, but not in CI: there a browser that is missing would be a check that is missing."""
    said = f"{what}; on Debian: apt-get install chromium, elsewhere: python -m playwright install chromium"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        cannot("playwright is not installed (pip install axe-playwright-python)")
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), None) or playwright.chromium.executable_path
        if not Path(found).exists():
            cannot("no Chromium is installed")
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=found, args=root)
        yield opened
        opened.close()


def made() -> Results:
    """Every verdict, every kind of evidence, a waiver, a baseline, and claims that do not apply for one reason."""
    waiver = {"bound": -0.5, "reason": "known", "owner": "A. Name", "expires": "2030-01-01"}
    waiver |= {"holds": True, "said": "is waived until then"}
    waived = claim(1, id="deletion/waived[cam1]", severity="gate", gates=True, waiver=waiver)
    worse = claim(0, id="deletion/worse[cam0]", baseline=beside("FAIL"))
    return results([*(claim(index) for index in range(7)), waived, *(claim(index) for index in (3, 8, 13)), worse])


def two_runs() -> Diff:
    """Every part of a comparison: claims that turned, moved, stayed, came, went and cannot be compared."""
    seen = [overlay() | {"unit": unit} for unit in UNITS[:2]]
    lower, higher = ([value + by for value in OLD] for by in (-0.1, 0.05))
    names = ("turned", "mended", "moved", "still", "unlike", "gone")
    old = [judged("FAIL" if name == "mended" else "PASS", id=f"wall/{name}[x]", evidence=seen) for name in names]
    new = [
        judged("FAIL", id="wall/turned[x]", values=lower, evidence=seen[:1]),
        judged(id="wall/mended[x]", values=higher, evidence=seen),
        judged(id="wall/moved[x]", values=lower),
        judged(id="wall/still[x]"),
        judged(id="wall/unlike[x]", audit_version="2"),
        claim(4, id="wall/come[x]"),
    ]
    return compared(run(*old), run(*new, subjects=called("resnet50", sha256="0" * 64)))


def history(folder: Path) -> Trend:
    """Every mark of a history: other weights, a break, a claim that was not judged, a file that is none."""
    sides = claim(6)  # has two margins
    saved(folder, 1, claim(0), sides)
    saved(folder, 2, claim(0, verdict="INCONCLUSIVE"), sha="0" * 64)
    saved(folder, 3, claim(0, verdict="FAIL"), sides, sha="0" * 64, seed=8)
    saved(folder, 4, claim(0, verdict="ERROR", estimate=None), sides, sha="0" * 64, seed=8, interrupted=True)
    (folder / "torn").mkdir()
    (folder / "torn" / "results.json").write_text("{", encoding="utf-8")
    return trend(folder)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    html.write(made(), folder / "report.html")
    (folder / "diff.html").write_text(diff_shown.render(two_runs()), encoding="utf-8")
    (folder / "trend.html").write_text(trend_shown.render(history(folder)), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def report(pages: dict[str, Path]) -> Path:
    return pages["report"]


@contextmanager
def opened(browser: Any, path: Path, **how: Any) -> Iterator[tuple[Any, list[str]]]:
    """The page, and what was heard of it that should not have been: complaints, and requests for anything else."""
    context = browser.new_context(**{"viewport": DESKTOP} | how)
    page, heard = context.new_page(), []
    page.on("console", lambda said: heard.append(f"console {said.type}: {said.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda asked: heard.append(f"request: {asked.url[:200]}") if asked.url != address else None)
    address = path.as_uri()
    page.goto(address)
    yield page, heard
    context.close()


def unfold(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")


def outside(heard: list[str]) -> list[str]:
    return [one for one in heard if not one.startswith("request: data:")]


def violations(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.mark.parametrize(
    ("name", "title", "frames"),
    [("report", "resnet50 FAILS", 4), ("diff", "resnet50: 1 claim that gates got worse", 4), ("trend", "4 runs", 0)],
    ids=PAGES,
)
def test_a_page_is_quiet_and_asks_for_nothing(
    browser: Any, pages: dict[str, Path], name: str, title: str, frames: int
) -> None:
    with opened(browser, pages[name]) as (page, heard):
        unfold(page)
        broken = page.evaluate("[...document.querySelectorAll('use')].filter(one => !one.getBBox().width).length")

        assert page.title().startswith(title)
        assert page.locator(".frame").count() >= frames
        assert broken == 0
        assert outside(heard) == []


def test_what_should_not_be_heard_would_be_heard(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><img src='http://127.0.0.1:9/x.png'><script>console.error('x'); nothing()</script>")
    with opened(browser, page) as (_, heard):
        kinds = {one.partition(":")[0] for one in outside(heard)}

    assert kinds == {"request", "console error", "error"}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESKTOP), ("dark", PHONE)], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    browser: Any, pages: dict[str, Path], name: str, scheme: str, viewport: dict[str, int]
) -> None:
    with opened(browser, pages[name], color_scheme=scheme, viewport=viewport, bypass_csp=True) as (page, _):
        unfold(page)

        assert violations(page) == []


def test_axe_finds_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><html lang='en'><title>x</title><main><img src='data:,'><h1>x</h1></main></html>")
    with opened(browser, page) as (bad, _):
        assert [one.partition(" ")[0] for one in violations(bad)] == ["image-alt"]


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_phone(browser: Any, pages: dict[str, Path], name: str) -> None:
    with opened(browser, pages[name], viewport=PHONE) as (page, _):
        unfold(page)

        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_all_of_it_is_there_without_javascript(browser: Any, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False) as (page, heard):
        text = page.locator("body").text_content()

        assert all(one.sentence in text and one.id in text for one in made().claims)
        assert page.locator("#claim-1 + p, #claim-1 + .reason").count() == 1
        assert outside(heard) == []


@pytest.mark.parametrize(
    ("name", "claims", "folded"),
    [
        ("diff", ("turned", "mended", "moved", "unlike", "gone", "come"), "details.card:not(.fail)"),
        ("trend", ("cam0", "cam6"), "details.numbers-of"),
    ],
    ids=PAGES[1:],
)
def test_other_pages_are_whole_without_javascript_too(
    browser: Any, pages: dict[str, Path], name: str, claims: tuple[str, ...], folded: str
) -> None:
    with opened(browser, pages[name], java_script_enabled=False) as (page, heard):
        told = page.locator("main .id").all_text_contents()
        last = page.locator(folded).last
        assert all(any(claim in one for one in told) for claim in claims)
        assert not last.locator("table").is_visible()
        last.locator("summary").focus()
        page.keyboard.press("Enter")

        assert last.locator("table").is_visible()
        assert outside(heard) == []


def test_a_link_and_a_key_open_a_folded_claim_without_javascript(browser: Any, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False) as (page, _):
        by_link, by_key = (page.locator(f"details.card:has(#claim-{number})") for number in (1, 5))
        assert not by_link.locator(".columns").is_visible()
        page.locator(".claims a[href='#claim-1']").click()
        assert by_link.locator(".columns").is_visible()

        assert not by_key.locator(".columns").is_visible()
        by_key.locator("summary").focus()
        page.keyboard.press("Enter")
        assert by_key.locator(".columns").is_visible()


def test_the_first_key_leads_past_the_head(browser: Any, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False) as (page, _):
        skip = page.locator("a.skip")
        assert skip.bounding_box()["y"] < 0
        page.keyboard.press("Tab")
        assert skip.bounding_box()["y"] >= 0
        page.keyboard.press("Enter")
        assert page.url.endswith("#claims")


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("report", "details.card:not([open]) .columns"),
        ("diff", "details.card:not([open]) .beside"),
        ("trend", "details.numbers-of table"),
    ],
    ids=PAGES,
)
def test_what_is_folded_is_printed(browser: Any, pages: dict[str, Path], name: str, folded: str) -> None:
    with opened(browser, pages[name], color_scheme="dark") as (page, _):
        figures = page.locator(folded)
        assert figures.count() > 0
        assert not figures.first.is_visible()
        page.emulate_media(media="print")

        assert figures.first.is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.pdf(format="A4").startswith(b"%PDF")
