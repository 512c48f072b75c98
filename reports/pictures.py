"""Pictures for the report: saliency over its image, and curves. No text of others is drawn into them."""

import base64
import re
import warnings
from binascii import Error as NotBase64
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from reports.axis import HUGE
from reports.schema import Curve, Overlay

QUALITY = 80
SMALLEST = 128  # pictures below this are enlarged, pixel by pixel: JPEG would smear a 32x32 image
COLOURS = ("#0b5fa5", "#c8501e", "#1b8a6b", "#a23f97", "#b98400", "#3f9fd8", "#5b6470")  # after Okabe and Ito 2008
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
# inferno without its black end: over a photograph, black would read as shadow instead of as "little"
HEAT = (mpl.colormaps["inferno"](np.linspace(0.25, 1.0, 256))[:, :3] * 255).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its overlay, if it has one, as data URIs, with the wall as a percentage of the height."""

    image: str
    overlay: str | None
    width: int
    height: int
    wall: float | None


@dataclass(frozen=True, kw_only=True)
class Series:
    """How one line of a chart looks, for the legend beside it."""

    name: str
    colour: str
    dash: str  # SVG's stroke-dasharray


def pair(overlay: Overlay) -> Pair | None:
    """Decode, lay the map over the image, encode again.

    Returns:
        None when a picture cannot be read or the two differ in size: the report then says so in its place.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _decode(overlay.image, "JPEG").convert("RGB")
            saliency, marked = (
                None if plane is None else _decode(plane, "PNG").convert("L")
                for plane in (overlay.saliency, overlay.outline)
            )
    except (NotBase64, OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    if any(plane is not None and plane.size != image.size for plane in (saliency, marked)):
        return None
    height = image.height
    factor = -(-SMALLEST // max(image.size))
    if factor > 1:
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.NEAREST)
        saliency, marked = (
            None if plane is None else plane.resize(size, Image.Resampling.NEAREST) for plane in (saliency, marked)
        )
    shown = [np.asarray(image)]
    if saliency is not None:
        shown.append(_heat(np.asarray(image), np.asarray(saliency)))
    if marked is not None:
        shown = [_outlined(picture, np.asarray(marked) > 127) for picture in shown]
    row = overlay.dead_from_row
    coded = [_jpeg(Image.fromarray(picture)) for picture in shown]
    return Pair(
        image=coded[0],
        overlay=coded[1] if saliency is not None else None,
        width=image.width,
        height=image.height,
        wall=None if row is None else round(100 * min(max(row, 0), height) / height, 2),
    )


def _decode(text: str, kind: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=[kind])


def _heat(image: NDArray[np.uint8], saliency: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour where the map is high, a pale grey photograph where it is low.

    Args:
        image: [h, w, 3].
        saliency: [h, w]; 255 is the map's maximum.
    """
    share = (saliency.astype(np.float32) / 255)[..., None]
    luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    grey = 60 + 0.62 * luma[..., None]
    alpha = 0.88 * share**0.75
    blended: NDArray[np.uint8] = ((1 - alpha) * grey + alpha * HEAT[saliency]).round().astype(np.uint8)
    return blended


def _outlined(picture: NDArray[np.uint8], marked: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A white line just inside what is marked and a dark one just outside, to be seen on any ground.

    Args:
        picture: [h, w, 3].
        marked: [h, w].
    """
    drawn = picture.copy()
    drawn[_grown(marked) & ~marked] = 20
    drawn[marked & _grown(~marked)] = 255
    return drawn


def _grown(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the pixels beside it, and above and below."""
    around = np.pad(marked, 1)
    return around[1:-1, 1:-1] | around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]


def _jpeg(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat_stops(count: int = 12) -> list[tuple[str, str]]:
    """The overlay's colours over mid-grey, for a legend: (offset in percent, colour)."""
    stops = []
    for share in np.linspace(0, 1, count):
        alpha = 0.88 * share**0.75
        red, green, blue = (1 - alpha) * 140 + alpha * HEAT[round(255 * share)]
        stops.append((f"{100 * share:.0f}%", f"rgb({red:.0f} {green:.0f} {blue:.0f})"))
    return stops


def legend(curve: Curve) -> list[Series]:
    """Names and looks of a chart's lines, in the order that `chart` draws them."""
    return [
        Series(name=name, colour=COLOURS[i % len(COLOURS)], dash=("", "5 3", "1.5 2.5", "6 3 1.5 3")[_lap(i)])
        for i, name in enumerate(curve.series)
    ]


def _lap(index: int) -> int:
    return index // len(COLOURS) % len(DASHES)


def chart(curve: Curve, *, prefix: str) -> str:
    """An SVG with lines and numbers only: title, labels and legend are the template's, which escapes them.

    Args:
        curve: What to draw; null is a gap.
        prefix: Put before every id, so that several drawings can share a page.
    """
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reports", "font.size": 9, "axes.linewidth": 0.8}):
        figure = Figure(figsize=(5.6, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for i, ys in enumerate(curve.series.values()):
            values = [float("nan") if y is None else y for y in ys]
            axes.plot(
                np.clip(curve.x, -HUGE, HUGE),
                np.clip(values, -HUGE, HUGE),
                color=COLOURS[i % len(COLOURS)],
                linestyle=DASHES[_lap(i)],
                linewidth=1.7,
                marker="o" if len(curve.x) <= 24 else "",
                markersize=2.8,
            )
        axes.grid(axis="y", color="#e4e2dc", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#9a9a94")
        axes.tick_params(length=0, labelcolor="#55595f")
        buffer = StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # a report of the same run is the same bytes
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", drawing)
    return re.sub(r' width="[^"]*pt" height="[^"]*pt"', "", drawing, count=1)
