"""What is no folder with captions is refused in one line; pictures that do harm are skipped and named."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import bombs
from tests import captions_folders as folders
from tests.captions_folders import found, refused

HEAD = "file,caption,foil,group,relation\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "file,caption\non.png,a\n",
            "needs the columns file, caption, foil, [group], [relation]; it has file, caption",
        ),
        (HEAD, "lists no captions"),
        (HEAD + "on.png,,b,,\n", "line 2 of .* has no caption"),
        (HEAD + "on.png,a,,,\n", "expected a foil other than the caption, got ''"),
        (HEAD + "on.png,a,a,,\n", "expected a foil other than the caption, got 'a'"),
        (HEAD + "on.png,a,,g,\n", "the group 'g' of .* has 1 lines"),
        (HEAD + "on.png,a,,g,\nleft.png,a,,g,\n", "both lines of the group 'g' of .* say 'a'"),
        (HEAD + "on.png,a,c,g,\nleft.png,b,,g,\n", "the foil 'c' is not the other line's caption"),
        (HEAD + "../on.png,a,b,,\n", "names '../on.png'; expected a path inside"),
        (HEAD + "/etc/hostname,a,b,,\n", "names '/etc/hostname'"),
        (
            HEAD + "gone.png,a,b,,\n",
            "no picture of .* can be read, 1 skipped; the first, 'gone.png': the file is missing",
        ),
        ("nothing", "needs the columns"),
    ],
)
def test_a_table_that_cannot_be_asked_is_refused(tmp_path: Path, text: str, words: str) -> None:
    message = refused(folders.table(tmp_path, text))
    assert re.search(words.replace("[group], [relation]", r"\[group\], \[relation\]"), message), message


def change(root: Path, file: str, old: str, new: str) -> Path:
    text = (root / file).read_text(encoding="utf-8")
    assert old in text
    (root / file).write_text(text.replace(old, new), encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("make", "file", "old", "new", "words"),
    [
        (folders.winoground, "examples.jsonl", '"caption_1"', '"text_1"', "example 1 of .* lacks 'caption_1'"),
        (folders.winoground, "examples.jsonl", '"man 0 bites a dog"', "3", "expected words as 'caption_1', got 3"),
        (folders.winoground, "examples.jsonl", '{"id": 1', "id: 1", "line 2 of .* is no JSON"),
        (folders.winoground, "examples.jsonl", '"ex_0_img_0"', '"../../secret"', "expected a path inside"),
        (
            folders.whatsup,
            "controlled_images_dataset.json",
            "mug_on_table",
            "mug_near_table",
            "expected <thing>_<relation>",
        ),
        (folders.whatsup, "controlled_images_dataset.json", "[{", "{", "is no JSON"),
        (folders.whatsup, "controlled_images_dataset.json", "A mug on a table", "A mug under a table", "differ"),
        (
            folders.aro,
            "visual_genome_relation.json",
            '"bbox_w": 6',
            '"bbox_w": 0',
            "a box of a pixel at least, got 0 x 12",
        ),
        (folders.aro, "visual_genome_relation.json", '"bbox_x": 6', '"bbox_x": 600', "lies beside the picture"),
        (
            folders.aro,
            "visual_genome_relation.json",
            '"bbox_x": 6',
            '"bbox_x": "6"',
            "expected a whole number as 'bbox_x'",
        ),
        (folders.sugarcrepe, "swap_obj.json", '"negative_caption"', '"foil"', "lacks 'negative_caption'"),
        (folders.vsr, "test.jsonl", '"label": 1', '"label": 2', r"expected the label 0 \(false\) or 1 \(true\), got 2"),
        (folders.vsr, "test.jsonl", '"label": 1', '"label": true', "expected a whole number as 'label', got True"),
    ],
)
def test_annotations_that_are_not_as_published_are_refused(tmp_path: Path, make, file, old, new, words) -> None:
    message = refused(change(make(tmp_path), file, old, new))
    assert re.search(words, message), message


def test_a_folder_of_no_format_or_of_several_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "gone")
    assert "it holds nothing" in refused(tmp_path)
    folders.picture(tmp_path / "a.png")
    assert "it holds 'a.png'" in refused(tmp_path)
    assert "no annotation file that is known" in refused(tmp_path / "a.png")
    folders.table(tmp_path)
    folders.winoground(tmp_path)
    assert "holds captions.csv, examples.jsonl; name one" in refused(tmp_path)


def test_nesting_without_end_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "swap_obj.json").write_text("[" * 200_000, encoding="utf-8")
    assert "is no JSON" in refused(tmp_path)


WORDS = st.sampled_from(
    ["a", "", "on", "x.png", "../x", "mug_on_table.jpeg", "data/a/mug_left_of_table.jpeg", "\n", "é" * 400]
)
FIELDS = st.sampled_from(
    [
        "id",
        "image",
        "image_0",
        "image_1",
        "caption",
        "caption_0",
        "caption_1",
        "image_path",
        "caption_options",
        "true_caption",
        "false_caption",
        "relation_name",
        "attributes",
        "bbox_x",
        "bbox_y",
        "bbox_w",
        "bbox_h",
        "filename",
        "negative_caption",
        "label",
        "0",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=9),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "name",
    [
        "examples.jsonl",
        "controlled_images_dataset.json",
        "coco_qa_two_obj.json",
        "visual_genome_relation.json",
        "visual_genome_attribution.json",
        "coco_order.json",
        "swap_obj.json",
        "test.jsonl",
    ],
)
@settings(max_examples=60, deadline=None)
@given(content=ANYTHING)
def test_whatever_stands_in_an_annotation_file_is_refused_in_one_line(tmp_path_factory, name: str, content) -> None:
    root = tmp_path_factory.getbasetemp() / "anything" / name.partition(".")[0]  # without pictures nothing can be asked
    refused(folders.write(root / name, content).parent)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    folders.table(root)
    folders.picture(tmp_path / "outside.png")
    (root / "on.png").unlink()
    (root / "on.png").symlink_to(tmp_path / "outside.png")
    read = found(root)

    assert read.skipped == (("on.png", "is a link out of the folder; copy the file into it"),)
    assert [item.id for item in read.items] == ["captions.csv-group-mug"]


def test_a_picture_that_would_fill_the_memory_and_a_damaged_one_are_skipped_and_named(tmp_path: Path) -> None:
    folders.table(tmp_path)
    (tmp_path / "on.png").write_bytes(bombs.png(30_000, 30_000))
    read = found(tmp_path)
    ((file, reason),) = read.skipped
    assert file == "on.png"
    assert "DecompressionBomb" in reason

    (tmp_path / "left.png").write_bytes(b"\x89PNG nothing")
    assert "no picture of" in refused(tmp_path)
