"""The committed weights are the clean control's: they load, are right on fresh scenes, and look at the object."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fixtures.controls.small_net import SmallNet
from fixtures.datasets.scenes import CLASSES, GENERATOR_VERSION
from fixtures.weights.train_clean import WEIGHTS, blobs, blurred, degraded, held_out, replaced

FRESH_SEED = 777  # neither the training's nor the recipe's own held-out seed


@pytest.fixture(scope="module")
def net():
    net = SmallNet(len(CLASSES))
    net.load_state_dict(load_file(WEIGHTS), strict=True)
    return net.eval()


@pytest.fixture(scope="module")
def found(net):
    return held_out(net, n=500, seed=FRESH_SEED)


def test_weights_are_small():
    assert WEIGHTS.stat().st_size <= 1_000_000


def test_weights_say_where_they_come_from():
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert f"version {GENERATOR_VERSION}," in metadata["scenes"]  # retrain when the scenes change
    assert metadata["classes"] == ", ".join(CLASSES)
    assert "held_out_accuracy" in metadata


def test_last_map_is_an_eighth_of_the_side(net):
    with torch.no_grad():
        assert net.features(torch.zeros(1, 3, 96, 96)).shape == (1, 96, 12, 12)


def test_top_four_rows_of_the_map_see_rows_0_to_45_only(net):
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    net.features(images)[:, :, :4].sum().backward()
    seen = images.grad.abs().sum(dim=(0, 1, 3)) > 0
    assert torch.all(seen[:46])
    assert not torch.any(seen[46:])


def test_logits_are_the_mean_of_the_class_activation_map(net):
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = torch.einsum("ck,bkij->bcij", net.classifier.weight, net.features(images))
        torch.testing.assert_close(maps.mean(dim=(2, 3)) + net.classifier.bias, net(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_fresh_scenes_are_recognised(found):
    assert found["correct"].float().mean() >= 0.95
    assert found["probability"].mean() >= 0.9


@pytest.mark.slow
def test_blurring_the_object_hurts_and_blurring_the_background_does_not(found):
    assert found["object_drop"].mean() > 0.6
    assert found["background_drop"].mean() < 0.05


@pytest.mark.slow
def test_class_activation_map_lies_on_the_object(found):
    assert found["map_on_object"].mean() > 0.5


def test_blur_keeps_a_constant_image():
    images = torch.full((1, 3, 96, 96), 0.37)
    torch.testing.assert_close(blurred(images), images)


def test_replacement_touches_marked_pixels_only():
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    where = torch.zeros(1, 96, 96, dtype=torch.bool)
    where[:, 10:30, 10:30] = True
    result = replaced(images, where)
    outside = ~where[:, None].expand_as(images)
    assert torch.equal(result[outside], images[outside])
    assert not torch.equal(result, images)


def test_blobs_cover_the_share_asked_for():
    share = torch.tensor([0.1, 0.25, 0.4])
    where = blobs((3, 96, 96), 8, share, torch.Generator().manual_seed(2))
    torch.testing.assert_close(where.float().mean(dim=(1, 2)), share, atol=0.01, rtol=0)


def test_training_targets_are_distributions_that_keep_the_class_where_the_image_is_intact():
    rng = torch.Generator().manual_seed(3)
    images, masks, labels = torch.rand(64, 3, 96, 96, generator=rng), torch.zeros(64, 96, 96), torch.arange(64) % 10
    masks[:, 20:60, 20:60] = 1
    result, target = degraded(images, masks, labels, rng)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(64))
    intact = (result == images).flatten(1).all(dim=1)
    assert 15 < intact.sum() < 50
    assert torch.all(target[intact].argmax(dim=1) == labels[intact])
    assert torch.all(target[intact].amax(dim=1) == 1)
    assert target.amax(dim=1).min() < 0.2
