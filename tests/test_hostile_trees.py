"""Random trees of links, pipes, bombs and odd names are read, or refused in one line."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camcore.errors import BadInput
from camcore.images import Dataset
from fixtures.datasets.captions import find_captions
from tests.packed_folders import BOMBS, MODEL, found, picture

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
