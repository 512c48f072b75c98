"""Captions to choose from: the formulas, and each benchmark's own score against its authors' rule in loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camcore.metrics.choice import beyond_luck, by_luck, chosen, scored
from camcore.statistics import macro_mean
from tests.oracles import captions as oracle

ORDERS = ((0, 1, 2, 3), (2, 0, 1, 3), (3, 2, 1, 0))
SCORES = arrays("float64", (3, 4), elements=st.integers(-3, 3).map(float))


@given(scores=SCORES, shift=st.integers(-5, 5))
def test_what_is_chosen_does_not_change_with_a_number_added_or_the_order_of_the_foils(scores, shift) -> None:
    given_ = torch.from_numpy(scores)
    right = chosen(given_, ORDERS)
    expected = [
        all(row[true] > row[other] for other in others) for row, (true, *others) in zip(scores, ORDERS, strict=True)
    ]

    assert right.tolist() == expected
    assert torch.equal(chosen(given_ + shift, ORDERS), right)
    assert torch.equal(chosen(given_, [(true, *others[::-1]) for true, *others in ORDERS]), right)
    assert torch.equal(chosen(given_.flip(1), [tuple(3 - one for one in row) for row in ORDERS]), right)


@given(scores=SCORES)
def test_levels_by_lot_is_what_a_little_noise_gives_on_the_average(scores) -> None:
    given_ = torch.from_numpy(scores)
    noise = torch.rand(400, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1
    mean = torch.stack([chosen(given_ + each, ORDERS) for each in noise]).mean(0)
    exact = by_luck(given_, ORDERS)

    assert ((exact - mean).abs() < 0.12).all()
    assert torch.equal(exact == 1, chosen(given_, ORDERS) == 1)


def test_a_scorer_that_is_level_on_everything_is_never_right_and_gets_what_luck_gives() -> None:
    level = torch.zeros(3, 4)

    assert chosen(level, ORDERS).tolist() == [0, 0, 0]
    assert by_luck(level, ORDERS).tolist() == [0.25] * 3
    assert beyond_luck(by_luck(level, ORDERS), ORDERS).tolist() == [0, 0, 0]


def test_luck_is_nought_and_always_right_is_one_for_two_captions_and_for_four() -> None:
    offered = ((0, 1), (0, 1, 2, 3))
    right = torch.tensor([1.0, 1.0], dtype=torch.float64)

    assert beyond_luck(right, offered).tolist() == [1, 1]
    assert beyond_luck(1 - right, offered).tolist() == pytest.approx([-1, -1 / 3])
    drawn = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(1))
    many = [(0, 1, 2, 3)] * len(drawn)
    assert beyond_luck(chosen(drawn, many), many).mean().item() == pytest.approx(0, abs=0.02)


def test_the_scores_of_wordings_are_averaged_caption_by_caption() -> None:
    class Lengths:
        def similarity(self, images, captions):
            return torch.tensor([[float(len(one)) for one in captions]] * len(images))

    found = scored(Lengths(), torch.zeros(2, 3, 4, 4), [("a", "abc"), ("abcde",)])
    assert found.tolist() == [[2.0, 5.0]] * 2
    assert found.dtype == torch.float64


@pytest.mark.parametrize(
    ("scores", "offered", "said"),
    [
        (torch.zeros(2, 2), ((0, 1),), "for each of 2 pictures"),
        (torch.zeros(1, 2), ((0,),), "two captions or more"),
        (torch.zeros(1, 2), ((0, 0),), "two captions or more"),
        (torch.zeros(1, 2).half(), ((0, 1),), "single precision"),
        (torch.tensor([[0.0, float("nan")]]), ((0, 1),), "finite scores"),
    ],
)
def test_what_is_no_choice_is_refused(scores, offered, said) -> None:
    for function in (chosen, by_luck):
        with pytest.raises(ValueError, match=said):
            function(scores, offered)


@given(
    right=st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=30),
    least=st.integers(1, 4),
)
def test_the_mean_over_relations_counts_each_alike(right, least) -> None:
    correct, names = zip(*right, strict=True)
    if all(names.count(name) < least for name in names):
        assert macro_mean(list(map(float, correct)), names, least=least) != 0.0  # NaN
        return
    expected = oracle.macro(correct, names, least)
    assert macro_mean(list(map(float, correct)), names, least=least) == pytest.approx(expected)


def test_a_mean_over_relations_needs_a_relation_for_each() -> None:
    with pytest.raises(ValueError, match="3 values and 2 groups"):
        macro_mean([1, 0, 1], ["a", "b"])
