"""The audit of shape and texture: the rule by which a model decides, the pictures, and what is measured and shown."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from audits import test_cues as audit
from camcore.cost import metered
from camcore.errors import Undefined
from camcore.images import Batch, Dataset
from camcore.metrics.cues import decisions
from camcore.subject import Classifier
from camcore.verdict import Overlay, Table
from fixtures.datasets.cue_conflict import Conflicts, find_conflicts
from fixtures.datasets.scene_conflicts import PAIRS, draw, middle, mirrored, scene_conflicts, two_cues
from fixtures.datasets.scene_objects import PAINTERS
from fixtures.datasets.scenes import CLASSES
from fixtures.datasets.sixteen import SIXTEEN
from tests.cued import model

COUNTS = Path(__file__).parent / "oracles" / "cue_conflict_counts.csv"  # of the authors' raw decisions, 1200 pictures
PLACES = np.meshgrid(np.linspace(-1.4, 1.4, 71, dtype=np.float32), np.linspace(-1.4, 1.4, 71, dtype=np.float32))


@given(
    scores=st.lists(st.lists(st.floats(-8, 8, width=32), min_size=5, max_size=5), min_size=1, max_size=4),
    cut=st.integers(1, 3),
)
def test_the_category_with_the_highest_mean_probability_decides(scores: list[list[float]], cut: int) -> None:
    categories = [tuple(range(cut)), tuple(range(cut, 4))]  # the last class belongs to none
    found = decisions(torch.tensor(scores), categories)

    for row, decision in zip(scores, found.tolist(), strict=True):
        odds = [np.exp(score) for score in row]
        means = [sum(odds[index] for index in chosen) / sum(odds) / len(chosen) for chosen in categories]
        if means[0] == pytest.approx(means[1], rel=1e-9):
            continue  # level but for rounding
        assert decision == means.index(max(means))


def test_a_category_of_many_classes_is_not_preferred_for_their_number() -> None:
    logits = torch.tensor([[2.0, 1.9, 1.9, 1.9]])

    assert decisions(logits, [(0,), (1, 2, 3)]).tolist() == [0]


def test_level_categories_are_no_decision_whatever_their_order() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [3.0, 1.0, 3.0]])

    assert decisions(logits, [(0,), (1,), (2,)]).tolist() == [-1, -1]


def told(shape: int, texture: int, count: int) -> tuple:
    rows = [{"shape": 1.0, "decision": 0.0}] * shape + [{"shape": -1.0, "decision": 1.0}] * texture
    return audit._line("all", rows + [{"shape": 0.0, "decision": 2.0}] * (count - len(rows)))


def test_the_published_shape_biases_come_out_of_their_counts() -> None:
    with COUNTS.open(newline="") as opened:
        for row in csv.DictReader(opened):
            shape, texture = int(row["shape"]), int(row["texture"])
            line = told(shape, texture, max(1200, shape + texture))
            assert abs(float(line[6].split()[0]) - float(row["published"])) <= 0.0011, row

    line = told(162, 572, 1200)
    assert line[:6] == ("all", 1200, 162, 572, 466, 0)
    assert line[7] == pytest.approx(734 / 1200, abs=1e-4)  # the coverage of ResNet-50


def test_nothing_decided_is_no_shape_bias() -> None:
    assert told(0, 0, 5)[6:] == ("none", 0.0)


def test_the_sixteen_categories_share_no_class() -> None:
    from torchvision.models import AlexNet_Weights

    names = AlexNet_Weights.DEFAULT.meta["categories"]
    every = [index for classes in SIXTEEN.values() for index in classes]
    assert len(every) == len(set(every)) == 207
    assert {names[index] for index in SIXTEEN["cat"]} >= {"tabby", "Persian cat", "cougar"}
    assert {names[index] for index in SIXTEEN["car"]} == {"beach wagon", "convertible", "sports car"}
    assert {names[index] for index in SIXTEEN["elephant"]} == {"Indian elephant", "African elephant"}
    assert {names[index] for index in SIXTEEN["clock"]} == {"analog clock", "digital clock", "wall clock"}
    assert {"golden retriever", "Chihuahua", "Mexican hairless"} - {names[index] for index in SIXTEEN["dog"]} == {
        "Chihuahua"
    }  # one of those that the authors took out


def test_models_of_scenes_get_drawn_pictures_and_others_none() -> None:
    names = ("something else", *reversed(CLASSES))
    found = find_conflicts(None, subject=model(names), n=12, seed=3)

    assert found is not None
    assert [names[index] for (index,) in found.categories.values()] == list(CLASSES)
    assert all(found.textures[one] != label for one, label in zip(found.dataset.ids, found.dataset.labels, strict=True))
    assert find_conflicts(None, subject=model(("cat", "mug")), n=12, seed=3) is None


def test_every_pair_comes_once_in_a_round_and_a_longer_set_begins_with_the_shorter() -> None:
    many, textures = scene_conflicts(2 * len(PAIRS), seed=5, size=48)
    few, _ = scene_conflicts(7, seed=5, size=48)
    pairs = [(CLASSES[label], CLASSES[textures[one]]) for one, label in zip(many.ids, many.labels, strict=True)]

    assert sorted(pairs[: len(PAIRS)]) == sorted(pairs[len(PAIRS) :]) == sorted(PAIRS)
    assert pairs[: len(PAIRS)] != pairs[len(PAIRS) :]
    assert (few.ids, few.labels) == (many.ids[:7], many.labels[:7])
    assert torch.equal(few.read(few.ids[3]), many.read(many.ids[3]))
    assert few.sha256 != scene_conflicts(7, seed=6, size=48)[0].sha256


def test_a_picture_is_one_that_a_file_can_hold() -> None:
    picture = draw(4, seed=0, size=96)

    assert picture.shape == (3, 96, 96)
    assert 0 <= picture.min() < picture.max() <= 1
    torch.testing.assert_close((picture * 255).round() / 255, picture)


@pytest.mark.parametrize("texture", CLASSES)
def test_the_outline_is_the_shapes_and_the_colours_are_the_textures(texture: str) -> None:
    shape = "fish" if texture != "fish" else "mug"
    u, v = PLACES
    drawn = two_cues(shape, texture)(u, v, np.random.default_rng(0))

    np.testing.assert_array_equal(drawn.distance, PAINTERS[shape][0](u, v, np.random.default_rng(0)).distance)
    x, y, half = middle(PAINTERS[texture][0])
    rng = np.random.default_rng(0)
    PAINTERS[shape][0](u, v, rng)  # draws first, from the same numbers
    surface = PAINTERS[texture][0](u, v, rng)
    tile = (np.abs(u - x) < half - 0.03) & (np.abs(v - y) < half - 0.03)
    np.testing.assert_allclose(drawn.albedo[:, tile], surface.albedo[:, tile], atol=0.02)  # where nothing is folded
    assert (surface.distance[tile] < 0).mean() > 0.95  # and that is within the thing


@given(places=st.lists(st.floats(-3, 3, width=32), min_size=1), half=st.floats(0.2, 1), centre=st.floats(-0.5, 0.5))
def test_folded_places_lie_in_the_tile_and_those_in_it_stay(places: list[float], half: float, centre: float) -> None:
    given_ = np.array(places, dtype=np.float32)
    folded = mirrored(given_, centre, half)

    assert (np.abs(folded - centre) <= half + 1e-5).all()
    inside = np.abs(given_ - centre) <= half
    np.testing.assert_allclose(folded[inside], given_[inside], atol=1e-5)
    np.testing.assert_allclose(mirrored(given_ + 4 * half, centre, half), folded, atol=1e-4)  # over and over


def among(count: int) -> dict[str, Conflicts]:
    """A premise's result, of so many categories."""
    _, _, conflicts = asked()
    return {"conflicts": replace(conflicts, categories={f"class {index}": (index,) for index in range(count)})}


