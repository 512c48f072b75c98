import base64
import io
import json
from math import inf, nan

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from audits.encode import claim_record, described, evidence, finite, grey_png, jpeg
from camcore.statistics import Estimate
from camcore.subject import Normalise
from camcore.verdict import Claim, Curve, Evidence, Outcome, Overlay, Table, Verdict
from reports import schema

CLAIM = Claim(
    id="deletion/beats_random[gradcam]",
    sentence="it does",
    kind="DIR",
    measure="probability",
    unit="1",
    margin=0.05,
    margin_source="ours",
    severity="gate",
    bounds=(-1.0, 1.0),
)
RAMP = torch.linspace(0, 1, 24 * 32).view(24, 32)
OVERLAY = Overlay(
    unit="a.png",
    role="worst",
    value=nan,
    caption="cat (0.93)",
    image=RAMP.expand(3, 24, 32),
    saliency=RAMP,
    dead_from_row=20,
)
CURVE = Curve(title="t", x_label="x", y_label="y", x=(0, 0.5, 1), series={"random": (1.0, nan, 0.0)})
TABLE = Table(title="t", columns=("map", "value"), rows=(("gradcam", 0.5), ("random", nan), ("images", 3)))


def verdict(*pieces: Evidence) -> Verdict:
    return Verdict(
        claim=CLAIM,
        outcome=Outcome.INCONCLUSIVE,
        reason="it straddles",
        estimate=Estimate(point=0.04, low=-0.1, high=0.2, level=0.98, n=3, method="betting"),
        p=nan,
        n_needed=500,
        values={"a.png": 0.1, 'b"\n.png': nan, "c.png": -inf},
        evidence=pieces,
        forwards=12,
        backwards=3,
        seconds=1.5,
    )


def record(given: Verdict) -> schema.Claim:
    """The record, as it comes back from the journal and passes the schema."""
    plain = claim_record(given, subject="m", node_id="a.py::t[m-gradcam]", version="1", rerun="pytest x")
    return schema.Claim.model_validate(json.loads(json.dumps(plain, allow_nan=False)))


def pixels(code: str) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(code))))


def test_a_verdict_comes_through_json_and_the_schema() -> None:
    found = record(verdict(OVERLAY, CURVE, TABLE))

    assert (found.id, found.audit, found.subject, found.verdict) == (CLAIM.id, "deletion", "m", "INCONCLUSIVE")
    assert found.units == ("a.png", 'b"\n.png', "c.png")
    assert found.values == (0.1, None, None)
    assert (found.p, found.n_needed, found.margin, found.bounds) == (None, 500, 0.05, (-1.0, 1.0))
    assert found.estimate is not None
    assert (found.estimate.point, found.estimate.low, found.estimate.high) == (0.04, -0.1, 0.2)
    assert (found.estimate.level, found.estimate.n, found.estimate.interval) == (0.98, 3, "betting")
    assert (found.cost.forwards, found.cost.backwards, found.cost.seconds) == (12, 3, 1.5)
    assert [piece.type for piece in found.evidence] == ["overlay", "curve", "table"]


@pytest.mark.parametrize("outcome", Outcome)
def test_a_bare_verdict_passes_the_schema(outcome: Outcome) -> None:
    found = record(Verdict(claim=CLAIM, outcome=outcome, reason="so"))

    assert (found.verdict, found.estimate, found.values) == (outcome.value, None, ())


def test_a_record_holds_builtin_types_only() -> None:
    def types(value: object) -> set[type]:
        if isinstance(value, dict):
            return {dict}.union(*(types(each) for each in (*value, *value.values())))
        if isinstance(value, list):
            return {list}.union(*(types(each) for each in value))
        return {type(value)}

    plain = claim_record(verdict(OVERLAY, CURVE, TABLE), subject="m", node_id="", version="1", rerun="")

    assert types(plain) <= {dict, list, str, int, float, bool, type(None)}


def test_pictures_come_back_as_they_went_in() -> None:
    found = evidence(OVERLAY)

    assert pixels(found["image"]).shape == (24, 32, 3)
    assert np.abs(pixels(found["image"])[..., 0] / 255 - RAMP.numpy()).max() < 0.03
    assert np.abs(pixels(found["saliency"]) / 255 - RAMP.numpy()).max() < 0.5 / 255 + 1e-6
    assert (found["value"], found["dead_from_row"]) == (None, 20)


@pytest.mark.parametrize("saliency", [torch.full((4, 4), nan), torch.full((4, 4), -1.0), torch.zeros(4, 4)])
def test_a_map_without_numbers_is_black(saliency: Tensor) -> None:
    assert not pixels(grey_png(saliency)).any()


def test_an_image_that_needs_a_gradient_is_drawn_too() -> None:
    assert pixels(jpeg(torch.ones(3, 8, 8, requires_grad=True))).min() > 250


def test_json_has_no_nan() -> None:
    assert [finite(value) for value in (nan, inf, -inf, None, 0.25)] == [None, None, None, None, 0.25]


def test_a_description_is_the_same_in_every_process() -> None:
    assert described(Normalise()) == repr(Normalise())
    assert described(lambda images: images) == described(lambda images: images).replace("0x", "")
