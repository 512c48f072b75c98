"""Folders of pictures with two cues: whose classes the categories are, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcore.errors import BadInput
from fixtures.datasets.cue_conflict import conflict_folder, find_conflicts
from fixtures.datasets.folder import match_names
from fixtures.datasets.imagenette import CLASSES as IMAGENETTE
from fixtures.datasets.sixteen import SIXTEEN
from tests.cued import model


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (200, 10, 10)).save(root / name)
    return root


def test_a_folder_is_read_as_the_authors_publish_theirs(tmp_path: Path) -> None:
    put(tmp_path, "cat/cat1-elephant2.png", "cat/cat7-cat3.png", "elephant/elephant10-cat1.png")
    found = conflict_folder(tmp_path, subject=model(tuple(map(str, range(1000)))))

    assert found.dataset.ids == ("cat/cat1-elephant2.png", "elephant/elephant10-cat1.png")
    names = list(found.categories)
    assert [names[label] for label in found.dataset.labels] == ["cat", "elephant"]
    assert [names[found.textures[one]] for one in found.dataset.ids] == ["elephant", "cat"]
    assert found.categories["elephant"] == (385, 386)
    assert found.agreeing == 1


def imagenet() -> tuple[str, ...]:
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.DEFAULT.meta["categories"])


@pytest.mark.parametrize(
    "spelt",
    [str, str.upper, lambda name: f"{name}, another word for it", lambda name: f"a word, {name}"],
    ids=["as torchvision does", "in capitals", "first of synonyms", "last of synonyms"],
)
def test_the_sixteen_are_known_by_the_names_of_imagenets_classes(spelt: Callable[[str], str], tmp_path: Path) -> None:
    put(tmp_path, "cat/cat1-elephant2.png")
    found = conflict_folder(tmp_path, subject=model(tuple(map(spelt, imagenet()))))

    assert found.categories == SIXTEEN
    assert match_names(list(SIXTEEN), imagenet()) == [None] * len(SIXTEEN)  # none is a class itself


def by_wordnet() -> tuple[str, ...]:
    """A thousand rising numbers, with those that are known where ImageNet has them."""
    known = sorted((index, int(number[1:])) for number, (index, _) in IMAGENETTE.items())
    numbers = np.interp(np.arange(1000), *zip(*known, strict=True)).round().astype(int)
    numbers[known[-1][0] :] += np.arange(1000 - known[-1][0])  # beyond the last it would stand still
    return tuple(f"n{number:08}" for number in numbers)


def test_the_sixteen_are_known_by_wordnets_numbers_in_imagenets_order(tmp_path: Path) -> None:
    put(tmp_path, "cat/cat1-elephant2.png")

    assert conflict_folder(tmp_path, subject=model(by_wordnet())).categories == SIXTEEN
    with pytest.raises(BadInput, match="known as classes of ImageNet, and tiny has others"):
        conflict_folder(tmp_path, subject=model(by_wordnet()[::-1]))


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (tuple(f"bird number {index} of Borneo" for index in range(1000)), "'bird number 404 of Borneo'"),
        (imagenet()[::-1], f"{imagenet()[999 - 404]!r}"),
        ((*imagenet()[500:], *imagenet()[:500]), f"{imagenet()[904]!r}"),
    ],
    ids=["birds", "backwards", "halves swapped"],
)
def test_a_thousand_other_classes_are_not_scored_as_imagenets(
    classes: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    put(tmp_path, "cat/cat1-elephant2.png", "elephant/elephant1-cat2.png")
    with pytest.raises(BadInput, match="its sixteen categories are known as classes of ImageNet") as caught:
        conflict_folder(tmp_path, subject=model(classes))

    assert f"class 404 is {said} where ImageNet's is 'airliner'; name the sub-folders" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_thousand_classes_with_a_cat_among_them_are_asked_about_that_cat(tmp_path: Path) -> None:
    put(tmp_path, "cat/cat1-elephant2.png", "elephant/elephant1-cat2.png")
    found = conflict_folder(tmp_path, subject=model(("cat", "elephant", *(f"thing {index}" for index in range(998)))))

    assert found.categories["cat"] == (0,)
    assert found.dataset.labels == (0, 1)


def test_the_categories_of_another_model_are_its_classes(tmp_path: Path) -> None:
    put(tmp_path, "beach ball/beach_ball1-t-shirt2.png", "t-shirt/t-shirt1-beach ball4.png")
    found = conflict_folder(tmp_path, subject=model(("beach ball", "mug", "T-shirt")))

    assert found.dataset.labels == (0, 2)
    assert list(found.textures.values()) == [2, 0]
    assert found.categories == {"beach ball": (0,), "mug": (1,), "T-shirt": (2,)}


def test_what_is_named_otherwise_is_left_out_and_told(tmp_path: Path) -> None:
    put(tmp_path, "cat/cat1-mug1.png", "cat/picture.png", "cat/mug1-cat1.png", "cat/cat1-cow2.png", "mug/mug1-cat1.png")
    found = conflict_folder(tmp_path, subject=model(("cat", "mug")))

    assert found.dataset.ids == ("cat/cat1-mug1.png", "mug/mug1-cat1.png")
    assert dict(found.dataset.skipped) == {
        f"cat/{name}.png": "is not named cat<number>-<texture><number>"
        for name in ("picture", "mug1-cat1", "cat1-cow2")
    }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "holds no images"),
        (["cat/cat1-cat2.png"], "has no picture with two cues, 0 skipped, 1 whose cues agree"),
        (["cat/x.png"], "1 skipped, 0 whose cues agree; the first, 'cat/x.png': is not named"),
        (["cow/cow1-cat2.png", "cat/cat1-mug1.png"], "1 of the 2 sub-folders"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)) as caught:
        conflict_folder(put(tmp_path, *names), subject=model(("cat", "mug", "fish")))

    assert str(caught.value).startswith(f"--audit-cues {str(tmp_path)!r}")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--audit-cues needs a folder"):
        find_conflicts(tmp_path / "no", subject=model(("cat", "mug")), n=4, seed=0)