@pytest.mark.parametrize(("count", "chance"), [(1, "1.00"), (2, "1.00"), (3, "0.67"), (4, "0.50")])
def test_coverage_that_chance_reaches_does_not_apply(count: int, chance: str) -> None:
    given = among(count)
    with pytest.raises(Undefined, match=re.escape(f"of {count} categories chance alone decides")) as caught:
        audit.beyond_chance(given["conflicts"].dataset, given, margin=0.5)

    assert f"in {chance} of the pictures, and the margin is 0.5" in str(caught.value)


@pytest.mark.parametrize(("count", "margin"), [(5, 0.5), (10, 0.5), (16, 0.5), (3, 0.8)])
def test_coverage_beyond_chance_is_asked_of_all_pictures(count: int, margin: float) -> None:
    given = among(count)

    assert audit.beyond_chance(given["conflicts"].dataset, given, margin=margin) is given["conflicts"].dataset


def test_scores_at_random_cover_two_of_all_categories() -> None:
    draws = torch.Generator().manual_seed(0)
    for count in (3, 5, 16):
        decided = decisions(torch.randn(4000, count, generator=draws), [(index,) for index in range(count)])

        assert float((decided < 2).double().mean()) == pytest.approx(2 / count, abs=0.03)  # 4 standard errors


