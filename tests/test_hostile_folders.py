"""A folder that somebody else packed is read without harm: links, pipes, odd names, tables."""

import os
from pathlib import Path

import pytest

from camcore.errors import BadInput
from fixtures.datasets.captions import find_captions
from fixtures.datasets.files import Unusable, read_file, user_path
from fixtures.datasets.find import find_dataset
from fixtures.datasets.table import read_table
from tests.packed_folders import MODEL, found, picture, skipped
from tests.refusals import refusal

LINK = "is a link out of the folder; copy the file into it"


def test_pipes_folders_and_files_that_may_not_be_read_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "cat" / "good.png")
    picture(tmp_path / "cat" / "folder.jpg" / "inside.png")
    locked = picture(tmp_path / "cat" / "locked.png")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    read = Path.read_bytes

    def denied(file: Path) -> bytes:  # whoever runs the tests as root may read all
        if file == locked:
            raise PermissionError(13, "Permission denied")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", denied)

    assert found(tmp_path).ids == ("cat/folder.jpg/inside.png", "cat/good.png")
    assert skipped(tmp_path) == {
        "cat/locked.png": "cannot be read (Permission denied)",
        "cat/pipe.jpg": "is no regular file",
    }


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "cat" / "good.png")
    closed = picture(tmp_path / "cat" / "closed" / "a.png").parent
    listed = os.scandir

    def denied(path: str) -> object:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert skipped(tmp_path) == {"cat/closed": "cannot be listed (Permission denied)"}

    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert "cannot be listed (Permission denied)" in refusal(find_dataset, str(tmp_path), subject=MODEL)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside"
    picture(root / "cat" / "good.png")
    picture(outside / "secret.png")
    (root / "cat" / "out.png").symlink_to(outside / "secret.png")
    (root / "cat" / "endless.jpg").symlink_to("/dev/zero")
    (root / "cat" / "nowhere.png").symlink_to(root / "gone.png")
    (root / "cat" / "round.png").symlink_to(root / "cat" / "round.png")
    (root / "cat" / "below").symlink_to(outside)
    (root / "dog").symlink_to(outside)
    (root / "great white shark").symlink_to("/")

    assert found(root).ids == ("cat/good.png",)
    reasons = skipped(root)
    assert reasons.keys() == {
        *(f"cat/{name}" for name in ("out.png", "endless.jpg", "nowhere.png", "round.png", "below")),
        "dog",
        "great white shark",
    }
    assert reasons["cat/out.png"] == reasons["cat/endless.jpg"] == LINK
    assert reasons["cat/below"] == "is a link to a folder, which is not followed"
    assert reasons["dog"] == reasons["great white shark"] == "is a link out of the folder; copy what it leads to"


def test_a_link_inside_the_folder_and_the_folder_itself_as_a_link_are_fine(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "cat" / "a.png")
    (tmp_path / "data" / "cat" / "b.png").symlink_to(tmp_path / "data" / "cat" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")

    assert found(tmp_path / "link").ids == found(tmp_path / "data").ids == ("cat/a.png", "cat/b.png")
    assert skipped(tmp_path / "link") == {}


@pytest.mark.parametrize("name", ["labels.csv", "boxes.csv"])
def test_a_table_that_is_a_link_out_of_the_folder_is_not_quoted(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0\n", encoding="utf-8")
    picture(tmp_path / "data" / "cat" / "a.png")
    (tmp_path / "data" / name).symlink_to(secret)

    message = refusal(find_dataset, str(tmp_path / "data"), subject=MODEL)

    assert LINK in message
    assert "root:x" not in message


@pytest.mark.parametrize("what", ["the tree", "one mask"])
def test_masks_that_are_links_out_of_the_folder_are_refused(what: str, tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside"
    picture(root / "cat" / "a.png")
    picture(outside / "cat" / "a.png")
    if what == "the tree":
        (root / "masks").symlink_to(outside)
    else:
        (root / "masks" / "cat").mkdir(parents=True)
        (root / "masks" / "cat" / "a.png").symlink_to(outside / "cat" / "a.png")

    assert "is a link out of the folder" in refusal(find_dataset, str(root), subject=MODEL)


def test_captions_that_are_a_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"password": 1}\n', encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "examples.jsonl").symlink_to(tmp_path / "secret")

    message = refusal(find_captions, str(tmp_path / "data"), geometry=MODEL.geometry)

    assert LINK in message
    assert "password" not in message


ODD = {
    "a null": ("a\0.png", "its name holds a null character; rename it"),
    "ten thousand letters": ("a" * 10_000, "cannot be read (File name too long)"),
}


@pytest.mark.parametrize("case", ODD)
def test_a_table_may_name_what_is_no_name(case: str, tmp_path: Path) -> None:
    name, reason = ODD[case]
    picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(f"file,class_index\na.png,0\n{name},1\n", encoding="utf-8")

    assert skipped(tmp_path) == {name: reason}


def test_a_name_that_is_no_utf_8_is_skipped(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "good.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/caf\xe9.png")).write_bytes((tmp_path / "cat/good.png").read_bytes())

    assert list(skipped(tmp_path).values()) == ["its name is no UTF-8; rename it"]
    assert found(tmp_path).ids == ("cat/good.png",)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("file,class_index\na.png," + "9" * 5000, "expected 0 to 2"),
        ("file,class_index\n" + "a" * 200_000 + ",0", "field larger than field limit"),
        ("x" * 100_000, "needs the columns file, class_index, label"),
        ("file,class_index\n../../etc/passwd,0", "expected a path inside the folder"),
        ("file,class_index\n/etc/passwd,0", "expected a path inside the folder"),
    ],
)
def test_a_hostile_table_is_refused_in_one_short_line(content: str, hint: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(content, encoding="utf-8")

    assert hint in refusal(find_dataset, str(tmp_path), subject=MODEL)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk

    with pytest.raises(Unusable, match=r"has 1,099,511,627,776 bytes, more than the"):
        read_file(tmp_path / "labels.csv")
    with pytest.raises(BadInput, match="bytes, more than the"):
        read_table(tmp_path / "labels.csv", needs=("file",), header="file")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("file,caption,foil\na.png,a mug, left of a cup,a cup\n", r"line 2 of .* has 4 fields, the header 3; quote"),
        ("file,caption,caption\na.png,a,b\n", "has the column 'caption' twice"),
    ],
)
def test_a_table_whose_fields_do_not_fit_its_header_is_refused(text: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=hint):
        read_table(tmp_path / "captions.csv", needs=("file", "caption"), header="file, caption", may=("foil",))


@pytest.mark.parametrize("text", ['[{"image": ' + "9" * 5000 + "}]", r'[{"image": "\ud800"}]', "[" * 5000])
def test_annotations_that_json_can_hold_and_nothing_else_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "coco_order.json").write_text(text, encoding="utf-8")

    assert "is no JSON" in refusal(find_captions, str(tmp_path), geometry=MODEL.geometry)


@pytest.mark.parametrize("spec", ["~nobody-by-that-name/photos", "a" * 10_000, "a\0b"])
def test_data_that_is_no_path_is_refused(spec: str) -> None:
    with pytest.raises(BadInput, match="is neither a folder nor a known set"):
        found(spec)
    assert str(user_path(spec)) == spec
