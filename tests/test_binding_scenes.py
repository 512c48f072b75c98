"""Binding scenes: the ray marcher's geometry, and that captions say what the pictures show."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from camcore.errors import BadInput
from fixtures.datasets import solids
from fixtures.datasets.binding_scenes import LAYOUTS, RELATIONS, Group, binding_scenes
from fixtures.datasets.binding_things import COLOURS, THINGS, ball, balloon, painted, table
from fixtures.datasets.solids import Room, Solid, render, render_each

SIZE = 64
EVEN = np.float32([0.5, 0.5, 0.5])


def even(*places: np.ndarray) -> np.ndarray:
    return np.broadcast_to(EVEN, (len(places[0]), 3)).astype(np.float32)


def red(points: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.float32([0.8, 0.1, 0.1]), points.shape).astype(np.float32)


ROOM = Room(floor=even, wall=even, eye=(0.0, 1.0, -5.0), aim=(0.0, 1.0, 0.0), width=0.8)


def globe(x: float, z: float, size: float = 0.5) -> Solid:
    return Solid(surface=ball, colour=red, centre=(x, 1.0, z), size=size)


def test_a_ball_is_drawn_as_large_as_perspective_has_it() -> None:
    _, shows = render(ROOM, [globe(0, 0)], 128)
    radius = 0.95 * 0.5
    # a ball's outline, seen from a distance d, is a circle of radius r / sqrt(d^2 - r^2) at distance 1
    expected = radius / np.sqrt(5.0**2 - radius**2) / (ROOM.width / 2) * 64

    rows, columns = np.nonzero(shows[0])
    assert np.sqrt(shows[0].sum() / np.pi) == pytest.approx(expected, rel=0.03)
    assert (rows.mean(), columns.mean()) == pytest.approx((63.5, 63.5), abs=0.5)


def test_what_is_nearer_hides_what_is_farther_whatever_the_order() -> None:
    near, far = globe(0, -1), globe(0.2, 1)
    for things in ([near, far], [far, near]):
        _, shows = render(ROOM, things, SIZE)
        assert not (shows[0] & shows[1]).any()
        alone = [render(ROOM, [one], SIZE)[1][0] for one in things]
        hidden = [int(both.sum()) - int(one.sum()) for both, one in zip(shows, alone, strict=True)]
        assert hidden[things.index(near)] == pytest.approx(0, abs=3)
        assert hidden[things.index(far)] < -20


@pytest.mark.parametrize("cartoon", [False, True])
def test_each_painting_is_the_picture_that_it_would_be_alone(cartoon: bool) -> None:
    room = replace(ROOM, cartoon=cartoon)
    things = [globe(-0.4, 0), globe(0.4, 0.5)]
    green = [replace(one, colour=lambda points: red(points)[:, ::-1]) for one in things]
    paintings = [things, [green[0], things[1]], green]
    pictures, shows = render_each(room, paintings, SIZE)

    for picture, painting in zip(pictures, paintings, strict=True):
        alone, where = render(room, painting, SIZE)
        assert np.array_equal(picture, alone)
        assert np.array_equal(shows, where)
    assert not np.array_equal(pictures[0], pictures[2])
    with pytest.raises(ValueError, match="the same things"):
        render_each(room, [things, things[:1]], SIZE)


def test_a_thing_casts_a_shadow_away_from_the_light() -> None:
    room = Room(floor=even, wall=even)
    empty, _ = render(room, [], SIZE)
    picture, shows = render(room, [Solid(surface=ball, colour=red, centre=(0, 0.5, 0), size=0.5)], SIZE)
    darker = (empty - picture).mean(0) * ~shows[0]

    columns = np.arange(SIZE) + 0.5
    assert darker.max() > 0.1
    assert (darker.sum(0) * columns).sum() / darker.sum() > SIZE / 2 + 2  # the light comes from the left


@pytest.mark.parametrize("surface", [*(made for made, _, _ in THINGS.values()), balloon, table])
def test_no_surface_claims_more_room_than_there_is(surface) -> None:
    """A distance that is too large lets rays pass through: it must not change faster than the points move."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (40_000, 3)).astype(np.float32)
    points = points[np.linalg.norm(points, axis=1) < 1.4]  # where rays are followed
    moved = points + rng.normal(0, 0.05, points.shape).astype(np.float32)
    gained = np.abs(surface(points) - surface(moved))

    assert (gained <= 1.06 * np.linalg.norm(points - moved, axis=1) + 1e-5).all()


