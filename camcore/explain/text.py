"""Text on a sheet: cut or wrapped to its place, in the one font that Pillow brings."""

import unicodedata
from functools import cache

from PIL import ImageFont

LIKE = {"−": "-", "–": "-", "—": "-", "×": "x", "ß": "ss", "“": '"', "”": '"', "‘": "'", "\t": " ", "\n": " "}


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: the same on every machine."""
    return ImageFont.load_default(size=size)


def drawable(text: str) -> str:
    """The text in letters that the font has: accents are dropped, and what is left becomes a question mark."""
    letters = "".join(LIKE.get(letter, letter) for letter in text)
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", letters) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" or letter in "…·" else "?" for letter in letters)


def width_of(text: str, size: int) -> float:
    """Pixels."""
    return font(size).getlength(text)


def cut(text: str, size: int, width: int, *, middle: bool = False) -> str:
    """The text if it fits, else shortened with an ellipsis: at its end, or in the middle as suits a file's name."""
    text = drawable(text)
    if width_of(text, size) <= width:
        return text
    low, high = 0, len(text) - 1  # letters kept: a text that is longer is wider, so bisection finds the most that fit
    while low < high:
        keep = (low + high + 1) // 2
        low, high = (keep, high) if width_of(_kept(text, keep, middle), size) <= width else (low, keep - 1)
    return _kept(text, low, middle)


def _kept(text: str, keep: int, middle: bool) -> str:
    tail = keep // 2 if middle else 0
    return text[: keep - tail].rstrip() + "…" + (text[-tail:] if tail else "")


def wrap(text: str, size: int, width: int, *, most: int) -> list[str]:
    """The text in at most so many lines; what does not fit is cut from the last, and a word too long from its line."""
    lines: list[str] = []
    words = drawable(text).split()
    while words and len(lines) < most - 1:
        taken = 1
        while taken < len(words) and width_of(" ".join(words[: taken + 1]), size) <= width:
            taken += 1
        lines.append(cut(" ".join(words[:taken]), size, width))
        words = words[taken:]
    return [*lines, cut(" ".join(words), size, width)] if words else lines
