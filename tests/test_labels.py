"""The twin that memorised permuted labels, and the audit that compares its maps with the clean network's."""

import pytest
import torch
from safetensors import safe_open
from torch import nn

from audits.test_labels import Pair, label_dependence, pair_of_networks, recorded, scenes_for
from camcore import chance
from camcore.cam import METHODS, RECORDED
from camcore.cost import metered
from camcore.images import Batch
from camcore.subject import Classifier
from fixtures.controls.clean import SIDE, clean_net
from fixtures.controls.labels import WEIGHTS, brightness, permuted_net
from fixtures.controls.maps import edge_detector
from fixtures.datasets.scenes import CLASSES, GENERATOR_VERSION, label
from fixtures.weights.train_clean import SEED, render
from fixtures.weights.train_permuted import HELD_OUT_SEED, TRAINING_IMAGES, hits, permuted
from tests.oracles import invariance as oracle
from tests.tiny import some_images

TRUE = torch.tensor([label(index, seed=SEED) for index in range(TRAINING_IMAGES)])


def test_weights_are_small_and_say_where_they_come_from() -> None:
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()

    assert WEIGHTS.stat().st_size <= 1_000_000
    assert f"version {GENERATOR_VERSION}," in metadata["scenes"]  # train again when the scenes change
    assert metadata["classes"] == ", ".join(CLASSES)
    assert metadata["memorised"].startswith("1.0000 ")


def test_permuted_labels_are_the_same_labels_and_agree_with_the_true_ones_by_chance() -> None:
    dealt = permuted(TRUE)

    assert torch.equal(dealt.bincount(), TRUE.bincount())
    assert 0.07 < (dealt == TRUE).float().mean() < 0.13
    assert torch.equal(permuted(TRUE), dealt)


@pytest.mark.slow
def test_the_network_knows_what_it_memorised_by_heart_and_nothing_else() -> None:
    images, _, true = render(200, SEED)
    fresh, _, labels = render(200, HELD_OUT_SEED)
    net = permuted_net().module

    assert torch.equal(true, TRUE[:200])
    assert hits(net, images, permuted(TRUE)[:200]) >= 199
    assert hits(net, fresh, labels) < 0.2 * 200


class NeverAsked(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the audited model was asked")


def audited() -> Classifier:
    return Classifier(**{**vars(clean_net()), "module": NeverAsked()})


def some_batch(count: int = 4) -> Batch:
    ids = tuple(f"photograph {index}" for index in range(count))
    return Batch(images=some_images(count, size=20), labels=torch.zeros(count, dtype=torch.long), ids=ids, seed=7)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return pair_of_networks()


def test_maps_that_never_look_at_the_network_are_alike_and_hirescams_are_not(pair: Pair) -> None:
    cams = {"hirescam": METHODS["hirescam"], "edges": edge_detector, "brightness": brightness}
    columns = label_dependence(audited(), some_batch(12), cams=cams, pair=pair)

    for name in ("edges", "brightness"):
        torch.testing.assert_close(columns[f"{name}:similarity"], torch.ones(12, dtype=torch.float64))
    assert columns["hirescam:similarity"].mean() < 0.5
    assert columns["random:similarity"].mean() < 0.25
    assert not columns["hirescam:degenerate"].any()


def test_two_copies_of_one_network_have_the_same_maps(pair: Pair) -> None:
    same = Pair(true=pair.true, permuted=pair.true)
    columns = label_dependence(audited(), some_batch(), cams={"gradcam": METHODS["gradcam"]}, pair=same)

    torch.testing.assert_close(columns["gradcam:signed"], torch.ones(4, dtype=torch.float64))


def test_a_map_that_only_changes_its_sign_counts_as_alike(pair: Pair) -> None:
    def flipping(rec):
        return brightness(rec) * (1 if rec.subject is pair.true else -1)

    columns = label_dependence(audited(), some_batch(), cams={"flipping": flipping}, pair=pair)

    for kind, value in (("signed", -1), ("absolute", 1), ("similarity", 1)):
        torch.testing.assert_close(columns[f"flipping:{kind}"], torch.full((4,), value, dtype=torch.float64))


def test_correlations_are_those_of_ranks_counted_one_by_one(pair: Pair) -> None:
    columns = label_dependence(audited(), some_batch(), cams={"hirescam": METHODS["hirescam"]}, pair=pair)
    true, permuted_ones = (METHODS["hirescam"](rec).flatten(1) for rec in recorded(some_batch(), pair))
    for index in range(4):
        one, other = true[index].tolist(), permuted_ones[index].tolist()
        signed = oracle.spearman(one, other)
        absolute = oracle.spearman([abs(x) for x in one], [abs(x) for x in other])
        assert columns["hirescam:signed"][index].item() == pytest.approx(signed)
        assert columns["hirescam:absolute"][index].item() == pytest.approx(absolute)
        assert columns["hirescam:similarity"][index].item() == pytest.approx(max(abs(signed), abs(absolute)))


def test_a_constant_map_ranks_nothing_and_says_so(pair: Pair) -> None:
    columns = label_dependence(audited(), some_batch(), cams={"uniform": chance.uniform}, pair=pair)

    assert columns["uniform:similarity"].isnan().all()
    assert columns["uniform:degenerate"].eq(4).all()


def test_one_recording_of_each_network_serves_all_methods(pair: Pair) -> None:
    with metered() as cost:
        columns = label_dependence(audited(), some_batch(), cams=RECORDED, pair=pair)

    assert (cost.forwards, cost.backwards) == (2 * 4, 2 * 4)
    assert all(column.shape == (4,) for column in columns.values())


def test_an_images_scene_is_its_own_and_its_row_does_not_depend_on_its_company(pair: Pair) -> None:
    batch, cams = some_batch(), {"gradcam": METHODS["gradcam"]}
    alone = Batch(images=batch.images[2:3], labels=batch.labels[2:3], ids=batch.ids[2:3], seed=batch.seed)
    together = label_dependence(audited(), batch, cams=cams, pair=pair)
    single = label_dependence(audited(), alone, cams=cams, pair=pair)

    assert scenes_for(batch).shape == (4, 3, SIDE, SIDE)
    assert torch.equal(scenes_for(alone)[0], scenes_for(batch)[2])
    assert not torch.equal(scenes_for(batch)[0], scenes_for(batch)[1])
    for name, column in single.items():
        torch.testing.assert_close(column[0], together[name][2], atol=1e-3, rtol=1e-3)
