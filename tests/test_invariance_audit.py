"""What the audits of invariance and fragility measure, what it costs, and that batches do not matter."""

import pytest
import torch

from audits import test_fragility as fragility_audit
from audits import test_invariance as invariance_audit
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.images import Batch
from camcore.perturbations import mirrored
from camcore.shift import twin_of
from camcore.verdict import Curve, Overlay, Table
from tests.tiny import SIZE, FlatNet, GapNet, some_images, tiny_subject

CAMS = {"hirescam": METHODS["hirescam"], "gradcam": METHODS["gradcam"]}


def moved_and_shifted(asked, shown, *, cams, draws):
    """Both measures of the audit of invariance."""
    twin = twin_of(asked, shown.images)
    return {
        **invariance_audit.invariance(asked, shown, cams=cams, draws=draws),
        **invariance_audit.input_shift(asked, shown, cams=cams, twin=twin),
    }


MEASURES = {"invariance": moved_and_shifted, "fragility": fragility_audit.fragility}
both = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def batch(count=3):
    images, ids = some_images(count), tuple(f"image {index}" for index in range(count))
    return Batch(images=images, labels=torch.zeros(count, dtype=torch.int64), ids=ids, seed=5, chunk=2)


def part(whole, index):
    one = slice(index, index + 1)
    return Batch(images=whole.images[one], labels=whole.labels[one], ids=whole.ids[one], seed=whole.seed, chunk=7)


def subject():
    return tiny_subject(GapNet(), "relu")


def empty(rec):
    """A map that marks nothing."""
    return -torch.ones_like(rec.activations[:, 0])


@both
def test_columns_are_one_number_per_image_and_the_judged_ones_are_within_their_bounds(measure):
    columns = measure(subject(), batch(), cams=CAMS, draws=1)
    module = invariance_audit if measure is moved_and_shifted else fragility_audit
    for question in module.QUESTIONS:
        column = question.name.partition("/")[2]
        column = f"hirescam:{column}" if module is invariance_audit else f"hirescam:{column}:{fragility_audit.JUDGED}"
        values = columns[column]
        assert values.shape == (3,)
        assert values.isfinite().all()
        assert ((values >= question.bounds[0]) & (values <= question.bounds[1])).all()
    assert {name.partition(":")[0] for name in columns} >= {"hirescam", "gradcam", "edges"}


@both
def test_what_is_measured_of_an_image_does_not_depend_on_its_batch(measure):
    together = measure(subject(), batch(), cams=CAMS, draws=2)
    for index in range(3):
        alone = measure(subject(), part(batch(), index), cams=CAMS, draws=2)
        assert set(alone) == set(together)
        for name, values in alone.items():
            torch.testing.assert_close(values[0], together[name][index], rtol=1e-3, atol=1e-3, equal_nan=True, msg=name)


@both
def test_methods_that_are_in_agreement_on_a_network_get_the_same_numbers(measure):
    # a mean and one linear layer behind the target: Grad-CAM and HiResCAM are one map
    columns = measure(subject(), batch(), cams=CAMS, draws=1)
    for name, values in columns.items():
        if name.startswith("hirescam:"):
            other = columns[name.replace("hirescam", "gradcam")]
            torch.testing.assert_close(values, other, rtol=1e-3, atol=1e-3, equal_nan=True)


@both
def test_a_map_that_marks_nothing_is_not_judged_and_named(measure):
    columns = measure(subject(), batch(), cams={"empty": empty, **CAMS}, draws=1)
    for name, values in columns.items():
        if name.startswith("empty:") and not name.endswith(":degenerate"):
            assert values.isnan().all(), name
    assert columns["empty:degenerate"].tolist() == [float(Degeneracy.EMPTY)] * 3
    assert columns["hirescam:degenerate"].tolist() == [0.0] * 3


@both
def test_the_model_is_left_as_it_came(measure):
    asked = subject()
    before = {name: value.clone() for name, value in asked.module.state_dict().items()}
    state = torch.random.get_rng_state()
    measure(asked, batch(), cams=CAMS, draws=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in asked.module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in asked.module.parameters())
    assert not any(module._forward_hooks for module in asked.module.modules())


def test_invariance_costs_one_recording_for_each_change_whatever_the_methods():
    asked = subject()
    with metered() as cost:
        invariance_audit.invariance(asked, batch(), cams=CAMS, draws=2)
    recordings = 1 + 4 + invariance_audit.DRAWS * 2  # as it is, four changes, noise
    assert cost.forwards == cost.backwards == 3 * recordings


def test_a_shift_costs_two_recordings_whatever_the_methods():
    asked = subject()
    twin = twin_of(asked, batch().images)
    with metered() as cost:
        invariance_audit.input_shift(asked, batch(), cams=CAMS, twin=twin)
    assert cost.forwards == cost.backwards == 3 * 2


