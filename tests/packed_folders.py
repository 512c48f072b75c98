"""Folders that somebody else packed, and what was skipped of them."""

from pathlib import Path

from PIL import Image as Pillow
from torch import nn

from camcore.images import Dataset, Geometry
from camcore.subject import Classifier
from fixtures.datasets.find import find_dataset
from tests import bombs

MODEL = Classifier(
    name="tiny",
    spec="tiny",
    module=nn.Identity(),
    geometry=Geometry(crop=(8, 8), resize=8),
    classes=("cat", "dog", "great white shark"),
)


def picture(file: Path, size: tuple[int, int] = (12, 10)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", size, "red").save(file, "PNG")
    return file


def found(root: Path | str) -> Dataset:
    return find_dataset(str(root), subject=MODEL)


def skipped(root: Path) -> dict[str, str]:
    """Why each file of a folder is left alone; what can be read is read."""
    data = found(root)
    for image_id in data.ids:
        assert data.read(image_id).isfinite().all()
    return dict(data.skipped)


BOMBS: dict[str, bytes] = {
    "png": bombs.png(30_000, 30_000),
    "just too large png": bombs.png(9_460, 9_460),
    "gif": bombs.gif(65_000, 65_000),
    "bmp": bombs.bmp(30_000, 30_000),
    "tiff": bombs.tiff(30_000, 30_000),
    "webp": bombs.webp(16_384, 16_384),
    "strip": bombs.png(1, 60_000_000),
}
