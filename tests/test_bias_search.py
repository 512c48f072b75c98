"""What the search for bias finds, on which pictures, and what is left to confirm it on."""

import pytest
import torch

from audits import test_bias as audit
from audits.bias_scan import (
    LEAST,
    NAMED,
    refuse_untried,
    scan,
    to_search,
    turned,
    unseen,
    unseen_of_others,
)
from camcore.cost import metered
from camcore.errors import Unreliable
from camcore.images import load
from fixtures.artefacts import carrying, covered
from fixtures.controls import find_control
from fixtures.datasets.scenes import scenes
from tests.stickers import FEW, PLACED, TAUGHT, dataset, mostly_taught, searched, subject


def test_the_search_finds_what_was_taught() -> None:
    strongest = searched(8.0).strongest[0]

    assert strongest.suspect.name == "yellow square, top left"
    assert strongest.label == TAUGHT
    assert strongest.pull > 0.5
    assert strongest.p < 0.01


def test_the_search_finds_little_where_nothing_was_taught() -> None:
    strongest = searched(0.0).strongest[0]

    assert strongest.pull < 0.1


def test_the_search_is_the_mean_gain_over_images_of_other_classes() -> None:
    asked, data, suspect = subject(2.0), dataset(), FEW[0]
    found = next(one for one in searched(2.0).strongest if one.suspect is suspect and one.label == TAUGHT)
    images = load(data, data.ids[:20], asked.geometry, seed=0, device=asked.device)
    with torch.no_grad():
        gains = [asked.logits(make(images.images, suspect)).softmax(1)[:, TAUGHT] for make in (carrying, covered)]
    others = images.labels != TAUGHT

    assert found.pull == pytest.approx(float((gains[0] - gains[1])[others].mean()), abs=1e-6)


def test_the_search_does_not_depend_on_the_batch_size() -> None:
    one, other = searched(2.0, chunk=3), searched(2.0, chunk=20)

    assert [(each.suspect.name, each.label) for each in one.strongest] == [
        (each.suspect.name, each.label) for each in other.strongest
    ]
    assert one.strongest[0].pull == pytest.approx(other.strongest[0].pull, abs=1e-6)


def test_the_search_asks_once_for_each_suspect_and_once_for_each_outline() -> None:
    asked, data = subject(), dataset()
    with metered() as cost:
        found = scan(asked, data, data.ids[:10], FEW, seed=0, chunk=4)

    assert cost.forwards == 10 * (4 + 3 + 1)  # both squares cover the same pixels; and the pictures as they are
    assert cost.backwards == 0
    assert found.tried == 4 * 5
    assert len(found.strongest) == NAMED


def test_pairs_are_counted_into_the_p_value() -> None:
    asked, data = subject(8.0), dataset()
    few = scan(asked, data, data.ids[:20], FEW[:1], seed=0, chunk=4).strongest[0]
    many = searched(8.0).strongest[0]

    assert many.p == pytest.approx(4 * few.p)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="6 images are too few to search for bias, at least 8 of other classes"):
        searched(0.0, count=6)


def test_what_is_found_is_confirmed_on_other_images_of_other_classes() -> None:
    data, found = dataset(), searched(8.0)
    left = unseen_of_others(data, found)

    assert not set(left.ids) & set(found.searched)
    assert TAUGHT not in left.labels
    assert len(left) == 8  # of ten that were left, two are of the class
    assert len(unseen(data, found)) == 10


@pytest.mark.parametrize(("rare", "taken"), [(30, LEAST), (24, LEAST), (12, 4), (2, 0)])
def test_enough_pictures_of_other_classes_are_searched_or_a_third_of_them(rare: int, taken: int) -> None:
    data = mostly_taught(rare)
    chosen = to_search(data, data.ids, 20)

    assert len(chosen) == len(set(chosen)) == 20
    assert sum(data.label(one) != TAUGHT for one in chosen) == taken
    assert chosen[: 20 - taken] == list(data.ids[: 20 - taken])


def test_where_classes_are_even_the_first_are_searched() -> None:
    data = dataset()

    assert to_search(data, data.ids, 20) == list(data.ids[:20])


def test_what_pulls_towards_the_class_that_nearly_all_pictures_are_of_is_found() -> None:
    asked, data = subject(8.0), mostly_taught(30)
    found = scan(asked, data, to_search(data, data.ids, 20), FEW, seed=0, chunk=4)

    assert (found.strongest[0].suspect.name, found.strongest[0].label) == ("yellow square, top left", TAUGHT)
    assert (found.untried, found.tried) == ((), 4 * 5)
    refuse_untried(data, found)


@pytest.mark.parametrize("rare", [0, 6, 21])
def test_where_too_few_are_of_other_classes_what_pulls_is_not_judged_and_what_decides_is(rare: int) -> None:
    asked, data = subject(8.0), mostly_taught(rare)
    found = scan(asked, data, to_search(data, data.ids, 20), FEW, seed=0, chunk=4)

    assert (found.untried, found.tried) == ((TAUGHT,), 4 * 4)
    with pytest.raises(Unreliable, match=r"for 'class 3' nothing was tried: .* gains most: \d\.\d\d for 'class \d'"):
        audit.to_confirm(data, found, "pull")
    assert len(audit.to_confirm(data, found, audit.TURNED)) == 70


def test_a_border_may_decide_and_what_veils_the_picture_may_not() -> None:
    data = scenes(12, seed=7)
    framed = [PLACED[name] for name in ("watermark", "white border")]
    found = scan(find_control("scattering_border"), data, list(data.ids), framed, seed=0, chunk=12)

    assert [one.suspect.name for one in found.turners] == ["white border"]
    assert found.turners[0].share > 0.9
    assert found.tried == 2 * 110  # ten classes, and a hundred strangers


def test_a_picture_is_turned_if_it_is_called_otherwise_with_the_suspect_and_not_with_its_pixels_hidden() -> None:
    one, other = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
    rows = [(one, one, one), (one, one, other), (one, other, other), (one, other, one), (other, other, one)]
    plain, hidden, with_it = (torch.stack(column) for column in zip(*rows, strict=True))

    assert turned(plain, hidden, with_it).tolist() == [False, True, False, False, True]


def test_the_suspect_that_turns_most_is_found_whatever_it_turns_them_to() -> None:
    taught, left_alone = searched(40.0), searched(0.0)

    assert taught.turners[0].suspect.name == "yellow square, top left"
    assert taught.turners[0].share > 0.5
    assert left_alone.turners[0].share < 0.2
    assert [one.share for one in taught.turners] == sorted((one.share for one in taught.turners), reverse=True)
