from dataclasses import replace
from functools import cache

import pytest
import torch

from audits import sanity_changes as changes
from audits import test_sanity as audit
from camcore import with_target_layer
from camcore.cam import METHODS, RECORDED
from camcore.cascade import every_stage, half_random, later_half
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.images import load
from camcore.verdict import Curve, Overlay, Table
from fixtures.controls.clean import clean_net
from fixtures.controls.maps import edge_detector
from fixtures.controls.sanity import prefix, weight_blind
from fixtures.datasets.scenes import scenes
from tests.oracles import randomisation as oracle

CAMS = {"hirescam": METHODS["hirescam"], "eigencam": METHODS["eigencam"]}
COUNT = 6
SEED = 6  # by which two of the six images are followed


def batch_of(ids=slice(None)):
    data = scenes(COUNT, seed=11)
    subject = with_target_layer(clean_net())
    return subject, load(data, data.ids[ids], subject.geometry, seed=SEED, device=torch.device("cpu"))


@cache
def setting():
    subject, batch = batch_of()
    return subject, batch, audit.established(subject, batch.images[:4], seed=SEED, draws=1)["execution"]


def measured(cams, ids=slice(None), draws=1):
    subject, _, execution = setting()
    return changes.sanity(subject, batch_of(ids)[1], cams=cams, execution=execution, draws=draws)


@cache
def two_cams():
    return measured(CAMS)


def flat(saliency):
    return saliency.flatten().double().tolist()


def test_the_reuse_of_prefixes_is_certified_on_the_small_network():
    assert setting()[2].reusable


def test_judged_columns_equal_the_oracle():
    subject, batch, execution = setting()
    columns = two_cams()
    with half_random(subject, batch.images, replace(execution, reusable=False), seed=SEED, chunk=4) as under:
        rec = under(())
        original = METHODS["hirescam"](rec)
        later = METHODS["hirescam"](under(later_half(execution), rec.target))
        random = [METHODS["hirescam"](under(every_stage(execution), rec.target, draw)) for draw in range(2)]
        other = METHODS["hirescam"](under((), changes.another_class(rec, batch)))
    for index in range(COUNT):
        whole = [1 - oracle.left(flat(original[index]), flat(one[index])) for one in random]
        assert columns["hirescam:depends:weights"][index].item() == pytest.approx(sum(whole) / 2, abs=1e-6)
        half = 1 - oracle.left(flat(original[index]), flat(later[index]))
        assert columns["hirescam:depends:later"][index].item() == pytest.approx(half, abs=1e-6)
        same = oracle.spearman(flat(original[index]), flat(other[index]))
        assert columns["hirescam:depends:class"][index].item() == pytest.approx(1 - same, abs=1e-6)


def test_columns_of_an_image_do_not_depend_on_its_company():
    together, alone = two_cams(), measured(CAMS, slice(3, 4))
    for name, column in alone.items():
        torch.testing.assert_close(column[0], together[name][3], atol=1e-3, rtol=1e-3, equal_nan=True)


def test_a_method_has_the_same_columns_alone_and_in_company():
    alone = measured({"hirescam": CAMS["hirescam"]})
    for name, column in alone.items():
        torch.testing.assert_close(column, two_cams()[name], equal_nan=True)


@pytest.mark.parametrize("cams", [{"hirescam": METHODS["hirescam"]}, RECORDED], ids=["one method", "seven"])
def test_the_cost_does_not_grow_with_the_methods(cams):
    subject, batch, execution = setting()
    followed = sum(changes.is_followed(batch, image_id, 1) for image_id in batch.ids)
    assert 0 < followed < COUNT  # or the count below would not tell
    with metered() as cost:
        changes.sanity(subject, batch, cams=cams, execution=execution, draws=1)
    stages = len(execution.stages)
    # the image, two classes, the later half, two random models; if followed the original, both series, all, smoothing
    assert stages == 13
    assert cost.forwards == 6 * COUNT + followed * (2 + 2 * stages + 2 * changes.SMOOTH_COPIES)
    assert cost.backwards == cost.forwards


def test_dear_methods_are_judged_and_not_followed():
    columns = measured({"gradient": METHODS["gradient"]})
    assert columns["gradient:depends:weights"].isfinite().all()
    assert not any(":cascade:" in name for name in columns)


