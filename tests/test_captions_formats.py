"""Folders with captions, read as their benchmarks publish them; and what is drawn instead."""

import shutil
from pathlib import Path

import torch

from camcore.images import Geometry
from fixtures.datasets.binding_scenes import binding_scenes
from fixtures.datasets.captions import drawn_captions
from tests import captions_folders as folders
from tests.captions_folders import SQUASHED, found, refused


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
    assert [group.relation for group in read.groups] == ["left", "on"] * 2  # as the claims about each are called
    assert len({group.id for group in read.groups}) == 4


def test_whatsup_b_and_a_set_that_lacks_a_picture_are_read(tmp_path: Path) -> None:
    folders.whatsup(tmp_path, ("mug_plate",), ("left", "right", "in-front", "behind"))
    (tmp_path / "controlled_images_dataset.json").rename(tmp_path / "controlled_clevr_dataset.json")
    (item,) = found(tmp_path).items
    assert item.pairs == ((0, 1), (2, 3))
    assert [group.relation for group in item.groups] == ["left", "front"]

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
