"""What the audit of shuffling measures, what it costs, and that batches do not matter."""

from dataclasses import replace
from functools import partial
from math import isfinite

import pytest
import torch
from torch import Tensor, nn

from audits import test_shuffling as audit
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.engine import Terms, measure_missing
from camcore.images import Batch
from camcore.perturbations.shuffling import cut_lines, dealt, derangements, faded
from camcore.subject import Classifier
from camcore.verdict import Curve, Overlay, Table
from fixtures.controls.shuffling import PATCH, STEP, WINDOW, smoothed_bag
from fixtures.datasets.scenes import scenes
from tests.tiny import SIZE, FlatNet, GapNet, numbered_dataset, some_images, tiny_subject

CAMS = {"hirescam": METHODS["hirescam"], "gradcam": METHODS["gradcam"]}
GRIDS = (2, 4, 7, 8)  # of those that are asked, what fits a picture of 16 pixels


class OnePixelNet(nn.Module):
    """Looks at one pixel at a time, and takes the mean: the order of pixels cannot matter to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(images)).mean((2, 3)))


def batch(count: int = 3) -> Batch:
    images, ids = some_images(count), tuple(f"image {index}" for index in range(count))
    return Batch(images=images, labels=torch.arange(count), ids=ids, seed=5, chunk=2)


def part(whole: Batch, index: int) -> Batch:
    one = slice(index, index + 1)
    return Batch(images=whole.images[one], labels=whole.labels[one], ids=whole.ids[one], seed=whole.seed, chunk=7)


def subject() -> Classifier:
    return tiny_subject(GapNet(), "relu")


def test_the_judged_columns_are_one_number_per_image_within_their_bounds() -> None:
    columns = audit.shuffling(subject(), batch(), cams=CAMS, draws=2)
    judged = {
        "shuffling/structure": "structure",
        "shuffling/no_rise": "rise",
        "shuffling/map_follows": "gradcam:follows",
    }

    for question in audit.QUESTIONS:
        values = columns[judged[question.name]]
        assert values.shape == (3,)
        assert ((values >= question.bounds[0]) & (values <= question.bounds[1])).all()


def test_what_is_measured_of_an_image_does_not_depend_on_its_batch() -> None:
    together = audit.shuffling(subject(), batch(), cams=CAMS, draws=2)
    for index in range(3):
        alone = audit.shuffling(subject(), part(batch(), index), cams=CAMS, draws=2)
        for name, column in together.items():
            torch.testing.assert_close(alone[name][0], column[index], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("cams", [CAMS, {}], ids=["with maps", "without"])
def test_every_version_of_an_image_is_asked_once(cams: dict) -> None:
    asked, draws = subject(), 2
    with metered() as cost:
        audit.shuffling(asked, batch(), cams=cams, draws=draws)

    # whole; on every grid the cuts, and each draw; on the judged one faded too, in place and each draw
    assert cost.forwards == 3 * (1 + (1 + draws) * len(GRIDS) + 1 + draws)
    assert cost.backwards == (3 * (1 + draws) if cams else 0)  # the map of the whole and of the pieces


def test_a_network_of_single_pixels_loses_nothing_with_the_layout() -> None:
    flat = tiny_subject(OnePixelNet(), "relu")
    columns = audit.shuffling(flat, batch(), cams=CAMS, draws=1)

    for cells in GRIDS:
        torch.testing.assert_close(columns[f"shuffled:{cells}:true"], columns["whole:true"])
        assert columns[f"shuffled:{cells}:same"].tolist() == [1, 1, 1]
    torch.testing.assert_close(columns["structure"], torch.zeros(3), atol=1e-6, rtol=0, check_dtype=False)
    torch.testing.assert_close(columns["rise"], torch.zeros(3), atol=1e-6, rtol=0, check_dtype=False)
    torch.testing.assert_close(columns["hirescam:follows"], torch.ones(3), check_dtype=False)


def test_the_answers_are_those_to_the_pictures_in_pieces() -> None:
    asked, shown = subject(), batch()
    columns = audit.shuffling(asked, shown, cams={}, draws=1)
    order = next(audit.orders(shown, 8, 1))
    with torch.no_grad():
        first = asked.logits(shown.images).argmax(1)
        logits = asked.logits(dealt(shown.images, order, 8))

    probability = logits.softmax(1)
    torch.testing.assert_close(columns["shuffled:8:true"], probability[range(3), [0, 1, 2]].double())
    torch.testing.assert_close(columns["shuffled:8:predicted"], probability[range(3), first].double())
    assert columns["shuffled:8:same"].tolist() == (logits.argmax(1) == first).double().tolist()
    assert columns["shuffled:8:right"].tolist() == (logits.argmax(1) == torch.arange(3)).double().tolist()


def test_structure_is_the_lesser_of_what_shuffling_costs_plain_and_faded() -> None:
    shown = replace(batch(40), labels=torch.arange(40) % 5)
    columns = audit.shuffling(subject(), shown, cams={}, draws=2)
    plain = columns["whole:true"] - columns["shuffled:4:true"]
    without_cuts = columns["faded:4:true"] - columns["faded_shuffled:4:true"]

    assert (columns["structure"] <= plain).all()
    assert (columns["structure"] <= without_cuts).all()
    assert ((columns["structure"] == plain) | (columns["structure"] == without_cuts)).all()
    assert 0 < (plain < without_cuts).sum() < 40  # neither does for both


def test_the_answers_to_faded_pictures_are_the_mean_over_the_draws() -> None:
    asked, shown = subject(), batch()
    columns = audit.shuffling(asked, shown, cams={}, draws=2)
    in_place = faded(shown.images, 4)
    with torch.no_grad():
        each = [asked.logits(dealt(in_place, order, 4)).softmax(1) for order in audit.orders(shown, 4, 2)]
        stays = asked.logits(in_place).softmax(1)

    expected = torch.stack(each).mean(0)[range(3), [0, 1, 2]]
    torch.testing.assert_close(columns["faded_shuffled:4:true"], expected.double())
    torch.testing.assert_close(columns["faded:4:true"], stays[range(3), [0, 1, 2]].double())


@pytest.mark.slow
def test_a_bag_that_smooths_loses_by_edges_and_not_by_layout() -> None:
    """What was charged to layout before: the lines vanish behind the smoothing, and the steps do not."""
    bag, count = smoothed_bag(), 48
    shown = scenes(count, seed=20261)
    images, labels = torch.stack([shown.read(one) for one in shown.ids]), torch.tensor(shown.labels)
    order = derangements(16, generators=[torch.Generator().manual_seed(3)] * count)
    pieces, in_place = dealt(images, order, 4), faded(images, 4)

    def true(shown: Tensor) -> float:
        with torch.no_grad():
            return float(bag.logits(shown).softmax(1)[range(count), labels].mean())

    assert true(cut_lines(images, pieces, 4)) - true(pieces) > 0.1
    assert true(images) - true(pieces) > 0.2
    assert abs(true(in_place) - true(dealt(in_place, order, 4))) < 0.05


def test_a_window_of_the_bag_is_narrower_than_a_patch_and_on_no_grid_of_patches() -> None:
    bag = smoothed_bag()
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (seen,) = torch.autograd.grad(bag.module.features(images)[0, :, 1, 2].sum(), images)
    rows, columns = (seen.abs().sum((0, 1, without)).nonzero()[:, 0].tolist() for without in (3, 2))

    assert rows == list(range(STEP, STEP + WINDOW))
    assert columns == list(range(2 * STEP, 2 * STEP + WINDOW))
    assert WINDOW < PATCH
    assert len({STEP * index % PATCH for index in range((96 - WINDOW) // STEP + 1)}) == 7  # no two begin alike


def test_a_rise_is_no_fall() -> None:
    columns = audit.shuffling(subject(), batch(), cams={}, draws=1)
    risen = columns["shuffled:4:predicted"] - columns["whole:predicted"]

    torch.testing.assert_close(columns["rise"], risen.clamp(min=0))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_pieces_without_a_gradient_are_judged_alike_whatever_shares_their_batch(size: int) -> None:
    """Of a head that is shut on pieces, a batch of which none has a gradient lost what the model said of them."""

    class Shut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = GapNet()

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images) * (images[:, :, :4, :4].mean((1, 2, 3)) > 0.5)[:, None]

    data = numbered_dataset(5)
    images = some_images(5)
    images[:, :, :4, :4] = images[:, :, :4, :4] / 2 + 0.5  # the whole pictures have a gradient
    data = replace(data, read=lambda image_id: images[data.ids.index(image_id)])
    asked = tiny_subject(Shut(), "inner.relu")
    found = {}
    for batches in (size, 5):
        journal: dict[str, dict[str, float]] = {}
        terms = Terms(level=0.95, budget=5, seed=0, batch_size=batches, min_images=1)
        measure_missing(
            partial(audit.shuffling, cams=CAMS, draws=2), asked, data, data.ids, terms=terms, journal=journal
        )
        found[batches] = {one: {key: row[key] for key in row if "wards" not in key} for one, row in journal.items()}

    assert all(isfinite(row["structure"]) for row in found[5].values())
    for one, row in found[size].items():
        assert row == pytest.approx(found[5][one], abs=1e-3, nan_ok=True)


def test_a_draw_in_which_it_falls_does_not_make_up_for_one_in_which_it_rises() -> None:
    asked, shown = subject(), batch()
    with torch.no_grad():
        whole = asked.logits(shown.images)
        first = whole.argmax(1)
        said = [
            asked.logits(dealt(shown.images, order, 4)).softmax(1).gather(1, first[:, None])[:, 0]
            for order in audit.orders(shown, 4, 6)
        ]
    rises = (torch.stack(said) - whole.softmax(1).gather(1, first[:, None])[:, 0]).clamp(min=0)
    columns = audit.shuffling(asked, shown, cams={}, draws=6)

    torch.testing.assert_close(columns["rise"], rises.double().mean(0), atol=1e-5, rtol=1e-4)
    assert (columns["rise"] > (columns["shuffled:4:predicted"] - columns["whole:predicted"]).clamp(min=0) + 1e-6).any()


def test_a_map_that_marks_nothing_is_named_and_leaves_the_claims_about_the_model_alone() -> None:
    cams = {"empty": lambda rec: -torch.ones_like(rec.activations[:, 0])}
    columns = audit.shuffling(subject(), batch(), cams=cams, draws=1)

    assert columns["empty:follows"].isnan().all()
    assert columns["empty:degenerate"].all()
    assert columns["structure"].isfinite().all()


def test_evidence_is_the_picture_whole_cut_and_in_pieces() -> None:
    shown = batch()
    for cams, name in ((CAMS, "gradcam"), ({}, None)):
        columns = audit.shuffling(subject(), shown, cams=cams, draws=1)
        rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(shown.ids)}
        found = list(audit.show(subject(), shown, rows, cams=cams, column="structure", name=name))

        pictures = [one for one in found if isinstance(one, Overlay)]
        curves = [one for one in found if isinstance(one, Curve)]
        assert [one.caption.partition(":")[0] for one in pictures] == [
            "whole",
            "in pieces",
            "sides faded",
            "faded, in pieces",
        ] * 3
        assert all((one.saliency is None) == (name is None) for one in pictures)
        assert [one.x for one in curves] == [(1, *GRIDS)] * 3
        for index, (unit, values) in enumerate(curves[2].series.items()):
            expected = [columns["whole:true"], *(columns[f"shuffled:{cells}:true"] for cells in GRIDS)]
            assert unit == shown.ids[index]
            assert values == pytest.approx([float(column[index]) for column in expected], abs=1e-4)
        assert len([one for one in found if isinstance(one, Table)]) == (2 if name else 1)


def test_pictures_too_small_for_the_judged_grid_give_nothing_to_judge() -> None:
    small = Batch(images=some_images(2)[:, :, :6, :6], labels=torch.zeros(2, dtype=torch.int64), ids=("a", "b"), seed=0)
    columns = audit.shuffling(tiny_subject(OnePixelNet(), "relu"), small, cams=CAMS, draws=1)

    assert SIZE > 6
    assert "structure" not in columns
    assert "shuffled:2:true" in columns


def test_a_network_without_maps_is_asked_all_the_same() -> None:
    dense = tiny_subject(FlatNet(), "relu")

    assert "structure" in audit.shuffling(dense, batch(), cams={}, draws=1)