@pytest.mark.parametrize(
    ("what", "name", "cam"),
    [
        ("weights", "edges", edge_detector),
        ("later", "edges", edge_detector),
        ("class", "edges", edge_detector),
        ("weights", "weight_blind", weight_blind),
        ("later", "prefix", prefix),
        ("class", "prefix", prefix),
    ],
)
def test_a_map_that_ignores_something_scores_exactly_nothing_there(what, name, cam):
    columns = measured({name: cam})
    torch.testing.assert_close(
        columns[f"{name}:depends:{what}"], torch.zeros(COUNT, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_eigencam_has_one_map_for_all_classes():
    found = two_cams()["eigencam:depends:class"]
    assert found[found.isfinite()].abs().max() < 1e-6
    assert found.isfinite().any()


def test_signs_that_change_with_the_weights_do_not_help_a_map():
    def of_either_sign(rec):
        return edge_detector(rec) * (1 if rec.logits.sum() > 0 else -1)

    columns = measured({"edges": of_either_sign})
    # rectified, a negative map is empty; the others are judged, and have nothing to say for themselves
    judged = columns["edges:depends:weights"]
    assert judged[judged.isfinite()].abs().sum() < 1e-6


def test_a_constant_original_is_named_and_gives_nothing_to_judge():
    columns = measured({"flat": lambda rec: torch.ones_like(rec.activations[:, 0])})
    assert (columns["flat:degenerate"] == Degeneracy.CONSTANT).all()
    for what in ("weights", "later", "class"):
        assert columns[f"flat:depends:{what}"].isnan().all()


def test_a_map_that_random_weights_blank_counts_as_changed_and_is_counted():
    subject, _, _ = setting()
    trained = subject.module.classifier.weight.data_ptr()

    def blank_when_random(rec):
        saliency = METHODS["hirescam"](rec)
        return saliency if subject.module.classifier.weight.data_ptr() == trained else torch.zeros_like(saliency)

    columns = measured({"blank": blank_when_random})
    assert (columns["blank:blank"] == 1).all()
    assert (columns["blank:depends:weights"] == 1).all()
    assert columns["blank:rank:weights"].isnan().all()


def test_a_map_that_random_weights_break_is_not_a_changed_map():
    subject, _, _ = setting()
    trained = subject.module.classifier.weight.data_ptr()

    def broken_when_random(rec):
        saliency = METHODS["hirescam"](rec)
        return saliency if subject.module.classifier.weight.data_ptr() == trained else saliency / 0 * 0

    columns = measured({"broken": broken_when_random})
    assert columns["broken:depends:weights"].isnan().all()
    assert (columns["broken:blank"] == 0).all()


def test_another_class_is_another_and_every_other_one_may_be_drawn():
    subject, batch, execution = setting()
    with half_random(subject, batch.images, execution, seed=SEED, chunk=4) as under:
        rec = under(())
    found = [changes.another_class(rec, replace(batch, seed=seed)) for seed in range(60)]
    assert all((classes != rec.target).all() for classes in found)
    assert len({int(classes[0]) for classes in found}) == 9
    one = replace(rec, logits=rec.logits[:, :1], target=torch.zeros_like(rec.target))
    assert torch.equal(changes.another_class(one, batch), one.target)


def test_every_fourth_image_or_so_is_followed_and_at_release_all():
    _, batch, _ = setting()
    ids = [str(index) for index in range(400)]
    share = sum(changes.is_followed(batch, image_id, 2) for image_id in ids) / len(ids)
    assert share == pytest.approx(0.25, abs=0.07)
    assert all(changes.is_followed(batch, image_id, changes.EVERYTHING) for image_id in ids)


def test_at_release_every_step_is_taken_and_otherwise_a_spread():
    _, _, execution = setting()
    many = replace(execution, stages=execution.stages * 10)
    assert {len(steps) for steps in changes.followed_steps(many, 2).values()} == {changes.CURVE_STEPS}
    assert {len(steps) for steps in changes.followed_steps(many, changes.EVERYTHING).values()} == {130}


def test_the_cascade_ends_where_all_weights_are_random():
    columns, (_, batch, execution) = two_cams(), setting()
    last = columns[f"hirescam:cascade:{len(execution.stages) - 1}"]
    signed, unsigned = columns["hirescam:rank:weights"].abs(), columns["hirescam:unsigned:weights"].abs()
    seen = last.isfinite()
    assert seen.tolist() == [changes.is_followed(batch, image_id, 1) for image_id in batch.ids]
    torch.testing.assert_close(last[seen], torch.maximum(signed, unsigned)[seen], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", ["weights", "later", "class"])
def test_the_evidence_has_strips_the_cascade_and_every_likeness(what):
    subject, batch, execution = setting()
    rows = {
        image_id: {name: float(column[index]) for name, column in two_cams().items()}
        for index, image_id in enumerate(batch.ids)
    }
    shown = list(
        audit.show(
            subject,
            batch,
            rows,
            name="hirescam",
            cam=CAMS["hirescam"],
            what=what,
            execution=execution,
            draws=1,
        )
    )
    overlays = [piece for piece in shown if isinstance(piece, Overlay)]
    assert len(overlays) == 12
    assert all(piece.saliency.aminmax()[0] >= 0 and piece.saliency.aminmax()[1] <= 1 for piece in overlays)
    curves = [piece for piece in shown if isinstance(piece, Curve)]
    assert len(curves) == (0 if what == "class" else 1)
    for curve in curves:
        assert set(curve.series) == {"hirescam", "two random models"}
        assert curve.x == tuple(range(1, 14))
    likeness = next(piece for piece in shown if isinstance(piece, Table) and "How alike" in piece.title)
    assert [row[0] for row in likeness.rows] == list(audit.POINTS.values())
    assert all(isinstance(cell, float) and -1 <= cell <= 1 for row in likeness.rows for cell in row[1:])
