"""A folder that somebody else packed is read without harm: bombs, links, pipes, odd names, random trees."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageFile
from torch import nn

from camcore.errors import BadInput
from camcore.images import Dataset, Geometry
from camcore.subject import Classifier
from fixtures.artefacts import read_artefact
from fixtures.datasets.captions import find_captions
from fixtures.datasets.files import MOST_PIXELS, Unusable, read_file, user_path
from fixtures.datasets.find import find_dataset
from fixtures.datasets.folder import decode
from fixtures.datasets.table import read_table
from tests import bombs
from tests.refusals import refusal

MODEL = Classifier(
    name="tiny",
    spec="tiny",
    module=nn.Identity(),
    geometry=Geometry(crop=(8, 8), resize=8),
    classes=("cat", "dog", "great white shark"),
)
LINK = "is a link out of the folder; copy the file into it"


def picture(file: Path, size: tuple[int, int] = (12, 10)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", size, "red").save(file, "PNG")
    return file


def found(root: Path | str) -> Dataset:
    return find_dataset(str(root), subject=MODEL)


def skipped(root: Path) -> dict[str, str]:
    """Why each file of a folder is left alone; what can be read is read."""
    data = found(root)
    for image_id in data.ids:
        assert data.read(image_id).isfinite().all()
    return dict(data.skipped)


BOMBS: dict[str, bytes] = {
    "png": bombs.png(30_000, 30_000),
    "just too large png": bombs.png(9_460, 9_460),
    "gif": bombs.gif(65_000, 65_000),
    "bmp": bombs.bmp(30_000, 30_000),
    "tiff": bombs.tiff(30_000, 30_000),
    "webp": bombs.webp(16_384, 16_384),
    "strip": bombs.png(1, 60_000_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_picture_too_large_is_skipped_before_its_pixels_are_decoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "cat" / "good.png")
    (tmp_path / "cat" / "bomb.png").write_bytes(BOMBS[kind])
    loaded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (loaded.append(self.size), load(self))[1])

    reason = skipped(tmp_path)["cat/bomb.png"]

    assert "pixels" in reason
    assert set(loaded) == {(12, 10)}
    assert len(reason.splitlines()) == 1
    assert MOST_PIXELS < 9_460**2


def test_of_thousands_of_frames_the_first_counts() -> None:
    image = decode(bombs.animated(1000))

    assert image.shape == (3, 8, 8)
    assert image.max() == 0


def test_a_picture_in_a_format_that_is_not_expected_is_not_handed_to_its_decoder(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "good.png")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "cat" / "page.jpg").write_bytes(program)

    assert "cannot identify image file" in skipped(tmp_path)["cat/page.jpg"]


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


def test_an_artefact_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "it.png").write_bytes(BOMBS["png"])

    with pytest.raises(BadInput, match="cannot be read as a picture"):
        read_artefact(tmp_path / "it.png")


@pytest.mark.parametrize("text", ['[{"image": ' + "9" * 5000 + "}]", r'[{"image": "\ud800"}]', "[" * 5000])
def test_annotations_that_json_can_hold_and_nothing_else_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "coco_order.json").write_text(text, encoding="utf-8")

    assert "is no JSON" in refusal(find_captions, str(tmp_path), geometry=MODEL.geometry)


@pytest.mark.parametrize("spec", ["~nobody-by-that-name/photos", "a" * 10_000, "a\0b"])
def test_data_that_is_no_path_is_refused(spec: str) -> None:
    with pytest.raises(BadInput, match="is neither a folder nor a known set"):
        found(spec)
    assert str(user_path(spec)) == spec


# a tree: paths of a few odd names, and what lies there
NAMES = st.sampled_from(
    [
        *("cat", "dog", "0", "masks", "great_white-shark", ".git", "a.png", "b.JPG", "c.gif", "labels.csv"),
        *(
            "boxes.csv",
            "captions.csv",
            "\x1b[31m.png",
            "two\nlines.png",
            "\u202egnp.a",
            "x" * 200 + ".png",
            " ",
            "ü.png",
        ),
    ]
)
CONTENTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "noise": lambda: bytes(range(256)),
    "a picture": lambda: decodable,
    "half a picture": lambda: decodable[: len(decodable) // 2],
    "a bomb": lambda: BOMBS["png"],
    "labels": lambda: b"file,class_index\ncat/a.png,0\n../x.png,1\n",
    "good labels": lambda: b"file,class_index\ncat/a.png,0\na.png,2\n",
    "boxes": lambda: b"file,x0,y0,x1,y1\ncat/a.png,0,0,nan,9\na.png,1,1,3,3\n",
    "captions": lambda: b"file,caption,foil\na.png,<b>a,b\ncat/a.png,c,c\n",
}
with TemporaryDirectory() as made:
    decodable = picture(Path(made) / "a.png").read_bytes()
KINDS = st.sampled_from([*CONTENTS, "a link", "a pipe"])
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(tuple), KINDS, max_size=8)
WITH_ONE = TREES.map(lambda tree: {("cat", "a.png"): "a picture", **tree})


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(TREES | WITH_ONE)
def test_any_folder_is_read_or_refused_in_one_line(tree: dict[tuple[str, ...], str]) -> None:
    with TemporaryDirectory() as made:
        root = Path(made) / "data"
        root.mkdir()
        for parts, kind in tree.items():
            plant(root.joinpath(*parts), kind)
        for look in (found, lambda at: find_captions(str(at), geometry=MODEL.geometry)):
            try:
                data = look(root)
            except BadInput as problem:
                said = str(problem)
            else:
                said = "read"
                assert_readable(data)
            assert re.fullmatch(r"[^\n\x1b]+", said)


def plant(file: Path, kind: str) -> None:
    """Put it there, unless something lies in the way."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if kind == "a link":
            file.symlink_to("..")
        elif kind == "a pipe":
            os.mkfifo(file)
        else:
            file.write_bytes(CONTENTS[kind]())
    except OSError:
        return


def assert_readable(data: object) -> None:
    """Every picture that was promised is there."""
    if isinstance(data, Dataset):
        assert all(torch.isfinite(data.read(image_id)).all() for image_id in data.ids)
        assert len(data) > 0
    else:
        assert all(torch.isfinite(data.read(one)).all() for item in data.items for one in item.pictures)  # type: ignore[attr-defined]
