"""The audit as a whole: what it measures, what it costs, whom it leaves out, and where it does not apply."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from audits import test_localisation as audit
from camcore import chance
from camcore.cam import RECORDED
from camcore.cost import metered
from camcore.images import Batch, Dataset, load, only
from camcore.layers import with_target_layer
from camcore.maps import upsample
from camcore.metrics.localisation import energy_inside, grown, pointing_hit, rank_accuracy
from camcore.verdict import Curve, Outcome, Overlay, Table, Verdict
from fixtures.controls import find_control
from fixtures.controls.localisation import one_cell_off
from fixtures.datasets.scenes import scenes
from tests.questions import asking, state_of

SIDE = 64
HIRESCAM = {"hirescam": RECORDED["hirescam"]}


@pytest.fixture(scope="module")
def subject():
    found = with_target_layer(find_control("clean"))
    return replace(found, geometry=replace(found.geometry, crop=(SIDE, SIDE)))


@pytest.fixture(scope="module")
def data():
    return scenes(5, seed=2, size=SIDE)


def batch_of(subject, data, ids=None) -> Batch:
    return load(data, ids or data.ids, subject.geometry, seed=0, device=torch.device("cpu"))


def test_seven_methods_cost_one_recording_of_the_image_and_one_of_its_mirror(subject, data):
    batch = batch_of(subject, data)
    before = state_of(subject.module)
    with metered() as cost:
        columns = audit.localisation(subject, batch, cams=RECORDED)
    assert (cost.forwards, cost.backwards) == (2 * len(batch), 2 * len(batch))
    assert all(column.shape == (len(batch),) for column in columns.values())
    assert state_of(subject.module) == before


def test_an_image_does_not_depend_on_its_company(subject, data):
    together = audit.localisation(subject, batch_of(subject, data), cams=HIRESCAM)
    alone = audit.localisation(subject, batch_of(subject, data, data.ids[3:4]), cams=HIRESCAM)
    for name, column in alone.items():
        torch.testing.assert_close(column[0], together[name][3], rtol=1e-4, atol=1e-4)


def test_differences_are_of_the_same_image_and_the_middle_is_the_middle(subject, data):
    batch = batch_of(subject, data)
    columns = audit.localisation(subject, batch, cams=HIRESCAM)
    blob = upsample(chance.centre(torch_recording(subject, batch)), (SIDE, SIDE))
    area = batch.masks.mean((1, 2))
    for what, wanted in (
        ("centre:energy", energy_inside(blob, batch.masks)),
        ("centre:rank", rank_accuracy(blob, batch.masks)),
        ("centre:pointing:near", pointing_hit(blob, grown(batch.masks, 2))),  # 0.03 of 64 pixels
        ("object:area", area),
        ("hirescam:over_area", columns["hirescam:energy"] - area),
        ("hirescam:over_centre", columns["hirescam:energy"] - columns["centre:energy"]),
        ("hirescam:hit_over_area", columns["hirescam:pointing"] - area),
        ("hirescam:precision:1", area),
    ):
        torch.testing.assert_close(columns[what], wanted, msg=what)


def torch_recording(subject, batch):
    from camcore.recording import record

    return record(subject, batch.images, batch.labels)


def test_the_labelled_class_is_explained_not_the_predicted_one(subject, data):
    batch = batch_of(subject, data)
    right = audit.localisation(subject, batch, cams=HIRESCAM)
    wrong = audit.localisation(subject, replace(batch, labels=(batch.labels + 1) % 10), cams=HIRESCAM)
    assert right["object:seen"].sum() > wrong["object:seen"].sum()
    assert not torch.allclose(right["hirescam:energy"], wrong["hirescam:energy"], equal_nan=True)


def test_the_mirror_takes_the_models_preference_out_and_leaves_what_the_map_is_laid_off(subject):
    batch = batch_of(subject, scenes(24, seed=4, size=SIDE))
    cams = {**HIRESCAM, "off": one_cell_off}
    columns = audit.localisation(subject, batch, cams=cams)
    laid, off = columns["hirescam:offset"], columns["off:offset"]
    assert abs(laid.mean()) < 0.15
    assert off.mean() > 0.5
    assert laid.std() < 0.6 * columns["hirescam:prefers"].std()
    mirror = replace(batch, images=batch.images.flip(-1), look_up=lambda: batch.masks.flip(-1))
    again = audit.localisation(subject, mirror, cams=cams)
    torch.testing.assert_close(again["hirescam:offset"], laid, atol=1e-3, rtol=0)
    torch.testing.assert_close(again["hirescam:prefers"], -columns["hirescam:prefers"], atol=1e-3, rtol=0)


def test_a_constant_map_gives_nothing_to_judge_and_says_why(subject, data):
    columns = audit.localisation(subject, batch_of(subject, data), cams={"uniform": chance.uniform})
    judged = [column for name, column in columns.items() if name.startswith("uniform:")]
    assert columns.pop("uniform:degenerate").unique().tolist() == [4]
    assert all(column.isnan().all() for column in judged if column is not judged[-1])


def verdicts_of(subject, data, folder, *, question=audit.ENERGY, column="hirescam:over_area") -> Verdict:
    found: list[Verdict] = []
    ask = asking(subject, folder, found)
    audit.ask_about(replace(ask, dataset=data, cams=HIRESCAM), question, "hirescam", column=column)
    return found[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mask": None}, "masks/ or boxes.csv"),
        ({"classes": ("cat", "dog")}, "2 classes"),
        ({"mask": lambda _: torch.ones(SIDE, SIDE)}, "5 times: the object covers more than 80%"),
        ({"mask": lambda _: torch.zeros(SIDE, SIDE)}, "5 times: the object covers less than 0.1%"),
        ({"mask": lambda _: torch.full((SIDE, SIDE), torch.nan)}, "5 times: nobody has marked"),
    ],
)
def test_where_nobody_can_know_the_question_does_not_apply(subject, data, changes, told, tmp_path: Path):
    verdict = verdicts_of(subject, replace(data, **changes), tmp_path)
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert told in verdict.reason
    assert "\n" not in verdict.reason


@pytest.mark.slow
def test_images_without_an_object_to_judge_are_left_out_and_counted_in_the_table(subject, tmp_path: Path):
    whole = scenes(20, seed=2, size=SIDE)
    odd = frozenset(whole.ids[:4])

    def mask(image_id: str) -> torch.Tensor:
        return torch.ones(SIDE, SIDE) if image_id in odd else whole.mask(image_id)

    verdict = verdicts_of(subject, replace(whole, mask=mask), tmp_path)
    assert verdict.outcome is not Outcome.ERROR
    assert set(verdict.values) == set(whole.ids) - odd
    overlays = [piece for piece in verdict.evidence if isinstance(piece, Overlay)]
    assert overlays
    assert all(torch.equal(piece.outline, whole.mask(piece.unit)) for piece in overlays)
    assert any(isinstance(piece, Curve) for piece in verdict.evidence)
    rows = [row for piece in verdict.evidence if isinstance(piece, Table) for row in piece.rows]
    assert ("left out: the object covers more than 80% of the crop", 4) in rows


@pytest.mark.slow
def test_all_claims_share_the_rows_of_one_measurement(subject, tmp_path: Path):
    data: Dataset = only(scenes(16, seed=2, size=SIDE), scenes(16, seed=2, size=SIDE).ids)
    found: list[Verdict] = []
    ask = replace(asking(subject, tmp_path, found), dataset=data, cams=HIRESCAM)
    put = partial(audit.ask_about, ask, cam="hirescam")
    put(audit.ENERGY, column="hirescam:over_area")
    with metered() as cost:
        put(audit.BEATS_CENTRE, column="hirescam:over_centre")
        put(audit.POINTING, column="hirescam:hit_over_area")
        put(audit.OFFSET, column="hirescam:offset")
    pictures = 3 * 6  # of the evidence of three claims
    assert cost.forwards == pictures
    assert len({tuple(verdict.values) for verdict in found}) == 1
