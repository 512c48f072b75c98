"""What captions say of drawn scenes: every wording of theirs is read as what it says, and what is unsure not at all."""

from itertools import product

import pytest

from benchmarks.caption_table import group_scores, own_scenes
from benchmarks.caption_words import Asked, Said, read, said
from camcore.metrics.binding import interaction
from fixtures.controls import binding_scorers as scorers
from fixtures.datasets.binding_scenes import RELATIONS, Group, binding_scenes

ONE, OTHER = "a red mug", "a green mug"
GROUPS = binding_scenes(60, seed=4, size=48).groups


def asked(group: Group) -> Asked:
    return Asked(relation=group.relation, colours=group.colours, thing=group.thing)


def test_every_wording_of_the_drawn_scenes_is_read_as_what_it_says() -> None:
    assert {group.relation for group in GROUPS} == set(RELATIONS)
    for group in GROUPS:
        for first, second in product(*group.captions):
            assert read(first, second) == asked(group), (first, second)
            assert read(second, first) == Asked(
                relation=group.relation, colours=group.colours[::-1], thing=group.thing
            ), (second, first)
        for same in group.captions:
            assert [read(same[0], other) for other in same] == [None] * 4  # neither denies the other


def test_articles_capitals_and_marks_say_nothing() -> None:
    for group in GROUPS[:10]:
        for first, second in zip(*group.captions, strict=True):
            shouted = [f"{words.upper().replace(' A ', ' THE ')}." for words in (first, second)]
            assert read(shouted[0], shouted[1]) == asked(group)


@pytest.mark.parametrize("relation", RELATIONS)
def test_of_the_scenes_that_captions_are_read_as_each_is_true_of_its_own(relation: str) -> None:
    """By the oracle, which reads the same wordings by other code and looks at the pixels."""
    (group,) = binding_scenes(1, seed=2, size=scorers.SIDE, relations=(relation,)).groups
    for pair in zip(*group.captions, strict=True):
        found = read(*pair)
        assert found is not None
        scores = group_scores(scorers.scorer("x", scorers.oracle), own_scenes(found, pair, 2, seed=1, size=96))
        assert (interaction(scores) > 0).all(), pair


@pytest.mark.parametrize(
    ("place", "relation"),
    [
        ("to the left of", "left"),
        ("on the right of", "left"),
        ("above", "above"),
        ("below", "above"),
        ("in front of", "front"),
        ("behind", "front"),
        ("nearer than", "front"),
        ("farther away than", "front"),
    ],
)
def test_what_begins_with_the_place_or_is_negated_is_not_understood(place: str, relation: str) -> None:
    known = read(f"{ONE} is {place} {OTHER}", f"{OTHER} is {place} {ONE}")
    assert known is not None
    assert known.relation == relation
    for wording in (
        "{place} {b} is {a}",
        "{place} {b} there is {a}",
        "{place} {b}, {a}",
        "{a} is not {place} {b}",
        "{a} isn't {place} {b}",
        "{a} is never {place} {b}",
        "no {a} is {place} {b}",
        "not {a} {place} {b}",
        "there is no {a} {place} {b}",
        "it is false that {a} is {place} {b}",
        "{a} is {place} neither {b}",
    ):
        pair = [wording.format(place=place, a=a, b=b) for a, b in ((ONE, OTHER), (OTHER, ONE))]
        assert read(*pair) is None, pair
        assert [said(one) for one in pair] == [None, None]


@pytest.mark.parametrize(
    "caption",
    [
        "the red ball is not on the left",
        "on the left is the red ball",
        "the red ball is left",
        "a red ball on top",  # of what?
        "a red ball on top of a green ball",  # no scene shows it
        "a red ball under a green ball",
        "a red car on the left",
        "a red ball to the left of a green mug",
        "a red ball to the left of a red ball",
        "a red ball to the left of a ball",
        "a red balloon on the left",  # balloons float higher or lower, and nothing else does
        "a red mug is higher than a green mug",
        "a red ball on the left and on the right",
        "a red ball that is on the left of a green ball",
    ],
)
def test_what_no_drawn_scene_is_known_of_is_not_understood(caption: str) -> None:
    assert said(caption) is None


def test_on_top_of_the_table_is_on_it() -> None:
    for words in ("a red ball on top of the table", "the red ball is on the table", "A red ball, on top of a table."):
        assert said(words) == Said(relation="on", places={0: "red"}, thing="ball")
    assert said("a red ball under the table") == Said(relation="on", places={1: "red"}, thing="ball")
    assert said("a red ball at the top of the picture") == Said(relation="above", places={0: "red"}, thing="ball")
    found = read("a red ball on top of the table", "a red ball under the table")
    assert found == Asked(relation="on", colours=("red", "green"), thing="ball")


def test_captions_that_do_not_deny_each_other_are_not_asked() -> None:
    for first, second in (
        (f"{ONE} on the left", f"{OTHER} on the right"),  # both true of one picture
        (f"{ONE} on the left", f"{ONE} on the left side"),
        (f"{ONE} to the left of {OTHER}", f"a blue mug to the left of {OTHER}"),
        (f"{ONE} to the left of {OTHER}", f"{ONE} to the left of a blue mug"),
        (f"{ONE} on the left", f"{ONE} at the top"),
        (f"{ONE} on the left", "a green ball on the left"),
    ):
        assert read(first, second) is None, (first, second)
    other_way = read(f"{ONE} to the left of {OTHER}", f"{ONE} to the right of {OTHER}")
    assert other_way == Asked(relation="left", colours=("red", "green"), thing="mug")
