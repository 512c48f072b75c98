"""Tiny folders in the formats of captions: a picture is one grey, and its number of tenths is in its name."""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image as Pillow

from camcore.images import Geometry
from fixtures.datasets.captions import find_captions
from tests.refusals import refusal

SIDE = 12
SQUASHED = Geometry(crop=(16, 16), squash=True)
A = ("on", "under", "left", "right")
WORDS = {
    "on": "A {0} on a {1}",
    "under": "A {0} under a {1}",
    "left": "A {0} to the left of a {1}",
    "right": "A {0} to the right of a {1}",
    "in-front": "A {0} in front of a {1}",
    "behind": "A {0} behind a {1}",
}


def picture(file: Path, grey: int = 128, *, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """An even grey, lossless whatever the suffix says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", size, (grey, grey, grey)).save(file, "PNG")
    return file


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def write_lines(file: Path, records: list[object]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
    return file


def winoground(root: Path, count: int = 2) -> Path:
    """As the hub lays it out once images.zip is unpacked."""
    records = []
    for index in range(count):
        for which in (0, 1):
            picture(root / "images" / f"ex_{index}_img_{which}.png", 10 * index + which)
        names = {f"image_{which}": f"ex_{index}_img_{which}" for which in (0, 1)}
        said = {"caption_0": f"a dog bites man {index}", "caption_1": f"man {index} bites a dog"}
        records.append({"id": index, **names, **said, "tag": "Noun", "secondary_tag": "", "collapsed_tag": "Object"})
    write_lines(root / "examples.jsonl", records)
    return root


def whatsup(root: Path, things: tuple[str, ...] = ("mug_table", "beer-bottle_armchair"), relations=A) -> Path:
    """Controlled images A: the options of every picture begin with its own caption."""
    records = []
    for pair in things:
        one, other = pair.split("_")
        for place, relation in enumerate(relations):
            of = "_of" if relation in ("left", "right", "in-front") else ""
            file = f"controlled_images/{one}_{relation}{of}_{other}.jpeg"
            picture(root / file, 20 * place)
            options = [WORDS[each].format(one, other) for each in (relation, *(r for r in relations if r != relation))]
            records.append({"image_path": f"data/{file}", "caption_options": options})
    write(root / "controlled_images_dataset.json", records)
    return root


def aro(root: Path) -> Path:
    """Two relations, of three pictures and one; the left half of each picture is black, and the box its right half."""
    records = []
    for index, relation in enumerate(("on", "on", "on", "behind")):
        file = picture(root / "images" / f"{index}.jpg", 200, size=(SIDE, SIDE))
        half = Pillow.open(file)
        half.paste((0, 0, 0), (0, 0, SIDE // 2, SIDE))
        half.save(file, "PNG")
        box = {"bbox_x": SIDE // 2, "bbox_y": 0, "bbox_w": SIDE // 2, "bbox_h": SIDE}
        said = {
            "true_caption": f"the cup is {relation} box {index}",
            "false_caption": f"box {index} is {relation} the cup",
        }
        records.append({"image_path": file.name, "relation_name": relation, **box, **said})
    write(root / "visual_genome_relation.json", records)
    return root


def aro_attributes(root: Path, pairs: Mapping[str, int]) -> Path:
    """As many pictures of each pair of attributes as it says, all of them the same file."""
    file = picture(root / "images" / "0.jpg", 200, size=(SIDE, SIDE))
    box = {"bbox_x": 0, "bbox_y": 0, "bbox_w": SIDE, "bbox_h": SIDE}
    records = []
    for one, other in (name.split("_") for name, count in pairs.items() for _ in range(count)):
        said = {
            "true_caption": f"the {one} and the {other} {len(records)}",
            "false_caption": f"the {other} or the {one} {len(records)}",
        }
        records.append({"image_path": file.name, "attributes": [one, other], **box, **said})
    write(root / "visual_genome_attribution.json", records)
    return root


def sugarcrepe(root: Path) -> Path:
    """Two categories; one caption has no foil other than itself."""
    for name in ("a.jpg", "b.jpg"):
        picture(root / "val2017" / name)
    swap = {
        "0": {"filename": "a.jpg", "caption": "a cat on a dog", "negative_caption": "a dog on a cat"},
        "1": {"filename": "b.jpg", "caption": "a man", "negative_caption": "a man"},
    }
    write(root / "swap_obj.json", swap)
    write(root / "add_att.json", {"0": {"filename": "b.jpg", "caption": "a bus", "negative_caption": "a red bus"}})
    return root


def vsr(root: Path) -> Path:
    """A true caption and a false one."""
    for name in ("1.jpg", "2.jpg"):
        picture(root / "images" / name)
    records = [
        {"image": "1.jpg", "caption": "The cat is on the mat.", "label": 1, "relation": "on", "annotator_id": 3},
        {"image": "2.jpg", "caption": "The cat is under the mat.", "label": 0, "relation": "under"},
    ]
    write_lines(root / "test.jsonl", records)
    return root


def table(root: Path, text: str | None = None) -> Path:
    """Two lines that are a group, and one alone."""
    for index, name in enumerate(("left.png", "right.png", "on.png")):
        picture(root / name, 50 * index)
    said = text or (
        "file,caption,foil,group,relation\n"
        "left.png,a mug left of a plate,,mug,side\n"
        "right.png,a mug right of a plate,a mug left of a plate,mug,side\n"
        "on.png,a mug on a table,a mug under a table,,\n"
    )
    (root / "captions.csv").write_text(said, encoding="utf-8")
    return root


def found(root: Path | str):
    return find_captions(str(root), geometry=SQUASHED)


def refused(root: Path | str) -> str:
    return refusal(find_captions, str(root), geometry=SQUASHED)
