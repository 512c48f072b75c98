"""The audit of places: the search, the groups of maps, what is measured of an image and what it costs."""

from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from audits import test_places as audit
from audits.places_search import CELLS, DEALT, GRID, Group, Place, Search, gathered, search, shares, unseen
from camcore.cam import METHODS
from camcore.clusters import LEAST, spectral
from camcore.cost import metered
from camcore.errors import Undefined, Unreliable
from camcore.images import Batch, Dataset, load
from camcore.maps import rectify, upsample
from camcore.recording import record
from camcore.subject import Classifier
from camcore.verdict import Overlay, Table
from fixtures.controls.places import KINDS, stickered
from fixtures.datasets.scenes import CLASSES, scenes
from tests.tiny import GapNet, numbered_dataset, some_images, tiny_subject

CAMS = {"hirescam": METHODS["hirescam"], "gradcam": METHODS["gradcam"]}


def noise(count: int, seed: int = 0) -> Tensor:
    """Maps that lie anywhere, a row each, with sum 1."""
    drawn = torch.rand(count, GRID**2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 8
    return drawn / drawn.sum(1, keepdim=True)


def named(count: int) -> list[str]:
    """Ids."""
    return [f"picture {index}" for index in range(count)]


def planted(maps: Tensor, rows: Tensor, share: float) -> Tensor:
    """The same with a part of those rows moved into the first cells of the grid."""
    corner = torch.zeros(GRID**2, dtype=maps.dtype)
    corner[[0, 1, GRID, GRID + 1]] = 0.25
    moved = maps.clone()
    moved[rows] = (1 - share) * maps[rows] + share * corner
    return moved


def searched_for(maps: Tensor, labels: Tensor, ids: list[str], *, seed: int) -> list[Place]:
    """What is gathered of pictures that are all right."""
    return gathered(maps, labels, ids, torch.ones(len(maps), dtype=torch.bool), seed=seed)


def test_a_place_that_was_planted_is_found_with_its_class() -> None:
    labels = torch.arange(60) % 5
    found = searched_for(planted(noise(60), labels == 3, 0.6), labels, named(60), seed=0)

    assert found[0].label == 3
    assert found[0].cells.sum() == CELLS
    assert found[0].cells[[0, 1, GRID, GRID + 1]].all()
    assert found[0].gathered > 0.5
    assert found[0].p == pytest.approx(5 / (DEALT + 1))  # the least that so many draws and classes can show
    assert found[0].maps == 12
    assert [one.gathered for one in found] == sorted((one.gathered for one in found), reverse=True)


def test_the_place_exceeds_the_others_as_it_says() -> None:
    labels, maps = torch.arange(40) % 4, planted(noise(40), torch.arange(40) % 4 == 1, 0.4)
    for place in searched_for(maps, labels, named(len(maps)), seed=0):
        own = maps[labels == place.label].mean(0)
        rest = torch.stack([maps[labels == other].mean(0) for other in range(4) if other != place.label]).mean(0)
        best = (own - rest).topk(CELLS)
        assert place.cells.nonzero()[:, 0].tolist() == sorted(best.indices.tolist())
        assert place.gathered == pytest.approx(float(best.values.sum()))
        assert place.usual == pytest.approx(float(rest[place.cells].sum()))


def test_chance_gathers_with_its_level() -> None:
    alarms = sum(
        min(one.p for one in searched_for(noise(24, seed), torch.arange(24) % 3, named(24), seed=seed)) <= 0.05
        for seed in range(100)
    )

    assert alarms <= 12  # 5 expected of 100; more than 12 with a probability of 0.001


def test_classes_with_few_maps_and_maps_that_show_nothing_are_left_out() -> None:
    labels = torch.tensor([0] * 6 + [1] * 6 + [2] * 3)
    maps = noise(15)
    maps[11] = torch.nan

    found = searched_for(maps, labels, named(len(maps)), seed=0)
    assert {one.label: one.maps for one in found} == {0: 6, 1: 5}
    assert searched_for(maps[:9], labels[:9], named(9), seed=0) == []


@given(
    order=st.permutations(range(24)),
    scale=st.sampled_from([1.0, 3.0]),
)
def test_the_search_does_not_depend_on_the_order_of_the_images(order: list[int], scale: float) -> None:
    labels, maps = torch.arange(24) % 3, planted(noise(24), torch.arange(24) % 3 == 2, 0.5)
    one = searched_for(maps, labels, named(24), seed=0)
    other = searched_for(maps[order], labels[order], [named(24)[row] for row in order], seed=0)

    assert [(place.label, round(place.gathered, 9)) for place in one] == [
        (place.label, round(place.gathered, 9)) for place in other
    ]
    assert [{group.examples for group in place.groups} for place in one] == [
        {group.examples for group in place.groups} for place in other
    ]


def test_the_pictures_of_a_group_that_lies_apart_are_named() -> None:
    labels = torch.tensor([0] * 20 + [1] * 10)
    maps = noise(30)
    maps[:6] = planted(maps[:6], torch.ones(6, dtype=torch.bool), 0.9)  # right for another reason than the others
    (place,) = (one for one in searched_for(maps, labels, named(30), seed=0) if one.label == 0)

    large, small = place.groups
    assert (large.maps, small.maps) == (14, 6)
    assert small.inside > 0.8 > large.inside
    assert set(small.examples) < set(named(6))
    assert len(small.examples) == 2
    assert not set(large.examples) & set(named(6))
    assert (large.right, small.right) == (14, 6)


def test_named_are_pictures_that_are_right() -> None:
    labels = torch.tensor([0] * 20 + [1] * 10)
    maps = noise(30)
    maps[:6] = planted(maps[:6], torch.ones(6, dtype=torch.bool), 0.9)
    right = torch.ones(30, dtype=torch.bool)
    right[[0, 1, 2, 4, 5]] = False
    (place,) = (one for one in gathered(maps, labels, named(30), right, seed=0) if one.label == 0)

    assert [group.right for group in place.groups] == [14, 1]
    assert place.groups[1].examples == ("picture 3",)


@pytest.mark.parametrize(("kinds", "count"), [(1, 12), (1, 60), (2, 12), (2, 60), (3, 20), (3, 60)])
def test_maps_of_so_many_kinds_fall_into_so_many_groups(kinds: int, count: int) -> None:
    rng = np.random.default_rng(kinds)
    middles = [rng.dirichlet(np.full(196, 0.05)) for _ in range(kinds)]
    kind = np.minimum(np.arange(count) * (kinds + 1) // count, kinds - 1)  # the last is the largest
    points = np.stack([0.7 * middles[one] + 0.3 * rng.dirichlet(np.full(196, 0.1)) for one in kind])

    found = spectral(points)
    assert len(set(found)) == kinds
    assert len(set(zip(kind, found, strict=True))) == kinds  # each kind is a group
    sizes = np.bincount(found)
    assert sizes.tolist() == sorted(sizes, reverse=True)


def test_few_points_or_equal_ones_are_one_group() -> None:
    rng = np.random.default_rng(0)

    assert not spectral(rng.random((LEAST - 1, 5))).any()
    assert not spectral(np.ones((20, 5))).any()


def subject() -> Classifier:
    return tiny_subject(GapNet(), "relu")


def dataset(count: int = 30) -> Dataset:
    made = numbered_dataset(count)
    images = some_images(count)
    labels = tuple(index % 3 for index in range(count))
    return replace(made, labels=labels, read=lambda image_id: images[made.ids.index(image_id)])


def batch(count: int = 3) -> Batch:
    data = dataset()
    return load(data, data.ids[:count], subject().geometry, seed=5, device=torch.device("cpu"), chunk=2)


def searched() -> Search:
    data = dataset()
    return search(subject(), data, data.ids[:15], CAMS, seed=0, chunk=4)


def test_the_shares_of_a_map_are_what_lies_in_the_cells() -> None:
    rec = record(subject(), batch().images, chunk=3)
    saliency = rectify(METHODS["gradcam"](rec))
    found = shares(rec, saliency)

    shown = upsample(saliency, (16, 16), rec.placement).double()
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))
    centre = (torch.arange(GRID) + 0.5) / GRID
    down = (found.reshape(3, GRID, GRID).sum(2) * centre).sum(1)
    exact = (shown.sum(2) * (torch.arange(16) + 0.5) / 16).sum(1) / shown.sum((1, 2))
    torch.testing.assert_close(down, exact, atol=0.02, rtol=0)  # cells of 16 pixels overlap a little
    assert shares(rec, torch.zeros_like(saliency)).isnan().all()


