from dataclasses import replace

import pytest
import torch

from audits import deletion_curves, test_deletion, test_faithfulness
from camcore import chance, with_target_layer
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.images import Batch, load
from camcore.maps import rectify
from fixtures.controls.clean import clean_net
from fixtures.controls.faithfulness import inverted, noise_map
from fixtures.datasets.scenes import scenes
from tests.tiny import GapNet, some_images, tiny_subject

CAMS = {name: METHODS[name] for name in ("gradcam", "hirescam", "layercam")}
MEASURES = {"deletion": deletion_curves.deletion, "faithfulness": test_faithfulness.faithfulness}
both = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def some_batch(count=4, chunk=7):
    images = some_images(count)
    ids = tuple(f"img{index}" for index in range(count))
    return Batch(images=images, labels=torch.zeros(count, dtype=torch.int64), ids=ids, seed=3, chunk=chunk)


def part_of(batch, where):
    return replace(batch, images=batch.images[where], labels=batch.labels[where], ids=batch.ids[where])


BRIGHT = 4  # the class whose map is nowhere empty


def steep(**options):
    """A network whose probabilities can fall: far apart between images, and nowhere near 0 or 1 on average."""
    subject = tiny_subject(GapNet(channels=32), "relu", **options)
    head = subject.module.head
    with torch.no_grad():
        head.weight *= 5
        head.bias -= subject.logits(some_images(4)).mean(0)
        head.bias[BRIGHT] += 1
    return subject


@pytest.mark.parametrize("draws", [1, 3])
def test_deletion_costs_one_recording_and_what_each_map_is_asked(draws):
    subject, batch = steep(), some_batch()
    with metered() as cost:
        columns = deletion_curves.deletion(subject, batch, cams=CAMS, draws=draws)
    maps = len(CAMS) + draws + 2
    # the recording, the blurred image; per map two curves of five steps, and one step for each other baseline
    assert cost.forwards == len(batch) * (1 + 1 + maps * (2 * 5 + 4))
    assert cost.backwards == len(batch)
    assert all(column.shape == (len(batch),) for column in columns.values())


@pytest.mark.parametrize("draws", [1, 3])
def test_hidden_patches_are_asked_for_once_whatever_the_number_of_maps(draws):
    subject, batch = steep(), some_batch()
    for cams in (CAMS, {"hirescam": METHODS["hirescam"]}):
        with metered() as cost:
            test_faithfulness.faithfulness(subject, batch, cams=cams, draws=draws)
        # the recording, 25 patches, the random sets; one masked image for each map
        assert cost.forwards == len(batch) * (1 + 25 + 12 * draws + len(cams) + 4)
        assert cost.backwards == len(batch)


@both
def test_an_images_columns_do_not_depend_on_its_company(measure):
    batch = some_batch()
    together = measure(steep(), batch, cams=CAMS, draws=1)
    alone = measure(steep(), part_of(batch, slice(2, 3)), cams=CAMS, draws=1)
    assert alone.keys() == together.keys()
    for name, column in alone.items():
        torch.testing.assert_close(column[0], together[name][2], atol=1e-4, rtol=1e-4, equal_nan=True)


@both
def test_a_map_that_cannot_be_judged_is_named_and_has_no_value(measure):
    def nothing(rec):
        return -rec.activations.sum(1).abs()

    cams = {"nothing": nothing, "flat": chance.uniform, "hirescam": METHODS["hirescam"]}
    columns = measure(steep(), some_batch(), cams=cams, draws=1)
    for name, code in (("nothing", Degeneracy.EMPTY), ("flat", Degeneracy.CONSTANT), ("hirescam", Degeneracy.NONE)):
        assert columns[f"{name}:degenerate"].tolist() == [code] * 4
        judged = [column for key, column in columns.items() if key.startswith(name) and not key.endswith("degenerate")]
        assert all(column.isnan().all() == (code != 0) for column in judged)
    assert not any(column.isnan().any() for key, column in columns.items() if key.startswith(("random", "edges")))


def test_a_probability_that_stays_at_1_is_named_saturated():
    subject = steep()
    with torch.no_grad():
        subject.module.head.bias[BRIGHT] += 1000  # the class score depends on the image as before, its softmax does not
    columns = deletion_curves.deletion(subject, some_batch(), cams=CAMS, draws=1)
    for name in CAMS:
        assert columns[f"{name}:degenerate"].tolist() == [Degeneracy.SATURATED] * 4
        for judged in (
            "over_random:0.2",
            "over_edges:0.2",
            "over_centre:0.2",
            "over_random:0.1",
            "over_random:inpainting",
        ):
            assert columns[f"{name}:{judged}"].isnan().all(), judged
        assert columns[f"{name}:deletion"].eq(1).all()
    # hiding patches is read in log-odds, which do not saturate
    columns = test_faithfulness.faithfulness(subject, some_batch(), cams=CAMS, draws=1)
    assert not columns["hirescam:occlusion"].isnan().any()


