"""Pictures stacked two by two: who stands over whom, and where the seam comes to lie."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from torch import nn

from camcore.errors import BadInput
from camcore.images import Dataset, Geometry, load
from camcore.subject import Classifier
from fixtures.datasets.find import find_dataset
from fixtures.datasets.stackmix import pairs, stackmix


def greys(count: int, labels: tuple[int, ...], size: tuple[int, int] = (40, 56)) -> Dataset:
    """Image n is grey n/count all over."""
    return Dataset(
        spec="greys",
        ids=tuple(f"{index}.png" for index in range(count)),
        labels=labels,
        classes=("a", "b", "c"),
        sha256="greys",
        read=lambda one: torch.full((3, *size), int(one.partition(".")[0]) / count),
    )


@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=30), seed=st.integers(0, 100))
def test_a_picture_stands_over_another_one_of_its_class_wherever_there_is_one(labels: list[int], seed: int) -> None:
    found = pairs(labels, seed=seed)

    assert len(found) == len(labels)
    for upper, lower in enumerate(found):
        assert upper != lower
        assert labels[upper] == labels[lower] or labels.count(labels[upper]) == 1


@given(count=st.integers(2, 20), seed=st.integers(0, 100))
def test_within_a_class_every_picture_is_below_exactly_once(count: int, seed: int) -> None:
    assert sorted(pairs([3] * count, seed=seed)) == list(range(count))


def test_the_pairs_are_the_seeds_own() -> None:
    labels = [0] * 12

    assert pairs(labels, seed=1) == pairs(labels, seed=1)
    assert pairs(labels, seed=1) != pairs(labels, seed=2)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(crop=(224, 224)),
        Geometry(crop=(224, 224), resize=256),
        Geometry(crop=(96, 64), resize=100),
        Geometry(crop=(32, 48), resize=40),
        Geometry(crop=(32, 48), resize=32),
    ],
)
def test_the_seam_lies_at_row_170_of_224_of_what_the_model_is_shown(geometry: Geometry) -> None:
    size = (300, 350) if geometry.resize is None else (geometry.crop[0] + 21, geometry.crop[1] + 50)
    plain = greys(4, (0, 0, 1, 1), size)
    data = stackmix(plain, spec="stackmix:greys", geometry=geometry, seed=3)
    batch = load(data, data.ids, geometry, seed=0, device=torch.device("cpu"))
    seam = round(geometry.crop[0] * 170 / 224)

    for image, image_id in zip(batch.images, batch.ids, strict=True):
        upper, lower = (plain.read(name)[0, 0, 0] for name in image_id.split(" over "))
        assert image.shape == (3, *geometry.crop)
        torch.testing.assert_close(image[:, :seam], upper.expand_as(image[:, :seam]))
        torch.testing.assert_close(image[:, seam:], lower.expand_as(image[:, seam:]))


def test_the_label_is_the_upper_pictures_and_the_id_says_where_the_lower_one_is_another() -> None:
    data = stackmix(greys(3, (0, 0, 2)), spec="stackmix:greys", geometry=Geometry(crop=(32, 32)), seed=0)

    assert data.labels == (0, 0, 2)
    assert data.ids[:2] == ("0.png over 1.png", "1.png over 0.png")
    assert data.ids[2].startswith("2.png over ")
    assert data.ids[2].endswith(" (another class)")


def test_another_seed_or_size_is_another_data_set() -> None:
    def made(seed: int, side: int) -> str:
        geometry = Geometry(crop=(side, side))
        return stackmix(greys(8, (0,) * 8), spec="stackmix:greys", geometry=geometry, seed=seed).sha256

    assert made(0, 32) == made(0, 32)
    assert len({made(0, 32), made(1, 32), made(0, 36)}) == 3


def test_a_single_picture_cannot_be_stacked() -> None:
    with pytest.raises(BadInput, match=r"stackmix:greys stacks pictures two by two and found 1; give a folder"):
        stackmix(greys(1, (0,)), spec="stackmix:greys", geometry=Geometry(crop=(32, 32)), seed=0)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(3):
            shade = np.full((40, 40, 3), 40 * index, dtype=np.uint8)
            Pillow.fromarray(shade).save(tmp_path / name / f"{index}.png")
    return tmp_path


@pytest.fixture
def model() -> Callable[[], Classifier]:
    def made() -> Classifier:
        geometry = Geometry(crop=(32, 32), resize=36)
        return Classifier(name="tiny", spec="tiny", module=nn.Identity(), geometry=geometry, classes=("cat", "dog"))

    return made


def test_any_labelled_folder_can_be_stacked_by_name(animals: Path, model: Callable[[], Classifier]) -> None:
    data = find_dataset(f"stackmix:{animals}", subject=model(), seed=5)

    assert data.spec == f"stackmix:{animals}"
    assert data.labels == (0, 0, 0, 1, 1, 1)
    assert all(one.split(" over ")[0][:3] == one.split(" over ")[1][:3] for one in data.ids)
    assert data.sha256 != find_dataset(str(animals), subject=model()).sha256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("stackmix", "needs pictures to stack; pass stackmix:FOLDER"),
        ("stackmix:nowhere", "'nowhere' is neither a folder nor a known set"),
    ],
)
def test_what_cannot_be_stacked_is_said(spec: str, message: str, model: Callable[[], Classifier]) -> None:
    with pytest.raises(BadInput, match=message):
        find_dataset(spec, subject=model())
