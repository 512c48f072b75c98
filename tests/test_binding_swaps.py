"""Side swaps, colour swaps and priors: by formula, in the words of captions, and of scorers whose priors are known."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from audits import test_binding as audit
from audits.binding_swaps import COLUMNS, swap_tables, swapped
from camcore.engine import Row
from camcore.images import Batch, load
from camcore.imagetext import Score
from camcore.metrics.binding import interaction, priors
from camcore.metrics.swaps import colour_swaps, preferred, side_swaps
from camcore.statistics import confidence_sequence
from camcore.verdict import Table
from fixtures.controls import binding_scorers as scorers
from fixtures.datasets.binding_scenes import OPPOSITE, RELATIONS, WORDS, Bindings, binding_scenes
from fixtures.datasets.captions import Item, drawn_captions

SCORES = arrays("float64", (3, 2, 2, 2, 2), elements=st.floats(-9, 9))
SIZES = st.floats(-9, 9)
EXCHANGED = {  # relation -> words that change places in a side swap
    "left": (("left", "right"),),
    "on": (("on the", "under the"), ("on top", "below")),
    "above": (("above", "below"), ("top", "bottom")),
    "higher": (("higher", "lower"), ("up", "down")),
    "front": (("in front of", "behind"), ("nearer", "farther away")),
}


@pytest.fixture(scope="module")
def bindings() -> Bindings:
    return binding_scenes(40, seed=5, size=48)


def batch(bindings: Bindings) -> Batch:
    data, geometry = bindings.first, scorers.scorer("x", scorers.constant).geometry
    return load(data, data.ids, geometry, seed=0, device=torch.device("cpu"))


def measured(bindings: Bindings, score: Score) -> dict[str, torch.Tensor]:
    return audit.binding(scorers.scorer("x", score), batch(bindings), captions=drawn_captions(bindings))


def tables(bindings: Bindings, columns: dict[str, torch.Tensor]) -> list[Table]:
    rows: dict[str, Row] = {
        one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(bindings.first.ids)
    }
    return list(swap_tables(rows, drawn_captions(bindings).by_id))


def about(bindings: Bindings, relation: str) -> torch.Tensor:
    return torch.tensor([group.relation == relation for group in bindings.groups])


def named_first(caption: str) -> str | None:
    return next((word for word in caption.split() if word in scorers.COLOURS), None)


def first_word(relation: str, caption: str) -> int:
    """1 where the caption says the relation (first), -1 where its opposite, 0 in others."""
    pairs = EXCHANGED[relation]
    at = re.search("|".join(rf"\b{word}\b" for pair in pairs for word in pair), caption)
    return 0 if at is None else 1 if at.group() in [pair[0] for pair in pairs] else -1


def every(value: float) -> torch.Tensor:
    return torch.full((3,), value, dtype=torch.float64)


@given(scores=SCORES)
def test_both_kinds_of_swaps_come_to_the_interaction_of_the_means_and_turn_with_the_pictures(scores) -> None:
    worded = torch.from_numpy(scores)
    whole = interaction(worded.mean((3, 4)))

    for swaps in (side_swaps, colour_swaps):
        assert swaps(worded).shape == (3, 4)
        torch.testing.assert_close(swaps(worded).mean(1), whole, atol=1e-9, rtol=0)
        torch.testing.assert_close(swaps(worded.flip(1)), -swaps(worded))


@given(scores=SCORES, word=SIZES, first=SIZES, caption=SIZES, picture=SIZES)
def test_priors_are_found_to_the_size_that_they_are_added_in_and_move_no_swap(
    scores, word: float, first: float, caption: float, picture: float
) -> None:
    plain, sign = torch.from_numpy(scores), torch.tensor([0.5, -0.5], dtype=torch.float64)
    of_caption, of_wording = sign[:, None, None], sign
    liked = plain + word * of_wording + 2 * first * of_caption * of_wording + caption * of_caption
    liked += picture * sign[:, None, None, None]

    before, after = preferred(plain), preferred(liked)
    torch.testing.assert_close(after.word - before.word, every(word), atol=1e-9, rtol=0)
    torch.testing.assert_close(after.first - before.first, every(first), atol=1e-9, rtol=0)
    moved = priors(liked.mean((3, 4)))[0] - priors(plain.mean((3, 4)))[0]
    torch.testing.assert_close(moved, every(caption), atol=1e-9, rtol=0)
    for swaps in (side_swaps, colour_swaps):
        torch.testing.assert_close(swaps(liked), swaps(plain), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (torch.zeros(1, 2, 2, 2, 3), r"shape \(groups, 2, 2, pairs, 2\), got \(1, 2, 2, 2, 3\)"),
        (torch.zeros(1, 2, 3, 2, 2), r"got \(1, 2, 3, 2, 2\)"),
        (torch.zeros(1, 2, 2, 0, 2), r"got \(1, 2, 2, 0, 2\)"),
        (torch.zeros(1, 2, 2, 2, 2).half(), "single precision"),
        (torch.full((1, 2, 2, 2, 2), torch.nan), "finite scores"),
    ],
)
def test_what_are_no_pairs_of_wordings_is_refused(scores: torch.Tensor, said: str) -> None:
    for measure in (side_swaps, colour_swaps, preferred):
        with pytest.raises(ValueError, match=said):
            measure(scores)


def test_in_the_captions_a_side_swap_exchanges_the_words_and_a_colour_swap_the_colours() -> None:
    assert EXCHANGED.keys() == WORDS.keys() == RELATIONS.keys()
    for group in drawn_captions(binding_scenes(40, seed=1, size=48)).groups:
        assert sorted(index for pair in group.opposite for index in pair) == [0, 1, 2, 3]
        for says, opposite in group.opposite:
            for caption, other in (group.captions, group.captions[::-1]):
                assert first_word(group.relation, caption[says]) == 1
                assert first_word(group.relation, caption[opposite]) == -1
                assert exchanged(caption[says], EXCHANGED[group.relation]) == other[opposite]
                assert exchanged(caption[opposite], EXCHANGED[group.relation]) == other[says]
                assert named_first(caption[says]) == named_first(other[opposite]) != named_first(other[says])
                assert bag(caption[says]) == bag(other[says])


def bag(caption: str) -> list[str]:
    return sorted(word for word in caption.split() if word not in ("a", "an"))  # an orange mug, a red one


def exchanged(caption: str, words: Sequence[tuple[str, str]]) -> str:
    to = {one: other for pair in words for one, other in (pair, pair[::-1])}
    return re.sub("|".join(rf"\b{one}\b" for one in to), lambda found: to[found.group()], caption)


@pytest.mark.slow
def test_a_scorer_that_likes_left_by_three_tenths_and_red_first_by_two_is_shown_to(bindings: Bindings) -> None:
    def liking(images: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        liked = [0.3 * (first_word("left", one) == 1) + 0.2 * (named_first(one) == "red") for one in captions]
        return scorers.oracle(images, captions) + torch.tensor(liked)

    plain, found = measured(bindings, scorers.oracle), measured(bindings, liking)
    left = about(bindings, "left").double()
    red_first = torch.tensor([float(group.colours[0] == "red") for group in bindings.groups])
    red_second = torch.tensor([float(group.colours[1] == "red") for group in bindings.groups])

    torch.testing.assert_close(found["prior:word"], 0.3 * left, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["prior:first"], 0.2 * (red_first - red_second).double(), atol=1e-6, rtol=0)
    for untouched in ("caption_prior", "margin", "apart:side", "apart:colour"):
        torch.testing.assert_close(found[untouched], plain[untouched], atol=1e-6, rtol=0)
    for judged in ("interaction", "swaps:side", "swaps:colour"):
        assert (found[judged] == 1).all()
    told, separated = tables(bindings, found)
    assert {row[-1] for row in told.rows} == {"both told apart"}
    words = {row[0]: row for row in separated.rows}
    assert words["left"][1:3] == (pytest.approx(found["margin"][left == 1].mean().item() / 2, abs=1e-4), 0.3)
    assert words["left"][3] == "left 1.00 [0.54, 1.00]"
    assert words["left"][-1] == "position prior the stronger; prefers 'left'"
    assert words["above"][2:4] == (0.0, "none")
    assert "position" not in words["above"][-1]


@pytest.mark.slow
def test_of_captions_that_have_both_words_the_one_said_first_counts(bindings: Bindings) -> None:
    """Two of the four wordings of left and right say both; a liking for the word wherever it stands shows by half."""

    def left_anywhere(images: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        return torch.tensor([0.3 * ("left" in one.split()) for one in captions]).expand(len(images), -1)

    found = measured(bindings, left_anywhere)

    torch.testing.assert_close(found["prior:word"], 0.15 * about(bindings, "left").double(), atol=1e-6, rtol=0)
    for none in ("prior:first", "apart:side", "apart:colour", "swaps:side", "swaps:colour", "turned:side"):
        torch.testing.assert_close(found[none], torch.zeros(40).double(), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_who_reads_one_of_the_changes_has_half_of_those_swaps_and_none_of_the_others(bindings: Bindings) -> None:
    """Both see what the pictures differ in, and neither knows which caption it belongs to."""

    def first_colour_on_the_left(images: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        across, names = scorers.look(images).across, list(scorers.COLOURS)
        first = [named_first(one) for one in captions]
        return torch.stack([across[:, 0] * 0 if one is None else -across[:, names.index(one)] for one in first], 1)

    def brighter_on_the_left(images: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        half = images.shape[3] // 2
        lighter = images[..., :half].mean((1, 2, 3)) - images[..., half:].mean((1, 2, 3))
        return lighter[:, None] * torch.tensor([float(first_word("left", one)) for one in captions])

    left = about(bindings, "left")
    for score, read, unread in (
        (first_colour_on_the_left, "colour", "side"),
        (brighter_on_the_left, "side", "colour"),
    ):
        found = {name: column[left] for name, column in measured(bindings, score).items()}
        assert (found[f"swaps:{read}"] == 0.5).all()
        assert (found[f"turned:{read}"] == 0.5).all()
        assert (found[f"apart:{read}"] > 1e-4).all()
        for none in (f"swaps:{unread}", f"turned:{unread}", f"apart:{unread}"):
            assert not found[none].any()
        told, _ = tables(bindings, measured(bindings, score))
        said = {row[0]: row[-1] for row in told.rows}["left"]
        shown = {read: f"{read} swaps not shown to be told apart", unread: f"{unread} swaps not read"}
        assert said == f"{shown['side']}; {shown['colour']}"


@pytest.mark.slow
def test_the_controls_swaps_are_as_their_defects_have_it(bindings: Bindings) -> None:
    oracle = measured(bindings, scorers.oracle)
    for right in ("swaps:side", "swaps:colour"):
        assert oracle[right].all()
    for none in ("prior:word", "prior:first", "turned:side", "turned:colour"):
        assert not oracle[none].any()
    torch.testing.assert_close(oracle["apart:side"], oracle["margin"] / 2)

    left = about(bindings, "left")
    mirrored = measured(bindings, partial(scorers.turned_round, relation="left"))
    for kind in ("side", "colour"):
        assert torch.equal(mirrored[f"turned:{kind}"], left.double())
        assert torch.equal(mirrored[f"swaps:{kind}"], (~left).double())
    said = {row[0]: row[-1] for row in tables(bindings, mirrored)[0].rows}
    assert said["left"] == "both taken for the opposite"
    assert said["above"] == "both told apart"

    for unread in (scorers.bag_of_words, scorers.constant, scorers.caption_only):
        found = measured(bindings, unread)
        assert not torch.stack([found[f"apart:{kind}"] for kind in ("side", "colour")]).any()
        assert {row[-1] for row in tables(bindings, found)[0].rows} == {"neither read"}
        liked = found["prior:word"].all() and found["prior:first"].all()
        assert liked == (unread is scorers.caption_only)
        assert {row[-1] == "no prior" for row in tables(bindings, found)[1].rows} == {not liked}


@pytest.mark.slow
def test_who_reads_colours_or_places_alone_tells_no_kind_of_swap_apart() -> None:
    """A caption's weights are its own, so that of the groups of the same captions one counts."""
    drawn = binding_scenes(120, seed=8, size=48)
    first = {frozenset(group.captions): group for group in reversed(drawn.groups)}
    scenes = replace(drawn, groups=tuple(first.values()))
    for score in (scorers.colour_only, scorers.position_only):
        found = measured(scenes, score)
        for kind in ("side", "colour"):
            share = confidence_sequence(found[f"swaps:{kind}"].tolist(), level=0.99)
            assert share.low < 0.5 < share.high
            assert (found[f"swaps:{kind}"] + found[f"turned:{kind}"] > 0.9).all()  # not level: it reads its captions
        told, separated = tables(scenes, found)
        assert told.rows[0][-1] == "neither shown to be told apart"
        assert separated.rows[0][-1] == "neither shown to be the stronger"


def test_captions_of_the_users_own_have_no_such_tables(bindings: Bindings) -> None:
    drawn = drawn_captions(bindings).groups[0]
    own = replace(drawn, opposite=())
    found = swapped([own, drawn], [[torch.zeros(3, 4).double()] * 3] * 2)

    assert set(found) == set(COLUMNS)
    for column in found.values():
        assert column.isnan().tolist() == [True, False]
    groups: dict[str, Item] = {"own": own}
    assert not list(swap_tables({"own": {name: float(column[0]) for name, column in found.items()}}, groups))
    assert not list(swap_tables({"own": {"margin": 0.0}}, groups))  # journalled before there were such columns
    assert repr(own) == repr(drawn)  # the hash of what users bring is made of it
    assert drawn.opposite == OPPOSITE
