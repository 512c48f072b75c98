"""The sheet: one row per image, one column per method (many go on below), and what the colours mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from camcore.explain.overlay import blend
from camcore.explain.text import cut, font, wrap

MARGIN, GAP, LEAST_WIDTH = 24, 16, 520
ACROSS = 6  # methods side by side; more go on below, beside the same photographs
SIZE, LINE = 14, 19  # of captions, in pixels
HEAD, HEAD_LINE = 16, 26
TITLE, TITLE_LINE = 20, 28
BAR = (240, 16)
MOST_LINES = 3  # of one sentence under a picture
INK, GREY, PALE = "#1d1f23", "#55595f", "#e4e2dc"
LEGEND = (
    "Colour marks what the method holds to be evidence for the explained class. Where a map is 0 or negative the "
    "photograph is left as it is: negative values are not drawn. Every map is coloured on a scale of its own, so "
    "colours do not compare between pictures."
)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture and what is written under it; no picture where there is none to show."""

    picture: Image.Image | None
    lines: tuple[str, ...]
    name: str = ""  # written first, cut in the middle: of a file, whose end tells as much as its beginning


ABSENT = Tile(picture=None, lines=("not computed",))


def draw_sheet(rows: Sequence[Mapping[str, Tile]], *, title: str, note: str = "") -> Image.Image:
    """Draw rows of tiles under their columns' names.

    Args:
        rows: One tile per column and row; a tile that a row lacks is drawn as "not computed".
        title: Over everything.
        note: Under the legend, for what this sheet alone must say.
    """
    first, *methods = dict.fromkeys(head for row in rows for head in row)
    blocks = [[first, *methods[start : start + ACROSS]] for start in range(0, max(1, len(methods)), ACROSS)]
    pictures = [tile.picture for row in rows for tile in row.values() if tile.picture is not None]
    column = max(picture.width for picture in pictures)
    width = max(LEAST_WIDTH, 2 * MARGIN + len(blocks[0]) * (column + GAP) - GAP)
    inside = width - 2 * MARGIN
    titles = wrap(title, TITLE, inside, most=2)
    legend = wrap(LEGEND, SIZE, inside, most=8) + (wrap(note, SIZE, inside, most=3) if note else [])
    tall = [max(tile.picture.height for tile in row.values() if tile.picture) for row in rows]
    captions = [{head: _caption(row.get(head, ABSENT), column) for head in (first, *methods)} for row in rows]
    text = [[max(len(caption[head]) for head in heads) * LINE for caption in captions] for heads in blocks]
    top = MARGIN + len(titles) * TITLE_LINE + 8
    height = top + sum(HEAD_LINE + sum(below) + sum(tall) + len(rows) * (GAP + 8) for below in text)

    page = Image.new("RGB", (width, height + 40 + len(legend) * LINE + MARGIN), "white")
    pen = ImageDraw.Draw(page)
    _write(pen, MARGIN, MARGIN, titles, size=TITLE, line=TITLE_LINE, ink=INK)
    for heads, below in zip(blocks, text, strict=True):
        for number, head in enumerate(heads):
            _write(pen, MARGIN + number * (column + GAP), top, [cut(head, HEAD, column)], size=HEAD, ink=INK)
        top += HEAD_LINE
        for row, caption, high, lines in zip(rows, captions, tall, below, strict=True):
            for number, head in enumerate(heads):
                left = MARGIN + number * (column + GAP)
                picture = row.get(head, ABSENT).picture
                if picture is None:
                    pen.rectangle((left, top, left + column - 1, top + high - 1), outline=PALE)
                else:
                    page.paste(picture, (left, top))
                _write(pen, left, top + high + 6, caption[head], size=SIZE, ink=GREY)
            top += high + lines + GAP + 8
    _draw_legend(page, pen, top, legend)
    return page


def _caption(tile: Tile, width: int) -> list[str]:
    name = [cut(tile.name, SIZE, width, middle=True)] if tile.name else []
    return name + [part for line in tile.lines for part in wrap(line, SIZE, width, most=MOST_LINES)]


def _write(
    pen: ImageDraw.ImageDraw, left: float, top: int, lines: Sequence[str], *, size: int, ink: str, line: int = LINE
) -> None:
    for number, text in enumerate(lines):
        pen.text((left, top + number * line), text, fill=ink, font=font(size))


def _draw_legend(page: Image.Image, pen: ImageDraw.ImageDraw, top: int, lines: Sequence[str]) -> None:
    """The ramp as it looks over mid-grey, its two ends named, and the sentences."""
    pen.line((MARGIN, top, page.width - MARGIN - 1, top), fill=PALE)
    top += 12
    share = np.broadcast_to(np.linspace(0, 1, BAR[0], dtype=np.float32), BAR[::-1])
    bar = blend(np.full((*BAR[::-1], 3), 150, dtype=np.uint8), share)
    left = MARGIN + 16
    _write(pen, MARGIN, top - 1, ["0"], size=SIZE, ink=INK)
    page.paste(Image.fromarray(bar), (left, top))
    most = "the map's largest value"
    _write(
        pen, left + BAR[0] + 8, top - 1, [cut(most, SIZE, page.width - 2 * MARGIN - BAR[0] - 24)], size=SIZE, ink=INK
    )
    _write(pen, MARGIN, top + 26, lines, size=SIZE, ink=GREY)
