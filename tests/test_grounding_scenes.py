"""Phrases to be found: captions say what the pictures show, each thing is asked for, and a phrase is there once."""

import pytest
import torch

from camcore.grounding import find_phrase
from fixtures.datasets.binding_things import THINGS
from fixtures.datasets.grounding_scenes import (
    FAMILIES,
    MIRROR,
    ROW,
    WORDINGS,
    GroundingScenes,
    Query,
    anchor,
    grounding_scenes,
)

SIZE, COUNT = 48, 8


@pytest.fixture(scope="module")
def scenes() -> GroundingScenes:
    return grounding_scenes(COUNT, seed=5, size=SIZE)


def of(queries: tuple[Query, ...], family: str, picture: int) -> list[Query]:
    return [one for one in queries if (one.family, one.picture) == (family, picture)]


def test_captions_are_true_where_they_should_be(scenes: GroundingScenes) -> None:
    for group in scenes.groups:
        views = scenes.views(group)
        for query in scenes.queries(group):
            boxes = views[query.picture].boxes
            across = (boxes[:, 0] + boxes[:, 2]) / 2
            others = across[2] if query.family == "F4" else across[torch.arange(len(across)) != query.meant].mean()
            side = "left" if across[query.meant] < others else "right"
            if query.family in ("F1", "F3", "F4"):
                assert query.said == side
            if query.family == "F2":
                assert query.said not in (None, side)
            colour = (*group.colours, anchor(group, 5))[query.meant]
            assert (colour in query.phrase.split()) == (query.family in ("F0", "F1", "F2"))
            assert (query.said in query.caption.split()) == (query.family != "F0")


def test_a_phrase_is_in_its_caption_once_in_every_wording_of_every_colour_and_thing() -> None:
    many = grounding_scenes(200, seed=1, size=SIZE)
    asked = [query for group in many.groups for query in many.queries(group)]
    for query in asked:
        start, end = find_phrase(query.caption, query.phrase)
        assert query.caption[start:end] == query.phrase
    assert {group.thing for group in many.groups} == set(THINGS)
    for family in FAMILIES:
        starts = {query.caption.split()[0] + query.caption.split()[1] for query in asked if query.family == family}
        assert len(starts) >= len(WORDINGS[family]) - 1
    assert any("an orange" in query.caption for query in asked)


def test_sides_are_asked_for_both_ways_with_nothing_else_to_tell(scenes: GroundingScenes) -> None:
    for group in scenes.groups:
        queries = scenes.queries(group)
        for family, picture in (("F3", 0), ("F3", 1), ("F4", ROW), ("F3", MIRROR)):
            first, second = of(queries, family, picture)
            assert {first.said, second.said} == {"left", "right"}
            assert {first.meant, second.meant} == {0, 1}
            assert first.caption.replace(first.said or "", "*") == second.caption.replace(second.said or "", "*")


def test_false_captions_and_mirrored_ones_stand_beside_their_twins(scenes: GroundingScenes) -> None:
    turned = {"left": "right", "right": "left"}
    for group in scenes.groups:
        queries = scenes.queries(group)
        for picture in (0, 1):
            for true, false in zip(of(queries, "F1", picture), of(queries, "F2", picture), strict=True):
                assert true.meant == false.meant
                assert false.caption == true.caption.replace(true.said or "?", turned[true.said or ""])
        for plain, mirrored in zip(of(queries, "F3", 0), of(queries, "F3", MIRROR), strict=True):
            assert plain.meant == mirrored.meant
            assert mirrored.said == turned[plain.said or ""]


def test_the_mirror_image_is_one_and_the_rows_middle_has_a_colour_of_its_own(scenes: GroundingScenes) -> None:
    for group in scenes.groups:
        first, _, row, mirror = scenes.views(group)
        assert torch.equal(mirror.picture, first.picture.flip(2))
        torch.testing.assert_close(mirror.boxes[:, 0], SIZE - first.boxes[:, 2])
        assert len(row.boxes) == 3
        left, right, middle = row.boxes
        assert left[2] <= middle[0] + 1
        assert middle[2] <= right[0] + 1
        assert anchor(group, 5) not in group.colours


def test_a_group_depends_on_the_seed_and_its_place_alone_and_the_hash_on_everything() -> None:
    few, many, other = grounding_scenes(2, seed=0, size=48), grounding_scenes(5, seed=0, size=48), 1
    for one, same in zip(few.groups, many.groups, strict=False):
        assert few.queries(one) == many.queries(same)
        assert torch.equal(few.views(one)[ROW].picture, many.views(same)[ROW].picture)
    hashes = {made.first.sha256 for made in (few, many, grounding_scenes(2, seed=other, size=48))}
    assert len(hashes) == 3
    assert few.first.sha256 == grounding_scenes(2, seed=0, size=48).first.sha256
    assert few.first.sha256 != few.bindings.first.sha256
    assert torch.equal(few.first.read(few.first.ids[0]), few.views(few.groups[0])[0].picture)