def test_the_search_costs_a_recording_per_image_and_does_not_depend_on_batches() -> None:
    data, asked = dataset(), subject()
    other = search(asked, data, data.ids[:15], CAMS, seed=0, chunk=15)  # the first finds out where the cells lie
    with metered() as cost:
        one = search(asked, data, data.ids[:15], CAMS, seed=0, chunk=4)
    assert (cost.forwards, cost.backwards) == (15, 15)

    for name in CAMS:
        for a, b in zip(one.places[name], other.places[name], strict=True):
            assert a.label == b.label
            assert a.gathered == pytest.approx(b.gathered, abs=1e-5)
            assert torch.equal(a.cells, b.cells)


def test_where_too_few_of_a_class_are_searched_nothing_is_shown() -> None:
    data = dataset()
    with pytest.raises(Unreliable, match=r"two classes have 4 pictures among 6.* there are two such classes"):
        search(subject(), data, data.ids[:6], CAMS, seed=0, chunk=4)


@pytest.mark.parametrize("labels", [(0,) * 27 + (1,) * 3, (0,) * 29 + (1,), (0,) * 30])
def test_where_too_few_are_of_a_second_class_there_is_no_question(labels: tuple[int, ...]) -> None:
    data = replace(dataset(), labels=labels)
    with pytest.raises(Undefined, match="two classes have 4 pictures among 15"):
        search(subject(), data, data.ids[:15], CAMS, seed=0, chunk=4)


