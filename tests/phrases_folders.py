"""Folders with a phrases.csv: pictures of four blocks in a row, and finders in a file of their own that are asked."""

import csv
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw

from camcore.images import Geometry
from fixtures.datasets.phrases import Phrases, find_phrases
from tests.refusals import refusal

WIDTH, HEIGHT = 96, 48
SQUASHED = Geometry(crop=(40, 60), squash=True)
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "yellow": (220, 220, 30)}
HEAD = "file,caption,phrase,x0,y0,x1,y1"
COLUMNS = (*HEAD.split(","), "claim")

FINDERS = '''
"""Who reads what is asked for, who does not, and who boxes nothing: of pictures of blocks."""

import re

import torch

from camcore.images import Geometry

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "yellow": (220, 220, 30)}


def blocks(image):
    """(colour, box) from left to right."""
    found = []
    for name, colour in COLOURS.items():
        shown = (image - torch.tensor(colour)[:, None, None] / 255).abs().amax(0) < 0.25
        columns = [*shown.any(0).tolist(), False]
        start = None
        for x, held in enumerate(columns):
            if held and start is None:
                start = x
            if not held and start is not None:
                rows = shown[:, start:x].any(1).nonzero()
                found.append((name, (start, int(rows.min()), x, int(rows.max()) + 1)))
                start = None
    return sorted(found, key=lambda one: one[1])


class Reads:
    geometry = Geometry(crop=(40, 60), squash=True)

    def ground(self, image, caption, phrase):
        assert image.shape == (3, 40, 60)
        seen = blocks(image)
        if not seen:
            return torch.zeros(0, 4), torch.zeros(0)
        score = torch.zeros(len(seen))
        score[self.meant(seen, caption)] = 1
        return torch.tensor([box for _, box in seen]).float(), score

    def meant(self, seen, caption):
        words = re.findall("[a-z]+", caption)
        colour = next((word for word in words if word in COLOURS), None)
        side = next((word for word in words if word in ("left", "right")), None)
        named = [index for index, (name, _) in enumerate(seen) if name == colour] or [0]
        if "directly" in words:
            return named[0] + (-1 if side == "left" else 1)
        return named[-1] if side == "right" else named[0]


class Deaf(Reads):
    def meant(self, seen, caption):
        return 0


class Cut(Reads):
    geometry = Geometry(crop=(40, 60), resize=40)

    def ground(self, image, caption, phrase):
        return torch.zeros(0, 4), torch.zeros(0)


reads, deaf, cut = Reads, Deaf, Cut
'''


def blocks(root: Path, count: int = 2, *, claims: tuple[str, ...] = ("finds", "sides", "relations")) -> Path:
    """`count` pictures, 0.png and so on, of four blocks each, the outer two of one colour, and lines for the claims."""
    root.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, object]] = []
    for number in range(count):
        turned = list(COLOURS)[number % 4 :] + list(COLOURS)[: number % 4]
        outer, one, other, _ = turned
        shown, boxes = Pillow.new("RGB", (WIDTH, HEIGHT), (128, 128, 128)), []
        for place, name in enumerate((outer, one, other, outer)):
            box = (4 + 24 * place, 10 + number % 5, 20 + 24 * place, 30 + number % 7)
            ImageDraw.Draw(shown).rectangle((*box[:2], box[2] - 1, box[3] - 1), fill=COLOURS[name])
            boxes.append(box)
        shown.save(root / f"{number}.png")
        asked = {
            "finds": [
                (f"the {one} block", f"the {one} block", boxes[1]),
                (f"the {other} block", f"the {other} block", boxes[2]),
            ],
            "sides": [
                (f"the {outer} block on the left", f"the {outer} block", boxes[0]),
                (f"the {outer} block on the right", f"the {outer} block", boxes[3]),
            ],
            "relations": [
                (f"the block directly to the {side} of the {name} block", "the block", boxes[place])
                for name, side, place in ((one, "left", 0), (one, "right", 2), (other, "left", 1), (other, "right", 3))
            ],
        }
        for claim in claims:
            for caption, phrase, box in asked[claim]:
                given = zip(COLUMNS, (f"{number}.png", caption, phrase, *box, claim), strict=True)
                lines.append(dict(given))
    with (root / "phrases.csv").open("w", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, COLUMNS)
        table.writeheader()
        table.writerows(lines)
    return root


def written(root: Path, *lines: str, head: str = HEAD) -> Path:
    """Two pictures of blocks, and a table of these lines."""
    blocks(root)
    (root / "phrases.csv").write_text("\n".join((head, *lines)) + "\n", encoding="utf-8")
    return root


def finders(root: Path) -> Path:
    """The file with the factories `reads`, `deaf` and `cut`."""
    file = root / "finders.py"
    file.write_text(FINDERS, encoding="utf-8")
    return file


def found(root: Path | str) -> Phrases:
    return find_phrases(str(root), geometry=SQUASHED)


def refused(root: Path | str) -> str:
    return refusal(find_phrases, str(root), geometry=SQUASHED)