@pytest.mark.parametrize("name", THINGS)
def test_things_stand_on_their_lowest_point_and_lie_within_reach(name: str) -> None:
    surface, lowest, _ = THINGS[name]
    axis = np.linspace(-1.6, 1.6, 65, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    inside = points[surface(points) < 0]

    assert inside[:, 1].min() == pytest.approx(lowest, abs=0.06)
    assert np.linalg.norm(inside, axis=1).max() < 1.4


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_is_nearer_to_itself_than_to_any_other(colour: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (50, 3)).astype(np.float32)
    mean = {one: painted("ball", one, np.random.default_rng(1))(points).mean(0) for one in COLOURS}
    for seed in range(20):
        drawn = painted("ball", colour, np.random.default_rng(seed))(points).mean(0)
        assert min(mean, key=lambda one: float(np.abs(mean[one] - drawn).sum())) == colour


def groups(relation: str, count: int = 4) -> list[tuple[Group, tuple, torch.Tensor]]:
    made = binding_scenes(count, seed=3, size=SIZE, relations=(relation,))
    return [(group, *made.draw(group)) for group in made.groups]


@pytest.mark.slow
@pytest.mark.parametrize("relation", RELATIONS)
def test_the_first_picture_shows_what_its_captions_say_and_the_second_the_reverse(relation: str) -> None:
    for _, pictures, boxes in groups(relation):
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2
        area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
        for picture, (first, second) in enumerate(((0, 1), (1, 0))):
            at, area_of = middle[picture], area[picture]
            if relation == "left":
                assert at[first, 0] < at[second, 0] - 0.1 * SIZE
            elif relation == "front":
                assert area_of[first] > area_of[second]
                assert boxes[picture, first, 3] > boxes[picture, second, 3]
            else:
                assert at[first, 1] < at[second, 1] - 0.1 * SIZE
        torch.testing.assert_close(boxes[0], boxes[1].flip(0))  # the colours have changed places, and nothing else
        assert (pictures[0] != pictures[1]).any()
        assert boxes.min() >= 0
        assert boxes.max() <= SIZE


def test_a_group_is_drawn_in_one_style_and_both_styles_occur() -> None:
    made = binding_scenes(40, seed=0, size=SIZE).groups
    cartoons = sum(group.style == "cartoon" for group in made)

    assert 10 < cartoons < 30
    assert {group.style for group in binding_scenes(40, seed=0, size=SIZE, styles=("shaded",)).groups} == {"shaded"}


def test_a_cartoon_has_few_shades_and_the_same_things_in_the_same_places() -> None:
    ball_red = replace(globe(0, 0), gloss=0.0)
    (shaded, shows), (cartoon, same) = (render(replace(ROOM, cartoon=one), [ball_red], 128) for one in (False, True))
    empty, _ = render(replace(ROOM, cartoon=True), [], 128)
    shades = [len(np.unique(picture[0, same[0]].round(3))) for picture in (shaded, cartoon)]

    assert np.array_equal(shows, same)
    assert shades[1] < shades[0] / 3
    assert np.abs(cartoon - empty)[:, ~same[0]].max() > 0.1  # it has a shadow


def test_an_outline_darkens_the_rim_by_its_share_of_ink_and_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    size, ball_red = 128, replace(globe(0, 0), gloss=0.0)
    cartoon, shows = render(replace(ROOM, cartoon=True), [ball_red], size)
    ink, finer, wide = solids.INK, solids.FINER, round(solids.LINE * size * solids.FINER)
    monkeypatch.setattr(solids, "INK", 1.0)
    plain, _ = render(replace(ROOM, cartoon=True), [ball_red], size)
    rim = shows[0] & ~np.roll(shows[0], 2, 1)  # the two pixels at the left end of each row
    inside = np.logical_and.reduce([np.roll(shows[0], by, axis) for by in (-2, 2) for axis in (0, 1)])
    left = cartoon[0, rim].mean() / plain[0, rim].mean()

    # The two pixels are finer (2) rows of 2 * finer (4) fine pixels. In each of these rows the first `wide` (2) of the
    # ball are ink; one of them all may lie in a pixel farther out, which counts as the wall's, for the ball covers less
    # than half of it. So at least 3 in 8 are ink: a quarter is left of a colour that is about that of the others.
    share = (wide * finer - 1) / (2 * finer**2)
    assert ink < left < 1 - (1 - ink) * share
    assert (cartoon >= ink * plain - 1e-6).all()
    assert np.array_equal(cartoon[:, inside], plain[:, inside])


@pytest.mark.slow
def test_outside_the_boxes_both_pictures_are_the_same() -> None:
    (_, pictures, boxes), *_ = groups("left", 1)
    outside = torch.ones(SIZE, SIZE, dtype=torch.bool)
    for left, top, right, bottom in boxes[0].int().tolist():
        outside[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False

    torch.testing.assert_close(pictures[0][:, outside], pictures[1][:, outside])


@pytest.mark.slow
def test_a_box_holds_its_colour() -> None:
    for group, pictures, boxes in groups("left"):
        for picture in range(2):
            seen = []
            for box in boxes[picture].int().tolist():
                left, top, right, bottom = box
                window = pictures[picture][:, (top + bottom) // 2 - 3 : (top + bottom) // 2 + 3]
                colour = window[..., (left + right) // 2 - 3 : (left + right) // 2 + 3].mean((1, 2))
                seen.append(colour / colour.sum())
            named = []
            for name in group.colours:
                plain = painted("ball", name, np.random.default_rng(0))(np.zeros((1, 3), dtype=np.float32))[0]
                named.append(torch.from_numpy(plain / plain.sum()))
            straight = sum(float((a - b).abs().sum()) for a, b in zip(seen, named, strict=True))
            crossed = sum(float((a - b).abs().sum()) for a, b in zip(seen, reversed(named), strict=True))
            assert straight < crossed


def test_captions_come_in_four_wordings_and_the_other_ones_with_the_colours_exchanged() -> None:
    for group in binding_scenes(40, seed=0, size=SIZE).groups:
        first, second = group.captions
        assert len(set(first)) == len(set(second)) == 4
        assert not set(first) & set(second)
        one, other = group.colours
        assert one != other
        for said, reverse in zip(first, second, strict=True):
            swapped = said.replace(one, "\0").replace(other, one).replace("\0", other)
            assert swapped.replace("an ", "a ") == reverse.replace("an ", "a ")
            assert all(("an " + colour in said) == (colour[0] in "aeiou") for colour in group.colours)
            assert group.thing in said
        assert sum(said.index(one) < said.index(other) for said in first) == 2  # either colour is named first as often


def test_relations_take_turns_and_everything_occurs() -> None:
    made = binding_scenes(200, seed=0, size=SIZE).groups

    assert [one.relation for one in made[:5]] == list(RELATIONS)
    assert set(LAYOUTS) == set(RELATIONS)
    assert {one.thing for one in made} == {*THINGS, "balloon"}
    assert {colour for one in made for colour in one.colours} == set(COLOURS)
    assert len({one.id for one in made}) == 200


@pytest.mark.slow
def test_a_picture_depends_on_its_group_alone_and_a_file_can_hold_it() -> None:
    few, many = binding_scenes(2, seed=5, size=48), binding_scenes(9, seed=5, size=48)
    other = binding_scenes(2, seed=6, size=48)
    (one, _), _ = few.draw(few.groups[1])
    (same, _), _ = many.draw(many.groups[1])

    assert few.groups == many.groups[:2]
    assert torch.equal(one, same)
    assert not torch.equal(one, other.draw(other.groups[1])[0][0])
    assert one.shape == (3, 48, 48)
    torch.testing.assert_close((one * 255).round() / 255, one)
    assert 0 <= one.min() < one.max() <= 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n": 0, "size": 64}, "expected n >= 1 and size >= 48, got 0 and 64"),
        ({"n": 1, "size": 20}, "got 1 and 20"),
        ({"n": 1, "relations": ("beside",)}, r"unknown relation \['beside'\]; there are left, on"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        binding_scenes(seed=0, **given)
