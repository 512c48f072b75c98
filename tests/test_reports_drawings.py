import base64
import re
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reports import axis, charts, pictures, wording
from reports.axis import Axis
from reports.pictures import Album, Frames, Full, Plate, Unreadable
from reports.schema import Claim, Curve, Overlay
from tests.test_reports_example import claim, curve, encoded, overlay

FINITE = st.floats(-1e6, 1e6)


def made(**changes) -> Claim:
    return Claim.model_validate(claim(**changes))


def shown(**changes) -> Overlay:
    size = {"size": changes.pop("size")} if "size" in changes else {}
    return Overlay.model_validate(overlay(**size) | changes)


def framed(given: Overlay) -> tuple[Frames, dict[str, Plate]]:
    album = Album(room=10**7)
    return album.frames(given), {plate.name: plate for plate in album.plates.values()}


def half(size: tuple[int, int]) -> np.ndarray:
    return np.repeat(np.arange(size[0])[:, None] < size[0] // 2, size[1], axis=1).astype(np.uint8) * 255


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


def pixels(uri: str) -> np.ndarray:
    return np.asarray(opened(uri))


@given(FINITE, st.floats(1e-3, 1e6))
@settings(derandomize=True, deadline=None)
def test_ticks_are_round_numbers_inside_the_axis(low, width):
    scale = Axis(low=low, high=low + width, start=10, stop=250)
    ticks = scale.ticks()
    values = [float(label.replace("−", "-")) for _, label in ticks]

    assert 2 <= len(ticks) <= 8
    assert values == sorted(set(values))
    assert all(low - 1e-6 * width <= value <= low + width + 1e-6 * width for value in values)


@given(FINITE, st.floats(0, 10), FINITE)
@settings(derandomize=True, deadline=None)
def test_the_axis_shows_the_margin_and_the_interval(low, width, margin):
    estimate = claim()["estimate"] | {"point": low, "low": low, "high": low + width}
    asked = made(estimate=estimate, margin=margin)
    scale = axis.spanning([asked], start=10, stop=250)

    assert scale.low <= min(low, margin)
    assert scale.high >= max(low + width, margin)
    assert scale.low < scale.high


def test_the_supported_side_begins_at_the_margin():
    scale = Axis(low=0, high=1, start=0, stop=100)

    assert axis.plot(made(margin=0.5), scale).supported == ((50.0, 100),)
    within = made(margin=0.2, measure={"name": "m", "unit": "u", "direction": "within"})
    assert axis.plot(within, Axis(low=-1, high=1, start=0, stop=100)).supported == ((40.0, 60.0),)


def test_a_strip_draws_each_of_few_values_and_counts_many():
    few = axis.strip(made(values=[0.1, 0.2, 0.01], units=["a", "b", "c"]), start=0, stop=100)
    many = axis.strip(made(values=[0.1] * 500, units=["a"] * 500), start=0, stop=100)

    assert (few.good.count("M"), few.bad.count("M"), few.on_good_side) == (2, 1, 2)
    assert not few.bars
    assert (many.good, many.bad) == ("", "")
    assert [height for _, _, height in many.bars] == [84.0]
    assert axis.strip(made(values=[None], units=["a"]), start=0, stop=100) is None


def test_the_picture_of_two_claims_is_kept_once():
    album = Album(room=10**6)
    first = album.frames(shown())
    again = album.frames(shown(caption="another", dead_from_row=None))
    other = album.frames(shown(saliency=encoded(np.zeros((48, 64), dtype=np.uint8), "PNG")))

    assert (first.image, first.saliency) == (again.image, again.saliency)
    assert other.image == first.image
    assert other.saliency != first.saliency
    assert len(album.plates) == 3
    assert album.room == 10**6 - sum(len(plate.uri) for plate in album.plates.values())


def test_a_full_album_takes_nothing_more_and_still_shows_what_it_has():
    album = Album(room=10**6)
    album.frames(shown())
    album.room = 10
    with pytest.raises(Full):
        album.frames(shown(saliency=encoded(np.zeros((48, 64), dtype=np.uint8), "PNG")))

    assert album.frames(shown()).saliency is not None
    assert len(album.plates) == 2


@pytest.mark.parametrize(("size", "kept"), [((48, 64), (64, 48)), ((448, 300), (118, 176)), ((224, 224), (176, 176))])
def test_a_large_picture_is_made_smaller_and_its_places_stay(size, kept):
    frames, plates = framed(shown(size=size, dead_from_row=size[0] // 2, outline=encoded(half(size), "PNG")))

    assert pixels(plates[frames.image].uri).shape[1::-1] == kept
    assert (frames.width, frames.height) == size[::-1]
    assert frames.wall == size[0] // 2
    lines = np.asarray(opened(plates[frames.outline].uri).convert("RGBA"))
    rows = np.nonzero(lines[:, lines.shape[1] // 2, 3])[0] / len(lines)
    assert len(rows) >= 2
    assert np.allclose(rows, 0.5, atol=0.02)


def test_a_map_is_zero_where_it_was_zero():
    saliency = np.zeros((224, 224), dtype=np.uint8)
    saliency[:112] = 255
    frames, plates = framed(shown(size=(224, 224), saliency=encoded(saliency, "PNG")))
    kept = pixels(plates[frames.saliency].uri)[..., 0].astype(int)

    assert kept[: len(kept) // 2].min() > 245
    assert kept[len(kept) // 2 :].max() < 8


def test_heat_grows_lighter_and_denser_with_the_map():
    tables = pictures.heat_tables()
    luma = 0.2126 * np.array(tables["R"]) + 0.7152 * np.array(tables["G"]) + 0.0722 * np.array(tables["B"])

    assert (np.diff(luma) > 0).all()  # read alike without colour
    assert (np.diff(tables["A"]) > 0).all()
    assert tables["A"][0] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "not base64 <"},
        {"image": ""},
        {"image": encoded(np.zeros((48, 64, 3), dtype=np.uint8), "PNG")},
        {"image": overlay()["image"][:200]},
        {"saliency": overlay(size=(48, 48))["saliency"]},
        {"saliency": overlay()["image"]},
        {"outline": overlay(size=(48, 48))["saliency"]},
    ],
)
def test_a_picture_that_cannot_be_used_is_refused(changes):
    album = Album(room=10**6)
    with pytest.raises(Unreadable):
        album.frames(shown(**changes))
    assert not album.plates


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"x": [], "series": {"none": []}},
        {"x": [1.0], "series": {"one": [0.5]}},
        {"series": {"gaps": [None, None, None]}},
        {"series": {f"_{i}": [0.1, 0.2, 0.3] for i in range(30)}},
        {"series": {}},
        {"series": {"level": [0.0, 0.0, 0.0], "far": [1e9, -1e9, 1e-9]}},
    ],
)
def test_any_curve_can_be_drawn_and_read(changes):
    asked = Curve.model_validate(curve() | changes)
    drawn = charts.chart(asked)
    numbers = [float(one) for line in drawn.lines for one in re.findall(r"-?[\d.]+", line.path.replace("h0", ""))]

    assert [line.name for line in drawn.lines] == list(asked.series)
    assert all(0 <= one <= charts.WIDTH for one in numbers)
    assert drawn.up
    assert wording.read_curve(asked).endswith(".")


def test_a_gap_breaks_the_line():
    drawn = charts.chart(Curve.model_validate(curve() | {"x": [0, 1, 2, 3], "series": {"a": [0, 1, None, 1]}}))

    assert re.findall("[ML]", drawn.lines[0].path) == ["M", "L", "M"]
    assert drawn.lines[0].dots.count("M") == 3


def test_no_text_of_others_is_drawn_into_a_chart():
    hostile = "<script>$x$"
    changes = {"title": hostile, "x_label": hostile, "y_label": hostile, "series": {hostile: [1, 2, 3]}}
    line = charts.chart(Curve.model_validate(curve() | changes)).lines[0]

    assert set(line.path + line.dots) <= set("MLh0123456789. ")
