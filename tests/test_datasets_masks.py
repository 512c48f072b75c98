import csv
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from camcore.images import Geometry, load, only
from fixtures.datasets.find import find_dataset
from fixtures.datasets.objects import judgeable
from fixtures.datasets.scenes import scenes
from tests.refusals import refusal
from tests.test_datasets_folder import model, picture

CPU = torch.device("cpu")


def mask_png(file, marked, mode="L"):
    """A PNG that is 255 where marked, (h, w)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(marked) * 255).astype(np.uint8)).convert(mode).save(file)


def boxes_csv(root, rows, header=("file", "x0", "y0", "x1", "y1")):
    with (root / "boxes.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])


def corner(rows=10, columns=12, height=4, width=6):
    marked = np.zeros((rows, columns))
    marked[:height, :width] = 1
    return marked


@pytest.fixture
def photos(tmp_path):
    """Two photographs of 12 x 10 pixels in one class."""
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "cat" / "b.png", "blue")
    return tmp_path


def find(root, subject=None):
    return find_dataset(str(root), subject=subject or model())


refused = partial(refusal, find)


def test_a_folder_without_masks_and_boxes_knows_no_object(photos):
    data = find(photos)
    assert data.mask is None
    assert load(data, data.ids, model().geometry, seed=0, device=CPU).masks is None


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB"])
def test_a_twin_tree_of_pngs_says_where_the_object_is(photos, mode):
    mask_png(photos / "masks" / "cat" / "a.png", corner(), mode)
    data = find(photos)
    assert data.ids == ("cat/a.png", "cat/b.png")  # masks/ is no class
    assert data.mask("cat/a.png").tolist() == corner().tolist()
    assert data.mask("cat/b.png").isnan().all()
    assert data.mask("cat/b.png").shape == (10, 12)


def test_what_is_transparent_is_no_object(photos):
    file = photos / "masks" / "cat" / "a.png"
    file.parent.mkdir(parents=True)
    pixels = np.zeros((10, 12, 4), dtype=np.uint8)
    pixels[..., 0] = 255  # red everywhere, but only seen in the corner
    pixels[:4, :6, 3] = 255
    Image.fromarray(pixels).save(file)
    assert find(photos).mask("cat/a.png").tolist() == corner().tolist()


def test_a_low_value_marks_as_well_as_white(photos):
    file = photos / "masks" / "cat" / "a.png"
    file.parent.mkdir(parents=True)
    Image.fromarray(corner().astype(np.uint8)).save(file)  # 1, which looks black
    assert find(photos).mask("cat/a.png").sum() == 24


def test_boxes_are_edges_in_pixels_and_add_up(photos):
    boxes_csv(photos, [("cat/a.png", 0, 0, 6, 4), ("cat/a.png", 10.4, 8, 12, 10), ("cat/b.png", 0, 0, 12, 10)])
    data = find(photos)
    wanted = corner()
    wanted[8:, 10:] = 1  # the centre of column 10 lies at 10.5
    assert data.mask("cat/a.png").tolist() == wanted.tolist()
    assert data.mask("cat/b.png").mean() == 1


def test_a_mask_counts_where_there_is_a_box_too(photos):
    mask_png(photos / "masks" / "cat" / "a.png", corner())
    boxes_csv(photos, [("cat/a.png", 0, 0, 12, 10), ("cat/b.png", 0, 0, 3, 3)])
    data = find(photos)
    assert data.mask("cat/a.png").sum() == 24
    assert data.mask("cat/b.png").sum() == 9


def test_masks_are_found_for_photographs_of_another_suffix_and_for_a_table(tmp_path):
    picture(tmp_path / "sub" / "a.jpg")
    mask_png(tmp_path / "masks" / "sub" / "a.PNG", corner())
    (tmp_path / "labels.csv").write_text("file,class_index\nsub/a.jpg,1\n")
    data = find(tmp_path)
    assert (data.ids, data.labels) == (("sub/a.jpg",), (1,))
    assert data.mask("sub/a.jpg").sum() == 24


def test_a_class_called_masks_stays_a_class(tmp_path):
    picture(tmp_path / "masks" / "a.png")
    picture(tmp_path / "cat" / "a.png")
    data = find(tmp_path, model(("cat", "masks")))
    assert (data.ids, data.labels, data.mask) == (("cat/a.png", "masks/a.png"), (0, 1), None)


def test_an_upright_mask_fits_a_photograph_that_was_turned(tmp_path):
    (tmp_path / "cat").mkdir()
    turned = Image.new("RGB", (12, 10))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "cat" / "a.jpg", exif=exif)
    mask_png(tmp_path / "masks" / "cat" / "a.png", corner())
    message = refused(tmp_path)
    assert "12 wide and 10 high" in message
    assert "10 wide and 12 high" in message
    mask_png(tmp_path / "masks" / "cat" / "a.png", corner(12, 10))
    assert find(tmp_path).mask("cat/a.jpg").shape == (12, 10)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ((0, 0, 13, 10), "12 wide and 10 high"),
        ((-1, 0, 5, 5), "-1, 0, 5, 5"),
        ((6, 0, 6, 4), "x0 < x1"),
        ((0.1, 0.2, 0.4, 0.45), "not in shares"),
        ((0, 0, "nan", 4), "nan"),
        ((0, 0, "six", 4), "four numbers"),
        ((0, 0, "", 4), "four numbers"),
    ],
)
def test_a_box_that_is_none_is_refused_with_file_and_numbers(photos, box, told):
    boxes_csv(photos, [("cat/a.png", *box)])
    message = refused(photos)
    assert "'cat/a.png'" in message
    assert told in message


@pytest.mark.parametrize("file", ["/etc/passwd", "../a.png", ""])
def test_a_box_of_a_file_outside_is_refused(photos, file):
    boxes_csv(photos, [(file, 0, 0, 6, 4)])
    assert repr(file) in refused(photos)


def test_a_table_of_boxes_without_its_columns_is_refused(photos):
    boxes_csv(photos, [("cat/a.png", 0, 0, 6, 4)], header=("file", "left", "top", "right", "bottom"))
    assert "file, x0, y0, x1, y1" in refused(photos)


def test_a_damaged_mask_is_refused_by_name(photos):
    mask_png(photos / "masks" / "cat" / "a.png", corner())
    (photos / "masks" / "cat" / "b.png").write_bytes(b"not a picture")
    message = refused(photos)
    assert "b.png" in message
    assert "cannot be decoded" in message


def test_masks_and_boxes_of_no_image_are_named_and_refused_if_there_is_no_other(photos):
    mask_png(photos / "masks" / "cat" / "z.png", corner())
    message = refused(photos)
    assert "1 masks" in message
    assert "'masks/cat/a.png'" in message
    mask_png(photos / "masks" / "cat" / "a.png", corner())
    boxes_csv(photos, [("y.png", 0, 0, 6, 4)])
    skipped = dict(find(photos).skipped)
    assert skipped.keys() == {"masks/cat/z.png", "y.png"}


def test_boxes_of_no_image_at_all_are_refused(photos):
    boxes_csv(photos, [("y.png", 0, 0, 6, 4)])
    message = refused(photos)
    assert "no line of" in message
    assert "'cat/a.png'" in message


def test_the_hash_depends_on_masks_and_boxes_and_on_nothing_else_new(photos):
    plain = find(photos).sha256
    boxes_csv(photos, [("cat/a.png", 0, 0, 6, 4)])
    boxed = find(photos).sha256
    boxes_csv(photos, [("cat/a.png", 0, 0, 6, 5)])
    other = find(photos).sha256
    mask_png(photos / "masks" / "cat" / "a.png", corner())
    masked = find(photos).sha256
    assert len({plain, boxed, other, masked}) == 4


@pytest.mark.parametrize("resize", [None, 8, 20])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_mask_is_fitted_as_its_image_is(resize, interpolation):
    geometry = Geometry(crop=(8, 8), resize=resize, interpolation=interpolation)
    marked = torch.zeros(30, 40)
    marked[9:20, 11:28] = 1
    image = marked.expand(3, -1, -1)
    fitted = geometry.fit_mask(marked)
    assert set(fitted.unique().tolist()) <= {0.0, 1.0}
    clear = (geometry.fit(image)[0] - 0.5).abs() > 0.2  # away from the edge, whatever the interpolation
    assert clear.any()
    assert torch.equal(fitted[clear], (geometry.fit(image)[0] > 0.5).float()[clear])


def test_an_unknown_mask_stays_unknown_when_it_is_fitted():
    assert Geometry(crop=(8, 8), resize=8).fit_mask(torch.full((10, 12), torch.nan)).isnan().all()


def test_masks_of_a_batch_are_read_once_and_only_when_asked_for():
    read = []
    data = scenes(4, seed=0, size=48)
    counting = only(data, data.ids)
    object.__setattr__(counting, "mask", lambda image_id: read.append(image_id) or data.mask(image_id))
    batch = load(counting, counting.ids, Geometry(crop=(48, 48)), seed=0, device=CPU)
    assert read == []
    assert torch.equal(batch.masks[2], data.mask(data.ids[2]))
    assert batch.masks is batch.masks
    assert read == list(data.ids)


def test_only_keeps_the_order_given_and_is_another_data_set():
    data = scenes(5, seed=0, size=48)
    part = only(data, (data.ids[3], data.ids[1]))
    assert part.ids == (data.ids[3], data.ids[1])
    assert part.labels == (data.labels[3], data.labels[1])
    assert part.sha256 not in (data.sha256, only(data, part.ids[::-1]).sha256)
    assert torch.equal(part.read(data.ids[1]), data.read(data.ids[1]))


def test_objects_that_cannot_be_judged_are_left_out_and_counted(tmp_path):
    boxes = {"all": (0, 0, 40, 40), "fair": (0, 0, 20, 20), "none": None, "gone": (0, 0, 39, 4), "most": (0, 0, 40, 35)}
    for name in boxes:
        picture(tmp_path / "cat" / f"{name}.png", size=(40, 40) if name != "gone" else (40, 80))
    boxes_csv(tmp_path, [(f"cat/{name}.png", *box) for name, box in boxes.items() if box])
    geometry = model().geometry
    kept, left_out = judgeable(find(tmp_path), geometry, seed=0, budget=10)
    assert kept == ("cat/fair.png",)
    assert sorted(left_out.values()) == [1, 1, 2]
    assert {reason for reason, count in left_out.items() if count == 2} == {
        "the object covers more than 80% of the crop"
    }
    assert judgeable(find(tmp_path), geometry, seed=0, budget=0)[0] == ()


def test_no_more_masks_are_read_than_the_budget_asks_for():
    data = scenes(20, seed=3, size=48)
    read = []
    counting = only(data, data.ids)
    object.__setattr__(counting, "mask", lambda image_id: read.append(image_id) or data.mask(image_id))
    kept, left_out = judgeable(counting, Geometry(crop=(48, 48)), seed=0, budget=7)
    assert len(kept) == len(read) == 7
    assert not left_out
