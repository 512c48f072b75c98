"""The outline of the object, from the audit's evidence through results.json to the report's pictures."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from audits.encode import evidence
from camcore.verdict import Overlay
from reports import pictures, schema

SIDE = 128  # not enlarged
SQUARE = torch.zeros(SIDE, SIDE)
SQUARE[32:96, 40:80] = 1
OVERLAY = Overlay(
    unit="a.png",
    role="worst",
    value=0.5,
    caption="",
    image=torch.full((3, SIDE, SIDE), 0.5),
    saliency=torch.zeros(SIDE, SIDE),
    outline=SQUARE,
)


def framed(overlay: schema.Overlay) -> tuple[pictures.Frames, dict[str, Image.Image]]:
    """The frames of an overlay, and the plates that they name."""
    album = pictures.Album(room=10**6)
    frames = album.frames(overlay)
    codes = {plate.name: base64.b64decode(plate.uri.partition(",")[2]) for plate in album.plates.values()}
    return frames, {name: Image.open(io.BytesIO(code)).convert("RGBA") for name, code in codes.items()}


def drawn(piece: Overlay) -> np.ndarray:
    """The picture with its outline laid over it, as the page does, in grey."""
    frames, plates = framed(schema.Overlay.model_validate(evidence(piece)))
    picture = plates[frames.image]
    if frames.outline is not None:
        picture = Image.alpha_composite(picture, plates[frames.outline])
    return np.asarray(picture.convert("L")).astype(int)


def test_the_line_runs_along_the_edge_of_the_object() -> None:
    shown, plain = drawn(OVERLAY), drawn(replace(OVERLAY, outline=None))
    assert shown[32, 60] > 200  # the object's first row
    assert shown[60, 79] > 200
    assert shown[31, 60] < 80  # and the row before it
    far = [(60, 60), (10, 10), (100, 20)]
    assert all(abs(shown[place] - plain[place]) < 12 for place in far)
    assert abs(plain - np.median(plain)).max() < 12


def test_an_object_that_fills_the_picture_has_no_edge_to_draw() -> None:
    assert np.ptp(drawn(replace(OVERLAY, outline=torch.ones(SIDE, SIDE)))) < 12


def test_an_unknown_outline_is_none() -> None:
    assert np.ptp(drawn(replace(OVERLAY, outline=torch.full((SIDE, SIDE), torch.nan)))) < 12


@pytest.mark.parametrize("outline", ["not base64 <", evidence(OVERLAY)["image"]])
def test_an_outline_that_cannot_be_read_gives_no_picture(outline: str) -> None:
    broken = schema.Overlay.model_validate(evidence(OVERLAY) | {"outline": outline})
    with pytest.raises(pictures.Unreadable):
        framed(broken)


def test_an_outline_of_another_size_gives_no_picture() -> None:
    small = evidence(replace(OVERLAY, image=torch.zeros(3, 8, 8), saliency=torch.zeros(8, 8), outline=torch.ones(8, 8)))
    other = schema.Overlay.model_validate(evidence(OVERLAY) | {"outline": small["outline"]})
    with pytest.raises(pictures.Unreadable):
        framed(other)


def test_results_written_before_there_were_outlines_are_read() -> None:
    old = evidence(OVERLAY)
    del old["outline"]
    assert schema.Overlay.model_validate(old).outline is None
