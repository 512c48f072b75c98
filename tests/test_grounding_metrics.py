import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.metrics import grounding as ours
from tests.oracles import grounding as oracle

NONE = torch.full((4,), torch.nan)


@st.composite
def boxes(draw, side=12):
    x0, y0 = draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))
    return [x0, y0, draw(st.integers(x0 + 1, side)), draw(st.integers(y0 + 1, side))]


def rows(*given_boxes) -> torch.Tensor:
    return torch.tensor(given_boxes).double()


@given(one=boxes(), other=boxes())
def test_overlap_is_what_counting_pixels_gives(one, other) -> None:
    first, second = rows(one)[0], rows(other)[0]

    assert ours.iou(first, second).item() == pytest.approx(oracle.iou(one, other))
    assert ours.generalised_iou(first, second).item() == pytest.approx(oracle.generalised_iou(one, other))
    assert ours.generalised_iou(first, second) <= ours.iou(first, second) + 1e-12


@given(one=boxes(), other=boxes(), factor=st.floats(0.1, 50), moved=st.floats(-30, 30))
def test_overlap_does_not_depend_on_order_scale_or_place(one, other, factor, moved) -> None:
    first, second = rows(one)[0], rows(other)[0]

    for measure in (ours.iou, ours.generalised_iou):
        torch.testing.assert_close(measure(first, second), measure(second, first))
        torch.testing.assert_close(measure(first * factor + moved, second * factor + moved), measure(first, second))
        assert measure(first, first) == 1


def test_a_box_that_is_none_or_has_no_area_holds_nothing() -> None:
    thing = torch.tensor([0.0, 0.0, 4.0, 4.0])

    for nothing in (NONE, torch.tensor([2.0, 2.0, 2.0, 2.0]), torch.tensor([4.0, 4.0, 0.0, 0.0])):
        assert ours.iou(nothing, thing) == 0
        assert ours.matched(nothing, thing[None]) == -1
    assert ours.generalised_iou(NONE, thing) == -1
    assert ours.iou(torch.zeros(4), torch.zeros(4)) == 0


def test_the_published_example_of_the_generalised_one() -> None:
    apart = ours.generalised_iou(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([2.0, 0.0, 3.0, 1.0]))
    assert apart.item() == pytest.approx(-1 / 3)  # nothing shared, and a third of what is around them empty


@given(box=boxes(), things=st.lists(boxes(), min_size=1, max_size=4))
def test_a_box_is_matched_with_the_thing_that_it_is_around(box, things) -> None:
    assert ours.matched(rows(box)[0], rows(*things)).item() == oracle.matched(box, things)


@given(box=boxes(side=40))
def test_sides_are_those_of_the_centre_and_the_middle_is_neither(box) -> None:
    names = {-1: "left", 0: "undecided", 1: "right"}
    found = ours.side(rows(box)[0], 40.0).item()

    assert names[found] == oracle.side(box, 40.0)
    assert ours.side(ours.mirrored(rows(box)[0], 40.0), 40.0).item() == -found


@given(box=boxes(side=40), other=boxes(side=40))
def test_a_box_that_turns_with_the_picture_makes_no_error_and_changes_sides(box, other) -> None:
    first = rows(box)[0]
    turned = ours.mirrored(first, 40.0)

    assert ours.mirror_error(first, turned, 40.0).item() == pytest.approx(0)
    assert torch.equal(ours.mirrored(turned, 40.0), first)
    assert ours.flips(first, turned, 40.0).item() == (ours.side(first, 40.0).item() != 0)
    assert not ours.flips(first, first, 40.0)
    second = rows(other)[0]
    off = abs((box[0] + box[2]) / 80 + (other[0] + other[2]) / 80 - 1)
    assert ours.mirror_error(first, second, 40.0).item() == pytest.approx(off)


def test_no_box_is_on_no_side_and_changes_none() -> None:
    assert ours.side(NONE, 10.0) == 0
    assert not ours.flips(NONE, NONE, 10.0)
    assert ours.mirror_error(NONE, NONE, 10.0).isnan()


def test_the_best_box_is_the_first_of_those_that_score_highest() -> None:
    found = torch.arange(12.0).view(3, 4)
    box, score = ours.best(found, torch.tensor([0.1, 0.7, 0.7]))
    assert (box.tolist(), score.item()) == (found[1].tolist(), pytest.approx(0.7))
    box, score = ours.best(found[:0], torch.zeros(0))
    assert box.isnan().all()
    assert score.isnan()


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=8)


@given(true=SCORES, false=SCORES)
def test_the_area_under_the_curve_is_what_comparing_every_pair_gives(true, false) -> None:
    one, other = torch.tensor(true), torch.tensor(false)

    assert ours.auc(one, other) == pytest.approx(oracle.auc(true, false))
    assert ours.auc(one, other) + ours.auc(other, one) == pytest.approx(1)
    assert ours.auc(one.exp() * 3, other.exp() * 3) == pytest.approx(ours.auc(one, other))


def test_without_scores_there_is_no_area() -> None:
    assert torch.tensor(ours.auc(torch.zeros(0), torch.zeros(2))).isnan()
    assert ours.auc(torch.tensor([1.0, torch.nan]), torch.tensor([0.0])) == 1
