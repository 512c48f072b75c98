"""Folders with captions, read as their benchmarks publish them; and what is no such folder, refused in one line."""

import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camcore.images import Geometry
from fixtures.datasets.binding_scenes import binding_scenes
from fixtures.datasets.captions import drawn_captions, find_captions
from tests import captions_folders as folders
from tests.refusals import refusal

SQUASHED = Geometry(crop=(16, 16), squash=True)


def found(root: Path | str):
    return find_captions(str(root), geometry=SQUASHED)


def refused(root: Path | str) -> str:
    return refusal(find_captions, str(root), geometry=SQUASHED)


def test_winoground_is_groups_of_two_pictures_and_two_captions(tmp_path: Path) -> None:
    read = found(folders.winoground(tmp_path, 3))

    assert read.benchmark == "Winoground"
    assert [item.id for item in read.items] == ["winoground-0", "winoground-1", "winoground-2"]
    item = read.items[1]
    assert item.captions == (("a dog bites man 1",), ("man 1 bites a dog",))
    assert (item.offered, item.groups, item.relation) == (((0, 1), (1, 0)), (item,), "Object")
    pictures = read.pictures(item, SQUASHED)
    assert pictures.shape == (2, 3, 16, 16)
    assert pictures.mean((1, 2, 3)).mul(255).round().tolist() == [10, 11]


def test_whatsup_is_sets_of_four_with_the_true_caption_first_for_each_picture(tmp_path: Path) -> None:
    read = found(folders.whatsup(tmp_path))

    first, second = read.items
    assert first.id == "controlled_images-mug-table"
    assert [picture.file.split("_")[2] for picture in first.pictures] == ["left", "right", "on", "under"]
    for item in (first, second):
        assert len(item.captions) == 4
        assert item.pairs == ((0, 1), (2, 3))
        for picture, offered in zip(item.pictures, item.offered, strict=True):
            assert sorted(offered) == [0, 1, 2, 3]
            relation = Path(picture.file).stem.split("_")[1]
            assert folders.WORDS[relation].split()[2] in item.captions[offered[0]][0]
    sides, heights = second.groups
    assert [caption[0].split(" a ")[0] for caption in sides.captions] == [
        "A beer-bottle to the left of",
        "A beer-bottle to the right of",
    ]
    assert heights.pictures == second.pictures[2:]
    assert len({group.id for group in read.groups}) == 4


def test_whatsup_b_and_a_set_that_lacks_a_picture_are_read(tmp_path: Path) -> None:
    folders.whatsup(tmp_path, ("mug_plate",), ("left", "right", "in-front", "behind"))
    (tmp_path / "controlled_images_dataset.json").rename(tmp_path / "controlled_clevr_dataset.json")
    assert found(tmp_path).items[0].pairs == ((0, 1), (2, 3))

    (tmp_path / "controlled_images" / "mug_behind_plate.jpeg").unlink()
    message = refused(tmp_path)
    assert "mug_behind_plate.jpeg" in message
    assert "missing" in message


def test_whatsups_photographs_of_coco_are_named_by_their_number(tmp_path: Path) -> None:
    folders.picture(tmp_path / "val2017" / "000000000139.jpg")
    said = ["A photo of a cat to the left of a dog", "A photo of a cat to the right of a dog"]
    folders.write(tmp_path / "coco_qa_two_obj.json", [[139, *said]])
    (item,) = found(tmp_path).items

    assert (item.part, item.relation, item.groups) == ("coco_qa_two_obj", "left", ())
    assert [caption[0] for caption in item.captions] == said


def test_aro_cuts_its_box_out_and_may_leave_symmetric_relations_out(tmp_path: Path) -> None:
    read = found(folders.aro(tmp_path))

    assert [item.relation for item in read.items] == ["on", "on", "on", "behind"]
    image = read.read(read.items[0].pictures[0])
    assert image.shape == (3, 12, 6)
    torch.testing.assert_close(image, torch.full_like(image, 200 / 255))
    (tmp_path / "symmetric.txt").write_text("on\n\n", encoding="utf-8")
    assert [item.relation for item in found(tmp_path).items] == ["behind"]


