"""What the classes of a data set are called, before there is a model."""

from pathlib import Path

import pytest

from camcore.errors import BadInput
from fixtures.datasets.class_names import class_names
from fixtures.datasets.scenes import scenes


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def table(root: Path, *lines: str) -> Path:
    (root / "labels.csv").write_text("\n".join(("file,class_index,label", *lines)), encoding="utf-8")
    return root


def test_sets_that_are_known_have_their_own_names() -> None:
    assert class_names("scenes") == scenes(1, seed=0).classes
    assert class_names("cifar10")[3] == class_names("cifar10:some.npz")[3] == "cat"
    assert class_names("imagenette")[1] == "English springer"


def test_folders_are_called_what_a_caption_calls_their_class(tmp_path: Path) -> None:
    root = folder(tmp_path, "golden_retriever", "cat", "masks", ".git", "n03888257")
    assert class_names(str(root)) == ("cat", "golden retriever", "parachute")
    assert class_names(f"stackmix:{root}") == class_names(str(root))


def test_a_table_names_its_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert class_names(str(table(tmp_path, "x.png,1,old_mug", "y.png,0,cat", "z.png,1,old_mug"))) == ("cat", "old mug")


def test_a_table_of_some_of_imagenets_classes_stands_for_all_of_them(tmp_path: Path) -> None:
    names = class_names(str(table(tmp_path, "x.png,2,great white shark", "y.png,217,English springer")))
    assert len(names) == 1000
    assert (names[2], names[217]) == ("great white shark", "English springer")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x.png,0,cat", "y.png,2,dog"], "has no name for class 1, and a model of captions has to be told every one"),
        (["x.png,0,cat", "y.png,0,dog"], "calls class 0 'cat' and 'dog'; name it once"),
        (["x.png,one,cat"], "gives 'x.png' the class 'one' named 'cat'; expected both"),
        (["x.png,0,"], "gives 'x.png' the class '0' named ''; expected both"),
        ([], "lists no images"),
    ],
)
def test_a_table_that_leaves_a_class_unnamed_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        class_names(str(table(tmp_path, *lines)))


def test_data_without_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="have no names to ask a model of captions about"):
        class_names(str(folder(tmp_path, "0", "1")))
    with pytest.raises(BadInput, match="is neither a folder nor one of cifar10, imagenette, scenes"):
        class_names(str(tmp_path / "nothing"))
