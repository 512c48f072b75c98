"""Pictures for the report: each image, map and outline once, small, to be laid over one another by the page."""

import base64
import warnings
from binascii import Error as NotBase64
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reports.schema import Overlay

LONGEST = 176  # pixels of a picture's longer side: as large as it is shown
LONGEST_MAP = 88  # of a map's, which is smooth
SMALL = 128  # pictures below this are kept as they are: JPEG would smear them
TINY = 64  # pictures below this are enlarged pixel by pixel
# Points of inferno, evenly spaced, without its black end: over a photograph, black would read as shadow rather than as
# "little". Even in lightness, so that it is read alike without red, without green, and in grey.
HEAT = (
    (87, 16, 110),
    (113, 25, 110),
    (138, 34, 106),
    (163, 44, 97),
    (188, 55, 84),
    (210, 70, 68),
    (228, 90, 49),
    (241, 115, 29),
    (249, 142, 9),
    (252, 172, 17),
    (249, 203, 53),
    (242, 234, 105),
    (252, 255, 164),
)


@dataclass(frozen=True, kw_only=True)
class Plate:
    """One encoded picture."""

    name: str  # the id that the page refers to it by
    uri: str
    width: int  # of the picture it belongs to, in pixels as they were measured
    height: int
    enlarged: bool


@dataclass(frozen=True, kw_only=True)
class Frames:
    """An image and what lies over it, by the names of their plates."""

    image: str
    saliency: str | None
    outline: str | None
    width: int
    height: int
    wall: int | None  # the first row behind it


@dataclass(kw_only=True)
class Album:
    """Plates by what they were made of: the same picture is in a report once, however many claims show it."""

    room: int  # characters that plates may still take
    plates: dict[tuple[str, str], Plate] = field(default_factory=dict)

    def frames(self, overlay: Overlay) -> Frames:
        """The frames of an overlay, whose plates are added as far as they are new.

        Args:
            overlay: With pictures as results.json holds them.

        Raises:
            Full: They take more; nothing was added.
            Unreadable: A picture cannot be read, or two of them differ in size.
        """
        asked = {"image": overlay.image, "saliency": overlay.saliency, "outline": overlay.outline}
        found = {kind: self._plate(kind, text) for kind, text in asked.items() if text is not None}
        image = found["image"]
        if any((plate.width, plate.height) != (image.width, image.height) for plate in found.values()):
            raise Unreadable
        new = {(kind, asked[kind] or ""): plate for kind, plate in found.items()}
        new = {key: plate for key, plate in new.items() if key not in self.plates}
        taken = sum(len(plate.uri) for plate in new.values())
        if taken > self.room:
            raise Full
        self.plates |= new
        self.room -= taken
        return Frames(
            image=image.name,
            saliency=found["saliency"].name if "saliency" in found else None,
            outline=found["outline"].name if "outline" in found else None,
            width=image.width,
            height=image.height,
            wall=None if overlay.dead_from_row is None else min(max(overlay.dead_from_row, 0), image.height),
        )

    def _plate(self, kind: str, text: str) -> Plate:
        return self.plates.get((kind, text)) or _made(kind, text, name=f"p{len(self.plates)}{kind[0]}")


class Full(Exception):
    """The pictures do not fit into what a report may take."""


class Unreadable(Exception):
    """What should be a picture is none."""


def _made(kind: str, text: str, *, name: str) -> Plate:
    coded: Callable[[Image.Image, str], str] = {"image": _photograph, "saliency": _map, "outline": _lines}[kind]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            source = BytesIO(base64.b64decode(text, validate=True))
            picture = Image.open(source, formats=["JPEG" if kind == "image" else "PNG"])
            uri = coded(picture, text)
    except (NotBase64, OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable from None
    return Plate(name=name, uri=uri, width=picture.width, height=picture.height, enlarged=max(picture.size) < TINY)


def _photograph(picture: Image.Image, given: str) -> str:
    """As it is if it is small: coding it once more would cost more than it saves."""
    if max(picture.size) < SMALL:
        picture.load()
        return f"data:image/jpeg;base64,{given}"
    return _uri(_within(picture.convert("RGB"), LONGEST), "JPEG", quality=70, optimize=True)


def _map(picture: Image.Image, _given: str) -> str:
    """In grey, which is a third of the size: the page colours it."""
    return _uri(_within(picture.convert("L"), LONGEST_MAP), "WEBP", quality=85, method=2)


def _lines(picture: Image.Image, _given: str) -> str:
    """A white line just inside what is marked and a dark one just outside, to be seen on any ground."""
    mask = _within(picture.convert("L"), LONGEST)
    factor = -(-SMALL // max(mask.size))
    enlarged = mask.resize((mask.width * factor, mask.height * factor), Image.Resampling.NEAREST)
    marked = np.asarray(enlarged) > 127
    drawn = np.zeros(marked.shape, dtype=np.uint8)
    drawn[_grown(marked) & ~marked] = 1
    drawn[marked & _grown(~marked)] = 2
    lines = Image.fromarray(drawn, mode="P")
    lines.putpalette([0, 0, 0, 20, 20, 20, 255, 255, 255])
    return _uri(lines, "PNG", transparency=0, bits=2, optimize=True)


def _grown(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the pixels beside it, and above and below."""
    around = np.pad(marked, 1)
    return around[1:-1, 1:-1] | around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]


def _within(picture: Image.Image, longest: int) -> Image.Image:
    """Not longer than that, with its edges where they were."""
    scale = longest / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BOX)


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def heat_stops(count: int = 12) -> list[tuple[str, str]]:
    """The overlay's colours over mid-grey, for a legend: (offset in percent, colour)."""
    stops = []
    for share in np.linspace(0, 1, count):
        *colour, opacity = (np.interp(share, np.linspace(0, 1, len(table)), table) for table in heat_tables().values())
        red, green, blue = ((1 - opacity) * 140 + opacity * 255 * channel for channel in colour)
        stops.append((f"{100 * share:.0f}%", f"rgb({red:.0f} {green:.0f} {blue:.0f})"))
    return stops


def heat_tables() -> dict[str, list[float]]:
    """Red, green, blue and opacity of a map's values from 0 to its maximum, evenly spaced, for the filter of the page.

    Colour where the map is high, nothing where it is low: it lies over the image in grey.
    """
    channels = {name: [round(one[i] / 255, 3) for one in HEAT] for i, name in enumerate("RGB")}
    shares = np.linspace(0, 1, len(HEAT))
    return channels | {"A": [round(0.88 * float(share) ** 0.75, 3) for share in shares]}
