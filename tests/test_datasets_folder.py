import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from camcore.images import Geometry
from camcore.subject import Classifier
from fixtures.datasets.find import find_dataset
from fixtures.datasets.folder import decode
from tests.refusals import refusal

DEV = Path(__file__).parents[2] / "shared" / "data" / "imagenet_dev"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def model(classes=("cat", "dog", "great white shark"), **geometry):
    geometry = Geometry(**{"crop": (8, 8), "resize": 8} | geometry)
    return Classifier(name="tiny", spec="tiny", module=nn.Identity(), geometry=geometry, classes=tuple(classes))


def picture(file, colour="red", size=(12, 10)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour]).save(file)
    return file


def table(root, rows, header=("file", "class_index", "label")):
    root.mkdir(exist_ok=True)
    with (root / "labels.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])


def refused(root, subject=None):
    """The message with which a folder is refused, once shown to quote it."""
    message = refusal(find_dataset, str(root), subject=subject or model())
    assert str(root) in message
    return message


def test_a_table_gives_ids_and_labels_in_its_order(tmp_path):
    picture(tmp_path / "b.png", "blue")
    picture(tmp_path / "sub" / "a.png", "green")
    table(tmp_path, [("b.png", 2, "shark"), ("sub/a.png", 0, "cat")])
    data = find_dataset(str(tmp_path), subject=model())
    assert (data.ids, data.labels) == (("b.png", "sub/a.png"), (2, 0))
    assert (data.spec, data.classes, data.skipped) == (str(tmp_path), model().classes, ())
    assert data.read("sub/a.png").shape == (3, 10, 12)
    assert data.read("sub/a.png")[:, 0, 0].tolist() == [0, 1, 0]


def test_a_table_from_excel_with_more_columns_in_another_order_is_read(tmp_path):
    picture(tmp_path / "a.png")
    content = "class_index, wnid, file\r\n1, n02, a.png\r\n".encode("utf-8-sig")
    (tmp_path / "labels.csv").write_bytes(content)
    data = find_dataset(str(tmp_path), subject=model())
    assert (data.ids, data.labels) == (("a.png",), (1,))


@pytest.mark.parametrize(
    ("folders", "classes", "labels"),
    [
        (("Dog", "Great_White-Shark", "cat"), ("cat", "dog", "great white shark"), (1, 2, 0)),
        (("n01440764", "n03888257"), ("tench", "parachute", *map(str, range(998))), None),
        (("0", "2", "1"), ("cat", "dog", "horse"), (0, 1, 2)),
        (("2", "001"), ("cat", "dog", "horse"), (1, 2)),
        (("x", "y", "z"), ("cat", "dog", "horse"), (0, 1, 2)),
        (("9", "7"), ("7", "8", "9"), (0, 2)),  # a name wins over a number
    ],
)
def test_sub_folders_are_matched_to_classes(tmp_path, folders, classes, labels):
    for name in folders:
        picture(tmp_path / name / "a.png")
    if labels is None:  # by ImageNet's numbers: not all ten names are known
        labels = (0, 701)
    data = find_dataset(str(tmp_path), subject=model(classes))
    assert data.ids == tuple(f"{name}/a.png" for name in sorted(folders))
    assert data.labels == labels


def test_wordnet_ids_are_matched_by_name_whatever_the_order_of_classes(tmp_path):
    names = (
        "parachute,golf ball,gas pump,garbage truck,French horn,church,chain saw,cassette player,English springer,tench"
    )
    picture(tmp_path / "n02102040" / "a.png")
    assert find_dataset(str(tmp_path), subject=model(names.split(","))).labels == (8,)


def test_folders_inside_a_class_belong_to_it_and_files_that_are_no_pictures_do_not_count(tmp_path):
    picture(tmp_path / "cat" / "2020" / "a.JPG")
    picture(tmp_path / "cat" / "b.png")
    picture(tmp_path / ".hidden" / "c.png")
    (tmp_path / "cat" / "notes.txt").write_text("my cats")
    (tmp_path / "cat" / "._b.png").write_bytes(b"\0")
    picture(tmp_path / "loose.png")
    data = find_dataset(str(tmp_path), subject=model())
    assert data.ids == ("cat/2020/a.JPG", "cat/b.png")
    assert data.skipped == (("loose.png", "lies in no class's sub-folder"),)


def test_a_misspelt_class_is_refused_rather_than_shifting_the_others(tmp_path):
    for name in ("cat", "dgo", "horse"):
        picture(tmp_path / name / "a.png")
    message = refused(tmp_path, model(("cat", "dog", "horse")))
    assert "1 of the 3 sub-folders" in message
    assert "'dgo'" in message


def test_a_name_of_two_classes_is_refused(tmp_path):
    picture(tmp_path / "crane" / "a.png")
    assert "'crane'" in refused(tmp_path, model(("crane", "dog", "crane")))


def test_damaged_images_are_skipped_by_name_and_the_rest_goes_on(tmp_path):
    picture(tmp_path / "cat" / "good.png")
    whole = picture(tmp_path / "cat" / "truncated.jpg", size=(200, 200)).read_bytes()
    (tmp_path / "cat" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cat" / "empty.png").touch()
    (tmp_path / "cat" / "page.jpg").write_text("<html>404</html>")
    data = find_dataset(str(tmp_path), subject=model())
    assert data.ids == ("cat/good.png",)
    reasons = dict(data.skipped)
    assert reasons.keys() == {"cat/truncated.jpg", "cat/empty.png", "cat/page.jpg"}
    assert "truncated" in reasons["cat/truncated.jpg"]
    assert "empty" in reasons["cat/empty.png"]
    assert "cannot be decoded" in reasons["cat/page.jpg"]


def test_a_missing_file_and_a_second_line_for_a_file_are_skipped(tmp_path):
    picture(tmp_path / "a.png")
    table(tmp_path, [("a.png", 0, ""), ("gone.png", 1, ""), ("a.png", 2, "")])
    data = find_dataset(str(tmp_path), subject=model())
    assert (data.ids, data.labels) == (("a.png",), (0,))
    assert dict(data.skipped).keys() == {"gone.png", "a.png"}
    assert "missing" in dict(data.skipped)["gone.png"]


def test_a_picture_smaller_than_an_input_that_is_not_resized_is_skipped(tmp_path):
    picture(tmp_path / "cat" / "large.png", size=(8, 8))
    picture(tmp_path / "cat" / "small.png", size=(8, 7))
    data = find_dataset(str(tmp_path), subject=model(resize=None))
    assert data.ids == ("cat/large.png",)
    assert data.skipped == (("cat/small.png", "7x8 is smaller than the model's 8x8 input"),)


def test_nothing_that_can_be_read_is_refused_with_the_first_reason(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").touch()
    message = refused(tmp_path)
    assert "1 skipped" in message
    assert "'cat/a.png'" in message


@pytest.mark.parametrize("index", ["3", "-1", "1.0", "", "cat", "²"])
def test_a_label_out_of_the_models_range_is_refused_with_file_label_and_range(tmp_path, index):
    picture(tmp_path / "a.png")
    table(tmp_path, [("a.png", index, "")])
    message = refused(tmp_path)
    assert "'a.png'" in message
    assert repr(index) in message
    assert "3 classes" in message


def test_a_sub_folder_out_of_the_models_range_is_refused(tmp_path):
    picture(tmp_path / "3" / "a.png")
    message = refused(tmp_path)
    assert "'3'" in message
    assert "model has 3" in message


@pytest.mark.parametrize("file", ["../a.png", "sub/../../a.png", "/etc/passwd", "..\\a.png", "C:\\a.png", ""])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, file):
    picture(tmp_path / "a.png")
    table(tmp_path / "inside", [(file, 0, "")])
    assert repr(file) in refused(tmp_path / "inside")


@pytest.mark.parametrize("header", [("name", "class_index", "label"), ("file", "label"), ("file;class_index;label",)])
def test_a_table_without_its_columns_is_refused_with_those_it_has(tmp_path, header):
    table(tmp_path, [("a.png", 0, "cat")], header)
    message = refused(tmp_path)
    assert "file, class_index, label" in message
    assert ", ".join(header) in message


def test_an_empty_table_and_one_that_is_no_text_are_refused(tmp_path):
    (tmp_path / "labels.csv").touch()
    assert "it has none" in refused(tmp_path)
    table(tmp_path, [])
    assert "lists no images" in refused(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(tmp_path)


def test_images_without_labels_are_refused_with_both_ways_to_give_them(tmp_path):
    picture(tmp_path / "a.png")
    message = refused(tmp_path)
    assert "labels.csv" in message
    assert "one sub-folder per class" in message


def test_an_empty_folder_a_folder_of_empty_folders_and_a_file_are_refused(tmp_path):
    assert "holds no images" in refused(tmp_path)
    (tmp_path / "cat").mkdir()
    assert "hold no images" in refused(tmp_path)
    assert "is a file" in refused(picture(tmp_path / "cat" / "a.png"))


def test_the_hash_sees_content_label_and_name(tmp_path):
    def sha256(name="a.png", colour="red", label=0):
        root = tmp_path / f"{name}{colour}{label}"
        picture(root / name, colour)
        table(root, [(name, label, "")])
        return find_dataset(str(root), subject=model()).sha256

    hashes = [sha256(), sha256(), sha256(name="b.png"), sha256(colour="blue"), sha256(label=1)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_progress_is_told_of_every_image(tmp_path):
    for name in "abc":
        picture(tmp_path / "cat" / f"{name}.png")
    told = []
    find_dataset(str(tmp_path), subject=model(), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_photograph_is_turned_upright(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored picture
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = decode((tmp_path / "a.png").read_bytes())
    assert image.shape == (3, 6, 4)
    assert image[:, 0, 3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb_between_0_and_1(tmp_path, mode):
    ramp = np.linspace(0, 255, 64).reshape(8, 8)
    if mode == "I;16":
        Image.fromarray((ramp * 257).astype(np.uint16)).save(tmp_path / "a.tiff")
    else:
        Image.fromarray(ramp.astype(np.uint8)).convert("RGB").convert(mode).save(tmp_path / "a.tiff")
    image = decode((tmp_path / "a.tiff").read_bytes())
    assert (image.shape, image.dtype) == ((3, 8, 8), torch.float32)
    assert (image.min(), image.max()) == (0, 1)
    if mode not in ("1", "P"):
        assert torch.allclose(image, torch.tensor(ramp / 255).float().expand(3, 8, 8), atol=1 / 255)


@pytest.mark.skipif(not DEV.exists(), reason="the shared folder with real photographs is not here")
def test_real_photographs_are_all_read_with_their_labels():
    data = find_dataset(str(DEV), subject=model(map(str, range(1000))))
    assert (len(data), data.skipped) == (200, ())
    assert data.label("n01484850_great_white_shark.jpg") == 2