class Named(nn.Module):
    """Scores that are written into an image's first pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return 10 * images[:, 0, 0, :3]


def asked() -> tuple[Classifier, Batch, Conflicts]:
    images = torch.zeros(4, 3, 8, 8)
    for row, score in enumerate(((0.9, 0.1, 0.2), (0.1, 0.9, 0.2), (0.1, 0.2, 0.9), (0.5, 0.5, 0.0))):
        images[row, 0, 0, :3] = torch.tensor(score)
    ids = ("a", "b", "c", "d")
    data = Dataset(
        spec="x", ids=ids, labels=(0, 0, 0, 1), classes=("cat", "mug", "cow"), sha256="", read=lambda _: images[0]
    )
    conflicts = Conflicts(
        dataset=data,
        textures={"a": 1, "b": 1, "c": 1, "d": 0},
        categories={"cat": (0,), "mug": (1,), "cow": (2,)},
        agreeing=2,
    )
    batch = Batch(images=images, labels=torch.tensor(data.labels), ids=ids, seed=0)
    return model(("cat", "mug", "cow"), Named()), batch, conflicts


def test_shape_texture_and_neither_are_counted_with_one_forward_each() -> None:
    subject, batch, conflicts = asked()
    with metered() as cost:
        found = audit.cues(subject, batch, conflicts=conflicts)

    assert found["shape"].tolist() == [1, -1, 0, 0]
    assert found["coverage"].tolist() == [1, 1, 0, 0]
    assert found["decision"].tolist() == [0, 1, 2, -1]
    assert (cost.forwards, cost.backwards) == (4, 0)


def test_what_is_shown_names_both_cues_and_counts_by_shape() -> None:
    subject, batch, conflicts = asked()
    columns = audit.cues(subject, batch, conflicts=conflicts)
    rows = {one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(batch.ids)}
    shown = list(audit.show(subject, batch, rows, column="shape", conflicts=conflicts, cam=None))

    captions = [one.caption for one in shown if isinstance(one, Overlay)]
    assert captions[0].startswith("shape of cat, texture of mug: called cat (")
    assert captions[3].startswith("shape of mug, texture of cat: two are level (")
    (table,) = (one for one in shown if isinstance(one, Table))
    assert table.rows[0][:6] == ("all", 4, 1, 1, 1, 1)
    assert table.rows[1][:6] == ("cat", 3, 1, 1, 1, 0)
    assert table.rows[2][:7] == ("mug", 1, 0, 0, 0, 1, "none")
    assert "2 more, whose cues agree" in table.title


def test_scores_that_are_no_numbers_decide_nothing_and_leave_nothing_open() -> None:
    names = tuple(name.lower() for name in CLASSES)
    conflicts = find_conflicts(None, subject=model(names), n=4, seed=3)
    assert conflicts is not None
    ids = conflicts.dataset.ids

    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            scores = torch.eye(len(CLASSES))[: len(images)].clone()
            scores[1, 3] = torch.nan
            return scores

    labels = torch.tensor([conflicts.dataset.label(one) for one in ids])
    batch = Batch(images=torch.rand(4, 3, 8, 8), labels=labels, ids=ids, seed=0)
    columns = audit.cues(model(CLASSES, Broken()), batch, conflicts=conflicts)

    for name in ("shape", "coverage"):
        assert columns[name].isnan().tolist() == [False, True, False, False]