def test_aros_attributes_are_pairs_and_its_orders_are_read_if_somebody_drew_them(tmp_path: Path) -> None:
    folders.picture(tmp_path / "images" / "1.jpg")
    said = {"true_caption": "the red cup and the blue box", "false_caption": "the blue cup and the red box"}
    box = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 12.0, "bbox_h": 12}
    record = {"image_path": "1.jpg", "attributes": ["red", "blue"], **box, **said}
    folders.write(tmp_path / "visual_genome_attribution.json", [record])
    assert found(tmp_path).items[0].relation == "red_blue"

    (tmp_path / "visual_genome_attribution.json").unlink()
    folders.write(tmp_path / "coco_karpathy_test.json", [{"image": "1.jpg", "caption": ["a cup"]}])
    assert "has no foils" in refused(tmp_path)
    options = ["a cup on a box", "on a a box cup", "a cup on a box", "box cup a on a"]
    folders.write(tmp_path / "coco_order.json", [{"image": "1.jpg", "caption_options": options}])
    (item,) = found(tmp_path).items
    assert [caption[0] for caption in item.captions] == [options[0], options[1], options[3]]


def test_sugarcrepe_is_a_part_for_each_category_and_a_foil_that_is_none_asks_nothing(tmp_path: Path) -> None:
    read = found(folders.sugarcrepe(tmp_path))

    assert {item.part: [caption[0] for caption in item.captions] for item in read.items} == {
        "add_att": ["a bus", "a red bus"],
        "swap_obj": ["a cat on a dog", "a dog on a cat"],
    }
    assert found(tmp_path / "swap_obj.json").items == read.items[1:]


def test_vsr_says_true_or_false_of_the_caption(tmp_path: Path) -> None:
    read = found(folders.vsr(tmp_path))

    assert [[caption[0] for caption in item.captions] for item in read.items] == [
        ["The cat is on the mat. (True)", "The cat is on the mat. (False)"],
        ["The cat is under the mat. (False)", "The cat is under the mat. (True)"],
    ]


def test_an_annotation_file_finds_the_pictures_in_a_folder_above_it(tmp_path: Path) -> None:
    folders.vsr(tmp_path)
    splits = tmp_path / "splits" / "random"
    splits.mkdir(parents=True)
    (tmp_path / "test.jsonl").rename(splits / "test.jsonl")
    shutil.copy(splits / "test.jsonl", splits / "dev.jsonl")

    assert len(found(splits / "test.jsonl").items) == 2
    message = refused(tmp_path)
    assert "name one: --data" in message
    assert "splits/random/test.jsonl" in message


def test_a_table_has_lines_alone_and_lines_in_groups(tmp_path: Path) -> None:
    read = found(folders.table(tmp_path))
    alone, group = read.items

    assert (alone.captions, alone.groups) == ((("a mug on a table",), ("a mug under a table",)), ())
    assert read.groups == (group,)
    assert group.captions == (("a mug left of a plate",), ("a mug right of a plate",))
    assert (group.relation, alone.relation) == ("side", "unnamed")
    assert read.grouped.ids == ("captions.csv-group-mug",)
    assert read.dataset.ids == (alone.id, group.id)


def test_the_hash_sees_the_pictures_and_the_captions(tmp_path: Path) -> None:
    hashes = [found(folders.table(tmp_path)).sha256 for _ in range(2)]
    folders.picture(tmp_path / "on.png", 7)
    hashes.append(found(tmp_path).sha256)
    text = (tmp_path / "captions.csv").read_text(encoding="utf-8")
    (tmp_path / "captions.csv").write_text(text.replace("under", "below"), encoding="utf-8")
    hashes.append(found(tmp_path).sha256)

    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_drawn_captions_are_the_scenes_groups() -> None:
    bindings = binding_scenes(3, seed=4, size=48)
    drawn = drawn_captions(bindings)

    assert drawn.items == drawn.groups
    assert drawn.dataset.sha256 == drawn.grouped.sha256 == bindings.first.sha256
    item, group = drawn.items[2], bindings.groups[2]
    assert (item.id, item.captions, item.relation) == (group.id, group.captions, group.relation)
    expected = torch.stack(bindings.draw(group)[0])
    assert torch.equal(drawn.pictures(item, Geometry(crop=(48, 48), squash=True)), expected)


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


def bomb(file: Path, side: int = 30_000) -> None:
    """A PNG of a few kilobytes that says it has 900 million pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes((side // 8 + 1) * 20))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_a_picture_that_would_fill_the_memory_and_a_damaged_one_are_skipped_and_named(tmp_path: Path) -> None:
    folders.table(tmp_path)
    bomb(tmp_path / "on.png")
    read = found(tmp_path)
    ((file, reason),) = read.skipped
    assert file == "on.png"
    assert "DecompressionBomb" in reason

    (tmp_path / "left.png").write_bytes(b"\x89PNG nothing")
    assert "no picture of" in refused(tmp_path)
