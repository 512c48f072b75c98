"""What the command leaves in its folder: overlays, raw maps, sheets, and explanation.json, which says what they are."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from camcore.explain.classes import class_label
from camcore.explain.explanation import Explanation
from camcore.explain.sheet import Tile, draw_sheet

ROWS = 20  # images on one sheet
LONGEST = 120  # bytes of a file name before .<method>.png: most systems allow 255 in all


@dataclass(kw_only=True)
class Written:
    """What a run has written so far, and what it could not do."""

    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    sheets: list[str] = field(default_factory=list)
    rows: list[Mapping[str, Tile]] = field(default_factory=list)  # of the sheet that is being filled
    title: str = ""


def stems(files: Sequence[str]) -> list[str]:
    """A name for each file's results, no two alike, also where a file system ignores case: x, x-2, x-3."""
    taken: set[str] = set()
    found = []
    for file in files:
        stem = Path(file).stem.encode()[:LONGEST].decode(errors="ignore")
        name, count = stem, 1
        while name.casefold() in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        found.append(name)
    return found


def write_image(written: Written, explained: Explanation, index: int, *, file: str, stem: str) -> None:
    """One image's overlays and raw maps, and its row of the sheet; a full sheet is written."""
    maps = {}
    for cam, cells in explained.cells.items():
        overlay, raw = f"{stem}.{cam}.png", f"{stem}.{cam}.npy"
        explained.overlay(index, cam).save(written.folder / overlay)
        np.save(written.folder / raw, cells[index].float().numpy())
        low, high = float(cells[index].min()), float(cells[index].max())
        maps[cam] = {
            "overlay": overlay,
            "raw": raw,
            "shape": list(cells.shape[1:]),
            "largest": high if math.isfinite(high) else None,
            "smallest": low if math.isfinite(low) else None,
            "full_colour": explained.full_colour(index, cam) if math.isfinite(high) else None,
            "says": "; ".join(explained.says_of_map(index, cam)),
        }
    written.images.append(
        {
            "file": file,
            "predicted": _class(explained, index, int(explained.predicted[index])),
            "explained": _class(explained, index, int(explained.target[index])),
            "against": None if explained.against is None else _class(explained, index, int(explained.against[index])),
            "maps": maps,
        }
    )
    written.title = explained.title
    written.rows.append(explained.tiles(index))
    if len(written.rows) == ROWS:
        write_sheet(written)


def write_sheet(written: Written) -> None:
    """The sheet of the rows since the last one: sheet.png, sheet-2.png, and so on."""
    if not written.rows:
        return
    number = len(written.sheets) + 1
    name = "sheet.png" if number == 1 else f"sheet-{number}.png"
    note = "" if number == 1 else f"Sheet {number}."
    draw_sheet(written.rows, title=written.title, note=note).save(written.folder / name, optimize=True)
    written.sheets.append(name)
    written.rows.clear()


def write_manifest(written: Written, about: Mapping[str, Any]) -> None:
    """explanation.json: the model, the versions, every image with its files, and what could not be done."""
    content = {
        **about,
        "versions": versions(),
        "sheets": written.sheets,
        "images": written.images,
        "failed": written.failed,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (written.folder / "explanation.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("camcore", "torch", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _class(explained: Explanation, index: int, wanted: int) -> dict[str, Any]:
    probability = float(explained.probabilities[index, wanted])
    return {
        "index": wanted,
        "name": class_label(wanted, explained.classes),
        "probability": probability if math.isfinite(probability) else None,
    }
