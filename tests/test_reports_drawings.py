import base64
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reports import axis, pictures
from reports.axis import Axis
from reports.schema import Claim, Curve, Overlay
from tests.test_reports_example import claim, curve, encoded, overlay

FINITE = st.floats(-1e6, 1e6)


def made(**changes) -> Claim:
    return Claim.model_validate(claim(**changes))


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))))


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

    assert len(few.dots) == 3
    assert [mark.good for mark in few.dots] == [False, True, True]
    assert few.dots[0].label == "c: 0.01"
    assert not many.dots
    assert len(many.bars) == 1
    assert axis.strip(made(values=[None], units=["a"]), start=0, stop=100) is None


def test_heat_is_where_the_map_is_and_grey_where_it_is_not():
    image = np.full((160, 160, 3), (200, 40, 40), dtype=np.uint8)
    saliency = np.zeros((160, 160), dtype=np.uint8)
    saliency[:80] = 255
    given_ = overlay() | {"image": encoded(image, "JPEG"), "saliency": encoded(saliency, "PNG")}

    shown = pixels(pictures.pair(Overlay.model_validate(given_)).overlay).astype(int)
    hot, cold = shown[40, 80], shown[120, 80]

    assert hot[0] - hot[2] > 60  # yellow: red without blue
    assert np.ptp(cold) <= 6  # grey


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (224, 224)])
def test_the_wall_is_a_share_of_the_height_whatever_the_size(size):
    pair = pictures.pair(Overlay.model_validate(overlay(size=size, dead_from_row=size[0] // 2)))

    assert pair.wall == 50.0
    assert max(pair.width, pair.height) >= pictures.SMALLEST
    assert pixels(pair.overlay).shape == pixels(pair.image).shape == (pair.height, pair.width, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "not base64 <"},
        {"image": ""},
        {"image": encoded(np.zeros((48, 64, 3), dtype=np.uint8), "PNG")},
        {"image": overlay()["image"][:200]},
        {"saliency": overlay(size=(48, 48))["saliency"]},
        {"saliency": overlay()["image"]},
    ],
)
def test_a_picture_that_cannot_be_used_is_none(changes):
    assert pictures.pair(Overlay.model_validate(overlay() | changes)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"x": [], "series": {"none": []}},
        {"x": [1.0], "series": {"one": [0.5]}},
        {"series": {"gaps": [None, None, None]}},
        {"series": {f"_{i}": [0.1, 0.2, 0.3] for i in range(30)}},
        {"series": {}},
    ],
)
def test_any_curve_can_be_drawn(changes):
    drawn = Curve.model_validate(curve() | changes)
    svg = pictures.chart(drawn, prefix="p")

    assert svg.startswith("<svg")
    assert "<metadata" not in svg
    assert len(pictures.legend(drawn)) == len(drawn.series)


def test_no_text_of_others_is_drawn_into_a_chart():
    hostile = "<script>$x$"
    changes = {"title": hostile, "x_label": hostile, "y_label": hostile, "series": {hostile: [1, 2, 3]}}
    svg = pictures.chart(Curve.model_validate(curve() | changes), prefix="p")

    assert "script" not in svg
    assert "$" not in svg