def test_a_probability_that_only_chance_leaves_at_1_is_judged():
    intact = torch.tensor([[1.0, 1, 1, 1, 1, 1, 0.2]])
    fallen = torch.tensor([[1.0, 1, 0.4, 0.3, 0.2, 0.2, 0.2]])
    elsewhere = {name: torch.ones(1, 1) for name in deletion_curves.ELSE}
    compared = deletion_curves._compared(
        "cam", {"deletion": fallen} | elsewhere, {"random": {"deletion": intact} | elsewhere}, torch.tensor([0])
    )
    assert compared["cam:over_random:0.05"].isnan().all()
    assert compared["cam:over_random:0.1"].item() == pytest.approx(0.6)
    assert compared["cam:over_random:0.2"].item() == pytest.approx(0.7)
    assert compared["cam:over_random:black"].isnan().all()


def test_the_columns_that_are_judged_are_within_the_claims_bounds():
    columns = MEASURES["deletion"](steep(), some_batch(), cams=CAMS, draws=1)
    columns |= MEASURES["faithfulness"](steep(), some_batch(), cams=CAMS, draws=1)
    for question in (*test_deletion.QUESTIONS, *test_faithfulness.QUESTIONS):
        low, high = question.bounds
        assert low < high
    for name in CAMS:
        for other in ("random", "edges", "centre"):
            assert columns[f"{name}:over_{other}:0.2"].abs().max() <= 1
        assert columns[f"{name}:occlusion"].abs().max() <= 1
        assert columns[f"{name}:over_edges"].abs().max() <= 2


def test_a_better_map_is_the_smaller_area_and_the_difference_is_paired():
    columns = deletion_curves.deletion(steep(), some_batch(), cams=CAMS, draws=2)
    for other in ("random", "edges", "centre"):
        difference = columns[f"{other}:deletion:0.2"] - columns["gradcam:deletion:0.2"]
        torch.testing.assert_close(columns[f"gradcam:over_{other}:0.2"], difference)
    assert columns["gradcam:deletion"].min() >= 0
    torch.testing.assert_close(columns["gradcam:deletion:0"], columns["gradcam:insertion:1"])
    torch.testing.assert_close(columns["gradcam:deletion logit:1"], columns["gradcam:insertion logit:0"])


def test_the_noise_map_belongs_to_the_image_and_the_inverted_one_turns_the_order_round():
    from camcore.recording import record

    batch = some_batch()
    rec = record(steep(), batch.images)
    alone = record(steep(), batch.images[1:2])
    assert torch.equal(noise_map(alone)[0], noise_map(rec)[1])
    assert not torch.equal(noise_map(rec)[0], noise_map(rec)[1])
    original, turned = rectify(METHODS["hirescam"](rec)).flatten(1), inverted(rec).flatten(1)
    assert torch.equal(original.argmax(1), turned.argmin(1))
    assert turned.min() == 0


@pytest.mark.slow
@pytest.mark.parametrize("audit", [test_deletion, test_faithfulness], ids=MEASURES)
def test_the_evidence_can_be_shown_and_names_what_is_judged(audit):
    subject, data = with_target_layer(clean_net()), scenes(6, seed=11)
    batch = load(data, data.ids, subject.geometry, seed=5, device=torch.device("cpu"))
    cams = {"hirescam": METHODS["hirescam"]}
    measure = MEASURES[audit.QUESTIONS[0].audit]
    columns = measure(subject, batch, cams=cams, draws=1)
    rows = {one: {key: float(column[index]) for key, column in columns.items()} for index, one in enumerate(batch.ids)}
    column = {"deletion": "hirescam:over_random:0.2", "faithfulness": "hirescam:occlusion"}[audit.QUESTIONS[0].audit]
    shown = list(audit.show(subject, batch, rows, name="hirescam", cam=cams["hirescam"], column=column))
    kinds = [type(item).__name__ for item in shown]
    assert kinds.count("Overlay") in (6, 12)
    assert {"Curve", "Table"} <= set(kinds)
    for item in shown:
        if type(item).__name__ == "Curve":
            assert "hirescam" in item.series
            assert all(value == value for series in item.series.values() for value in series)
        if type(item).__name__ == "Table":
            assert all(len(row) == len(item.columns) for row in item.rows)