def test_fragility_costs_one_attack_and_one_recording_for_each_picture_whatever_the_methods():
    asked = subject()
    with metered() as cost:
        fragility_audit.fragility(asked, batch(), cams=CAMS, draws=2)
    radii, steps = len(fragility_audit.RADII), len(fragility_audit.RADII) * fragility_audit.STEPS * 2
    recordings = 1 + (radii - 1 + 2) + radii  # as it is, noise (the judged radius twice), the attacked
    assert cost.forwards == 3 * (recordings + steps + 1)
    assert cost.backwards == 3 * (recordings + 2 * steps + 1)


def test_a_masked_gradient_leaves_the_attack_nothing_to_judge_and_breaks_the_premise():
    rounding = tiny_subject(GapNet(), "relu", preprocess=lambda images: (images * 64).round() / 64)
    columns = fragility_audit.fragility(rounding, batch(), cams=CAMS, draws=1)
    assert columns["attack:masked"].tolist() == [1.0] * 3
    assert columns["hirescam:attack:4"].isnan().all()
    assert columns["hirescam:noise:4"].isfinite().all()
    with pytest.raises(ValueError, match="gradients masked: on 3 of 3 images"):
        fragility_audit.has_a_gradient(rounding, batch().images)
    assert fragility_audit.has_a_gradient(subject(), batch().images) == {}


def test_a_map_of_one_place_is_told_from_one_that_goes_along():
    def fixed(rec):
        ramp = torch.arange(8.0).expand(len(rec.images), 8, 8)
        return ramp + 0.01 * rec.activations.mean(1)

    def along(rec):
        return torch.nn.functional.avg_pool2d(rec.images.mean(1), 2)

    columns = invariance_audit.invariance(subject(), batch(), cams={"fixed": fixed, "along": along}, draws=1)
    assert columns["fixed:flip"].max() < -0.9
    torch.testing.assert_close(columns["along:flip"], torch.ones(3, dtype=torch.float64))
    assert columns["along:translation"].min() > columns["along:translation"].max() - 0.5 > 0


@pytest.mark.parametrize("claim", ["shift", "flip", "translation", "jitter", "max_sensitivity"])
def test_invariance_shows_each_image_before_and_after_and_a_table_with_chance(claim):
    asked, shown = subject(), batch(2)
    twin = twin_of(asked, shown.images) if claim == "shift" else None
    given = {"twin": twin} if twin else {"draws": 1}
    columns = (invariance_audit.input_shift if twin else invariance_audit.invariance)(asked, shown, cams=CAMS, **given)
    rows = {one: {name: float(values[i]) for name, values in columns.items()} for i, one in enumerate(shown.ids)}
    pieces = list(
        invariance_audit.show(
            asked, shown, rows, name="gradcam", cam=CAMS["gradcam"], column=f"gradcam:{claim}", twin=twin
        )
    )
    overlays = [piece for piece in pieces if isinstance(piece, Overlay)]
    (table,) = (piece for piece in pieces if isinstance(piece, Table))
    assert [one.unit for one in overlays] == ["image 0", "image 0", "image 1", "image 1"]
    assert torch.equal(overlays[0].image, shown.images[0])
    if claim == "flip":
        assert torch.equal(overlays[1].image, mirrored(shown.images)[0])
    assert all(one.saliency.shape == (SIZE, SIZE) for one in overlays)
    assert table.columns[2:5] == ("gradcam", "edges", "random")
    assert len(table.rows) == (1 if twin else 6)
    assert all(isinstance(cell, float) and cell == cell for row in table.rows for cell in row[2:])


@pytest.mark.parametrize("kind", ["noise", "attack"])
def test_fragility_shows_each_image_before_and_after_and_likeness_over_the_radius(kind):
    asked, shown = tiny_subject(FlatNet(), "relu"), batch(2)
    columns = fragility_audit.fragility(asked, shown, cams=CAMS, draws=1)
    rows = {one: {name: float(values[i]) for name, values in columns.items()} for i, one in enumerate(shown.ids)}
    column = f"hirescam:{kind}:4"
    pieces = list(
        fragility_audit.show(asked, shown, rows, name="hirescam", cam=CAMS["hirescam"], column=column, draws=1)
    )
    overlays = [piece for piece in pieces if isinstance(piece, Overlay)]
    (curve,) = (piece for piece in pieces if isinstance(piece, Curve))
    (table,) = (piece for piece in pieces if isinstance(piece, Table))
    assert len(overlays) == 4
    assert 0 < (overlays[0].image - overlays[1].image).abs().max() <= 4 / 255 + 1e-6
    assert curve.x == (0, 1, 2, 4)
    assert set(curve.series) == {f"{what}, {of}" for what in ("random noise", "attack") for of in ("hirescam", "edges")}
    assert all(line[0] == 1 for line in curve.series.values())
    assert curve.series["random noise, hirescam"][-1] == pytest.approx(columns["hirescam:noise:4"].mean().item())
    assert table.columns == ("quantity", "random noise", "attack")