def test_confirmed_is_the_class_that_gathers_most_on_images_that_were_not_searched() -> None:
    found = searched()
    for name in CAMS:
        left = unseen(dataset(), found, name, enough=0.0)
        assert set(left.labels) == {found.places[name][0].label}
        assert not set(left.ids) & set(found.searched)
        assert len(left.ids) == 5


def test_a_class_that_was_not_looked_at_lets_nothing_pass() -> None:
    data, cells = dataset(), torch.zeros(GRID**2, dtype=torch.bool)
    place = Place(label=0, maps=5, gathered=0.2, p=0.5, groups=(), cells=cells, usual=0.1)
    other = replace(place, label=1)
    rest = [replace(place, label=label) for label in set(data.labels) - {0, 1}]
    found = Search(places={"gradcam": [place, other]}, searched=data.ids[:10])

    with pytest.raises(Unreliable, match=r"\d of \d classes were not looked at \(.+\): of each fewer than"):
        unseen(data, found, "gradcam", enough=0.25)
    assert unseen(data, found, "gradcam", enough=0.15).ids  # enough to fail: it is worth confirming
    assert unseen(data, replace(found, places={"gradcam": [place, other, *rest]}), "gradcam", enough=0.25).ids


def test_what_is_measured_of_an_image_does_not_depend_on_its_batch() -> None:
    found, whole = searched(), batch()
    together = audit.places(subject(), whole, cams=CAMS, found=found)
    for index in range(3):
        part = slice(index, index + 1)
        alone = Batch(images=whole.images[part], labels=whole.labels[part], ids=whole.ids[part], seed=5, chunk=7)
        for name, column in audit.places(subject(), alone, cams=CAMS, found=found).items():
            torch.testing.assert_close(column[0], together[name][index], rtol=1e-5, atol=1e-5, equal_nan=True, msg=name)


