"""A report of many claims and pictures stays small, drops nothing in silence, and shows first what matters most."""

import re

import pytest

from benchmarks.report_size import run
from reports import html
from reports.galleries import galleries
from reports.pictures import Album
from reports.schema import Results

LARGEST = 10_000_000
RANKS = ("worst", "best")


@pytest.fixture(scope="module")
def many() -> Results:
    return run(300, RANKS)


@pytest.mark.slow
def test_a_report_of_300_claims_is_small_and_says_what_it_leaves_out(many: Results) -> None:
    page = html.render(many)
    shown = page.count('<figure class="pair ')
    left_out = sum(map(int, re.findall(r'class="left-out">(\d+) ', page)))

    assert len(page.encode()) < LARGEST
    assert page.count('<tr class="row">') == page.count('<details class="card ') == 300
    assert shown + left_out == 300 * len(RANKS)
    assert shown > 300
    assert left_out > 0


@pytest.mark.slow
def test_every_claim_shows_its_worst_before_any_shows_its_best(many: Results) -> None:
    numbered = list(enumerate(many.claims))
    made = galleries(numbered, Album(room=5_500_000))
    with_best = [number for number, gallery in made.items() if len(gallery.pictures) == len(RANKS)]

    assert all(gallery.pictures[0].overlay.role == "worst" for gallery in made.values())
    assert 0 < len(with_best) < 300
    held_back = [n for n, claim in numbered if claim.gates and claim.verdict in ("FAIL", "INCONCLUSIVE")]
    assert set(held_back) <= set(with_best)


def test_without_room_the_pictures_are_counted() -> None:
    page = html.render(run(1), room=100)

    assert "6 pictures of this claim are in results.json and not here" in page
    assert "<image" not in page