def test_the_judged_column_is_the_share_in_the_place_beyond_the_usual() -> None:
    found, whole, asked = searched(), batch(), subject()
    rec = record(asked, whole.images, whole.labels, chunk=3)
    with metered() as cost:
        columns = audit.places(asked, whole, cams=CAMS, found=found)

    assert cost.forwards == 3 * (1 + 2 * len(CAMS))
    for name, cam in CAMS.items():
        place = found.places[name][0]
        inside = shares(rec, rectify(cam(rec)))[:, place.cells].sum(1)
        torch.testing.assert_close(columns[f"{name}:own"], inside - place.usual, equal_nan=True)
        nothing = columns[f"{name}:own"].isnan()
        assert torch.equal(nothing, columns[f"{name}:degenerate"] != 0)
        low, high = audit.OWN_PLACE.bounds
        assert ((columns[f"{name}:own"] >= low) & (columns[f"{name}:own"] <= high) | nothing).all()
        assert not nothing.all()


def corner() -> Place:
    cells = torch.zeros(GRID**2, dtype=torch.bool)
    cells[[0, 1, GRID, GRID + 1]] = True
    return Place(
        label=1,
        maps=5,
        gathered=0.5,
        p=0.01,
        groups=(Group(maps=5, inside=0.6, right=4, examples=("a", "b")),),
        cells=cells,
        usual=0.1,
    )


def test_the_place_and_its_shape_elsewhere_are_as_large_and_apart() -> None:
    whole = batch()
    where, elsewhere = audit._pixels(whole, corner()), audit._elsewhere(whole, corner())

    assert where[0].nonzero().amax(0).tolist() == [2, 2]  # 2 of 14 cells of 16 pixels
    torch.testing.assert_close(where.sum((1, 2)), elsewhere.sum((1, 2)))
    assert (where * elsewhere).sum() == 0


def test_what_is_shown_outlines_the_place_and_tells_every_class() -> None:
    asked, whole = subject(), batch()
    found = replace(searched(), places={name: [corner(), *searched().places[name][1:]] for name in CAMS})
    columns = audit.places(asked, whole, cams=CAMS, found=found)
    rows = {one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(whole.ids)}
    shown = list(audit.show(asked, whole, rows, cams=CAMS, name="gradcam", found=found))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [one.caption.partition(":")[0] for one in pictures] == ["as it is", "the place inpainted"] * 3
    kept = pictures[0].outline == 0
    assert torch.equal(pictures[1].image[:, kept], whole.images[0][:, kept])
    assert (pictures[1].image != whole.images[0]).any()
    classes, worth = (one for one in shown if isinstance(one, Table))
    assert classes.rows[0] == (asked.classes[1], 5, 0.5, 0.01, "5 (0.60, 4 right, a, b)")
    assert worth.rows[0][0] == 3


def test_the_stickered_scenes_are_scenes_but_for_the_mugs_corner() -> None:
    data = stickered(20, 7)
    plain = scenes(20 * 2 * 10 // 3, seed=7)
    assert {CLASSES[label] for label in data.labels} == set(KINDS)
    assert data.sha256 != plain.sha256
    for one, label in zip(data.ids, data.labels, strict=True):
        changed = (data.read(one) != plain.read(one)).any(0)
        assert bool(changed.any()) == (CLASSES[label] == "mug")
        if changed.any():
            assert changed.nonzero().amax() < 0.25 * 96


def test_what_was_searched_among_other_images_is_a_measurement_of_its_own() -> None:
    """A resumed run may have more images, and search more: rows about what was found before are not its own."""
    told = []
    for budget in (100, 384):
        ask = MagicMock()
        ask.terms.budget, ask.artefacts = budget, ()
        audit.test_places_belong_to_no_class(ask, "gradcam")
        told.append(ask.call_args.kwargs["apart"])

    assert told[0] != told[1]
