"""The scenes are what the controls are trained and judged on: repeatable, balanced, with masks that can be believed."""

from collections import Counter

import numpy as np
import pytest
import torch

from camcore.errors import BadInput
from fixtures.datasets.scene_objects import PAINTERS
from fixtures.datasets.scenes import CLASSES, draw, scenes, sprite

SAMPLE = 100


@pytest.fixture(scope="module")
def sample():
    return tuple(torch.stack(parts) for parts in zip(*(draw(i, seed=11, size=96) for i in range(SAMPLE)), strict=True))


def edges(images):
    """Length of the brightness gradient, zero on the outermost pixels."""
    grey = images.mean(dim=1)
    right, down = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2], grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    return torch.nn.functional.pad((right**2 + down**2).sqrt(), (1, 1, 1, 1))


def test_an_image_depends_on_seed_and_index_alone():
    few, many = scenes(3, seed=4), scenes(50, seed=4)
    assert few.ids == many.ids[:3]
    assert few.labels == many.labels[:3]
    backwards = {i: many.read(i) for i in reversed(few.ids)}
    for image_id in few.ids:
        assert torch.equal(few.read(image_id), backwards[image_id])
        assert torch.equal(few.mask(image_id), many.mask(image_id))


def test_global_random_state_neither_matters_nor_moves():
    np.random.seed(0)  # noqa: NPY002  the legacy global generator is what must not be touched
    torch.manual_seed(0)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, _ = draw(7, seed=1, size=96)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.manual_seed(1)
    assert torch.equal(draw(7, seed=1, size=96)[0], first)


def test_no_two_images_are_alike(sample):
    images, _ = sample
    assert len({image.numpy().tobytes() for image in images}) == SAMPLE


def test_another_seed_gives_other_images():
    assert not torch.equal(draw(0, seed=1, size=96)[0], draw(0, seed=2, size=96)[0])


@pytest.mark.parametrize("n", [10, 100, 137])
def test_labels_are_balanced_to_within_one(n):
    counts = Counter(scenes(n, seed=3).labels)
    assert set(counts) == set(range(len(CLASSES)))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_labels_are_shuffled_by_the_seed():
    orders = {scenes(20, seed=seed).labels for seed in range(5)}
    assert len(orders) == 5


def test_values_are_whole_bytes(sample):
    images, _ = sample
    assert images.dtype == torch.float32
    assert images.shape == (SAMPLE, 3, 96, 96)
    as_bytes = (images * 255).round().to(torch.uint8)
    assert torch.equal(as_bytes.float() / 255, images)


@pytest.mark.parametrize("size", [48, 64, 97, 128])
def test_any_size_is_drawn(size):
    data = scenes(10, seed=0, size=size)
    for image_id in data.ids:
        assert data.read(image_id).shape == (3, size, size)
        assert data.mask(image_id).shape == (size, size)


def test_the_object_covers_a_fifth_of_the_picture_or_less(sample):
    _, masks = sample
    share = masks.mean(dim=(1, 2))
    assert torch.all((masks == 0) | (masks == 1))
    assert share.min() > 0.10
    assert share.max() < 0.25


def test_mask_is_where_the_object_is(monkeypatch):
    """Repaint the object in one flat colour: the mask marks every pixel of that colour and no other."""
    import fixtures.datasets.scenes as module

    def flat(painter, rng, *, area, turn, largest):
        colour, alpha = sprite(painter, rng, area=area, turn=turn, largest=largest)
        if painter is module.button:
            return colour, alpha
        return np.stack([alpha, 0 * alpha, alpha]), alpha

    monkeypatch.setattr(module, "sprite", flat)
    for index in range(20):
        image, mask = draw(index, seed=9, size=96)
        magenta = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
        painted = (image - magenta).abs().amax(dim=0) < 0.02
        assert painted.sum() > 500
        assert torch.all(mask[painted] == 1)
        assert (painted & (mask == 1)).sum() > 0.85 * mask.sum()  # the rest is the antialiased outline


def test_the_object_is_whole(sample):
    """Its coverage fades out before the picture's border or exactly at it: no mask is cut by more than a sliver."""
    _, masks = sample
    border = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], dim=1).sum(dim=1)
    assert border.max() < 45


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_reads_differently_from_run_to_run(name):
    painter, turn = PAINTERS[name]
    first, second = (
        sprite(painter, np.random.default_rng(seed), area=1500, turn=turn, largest=86)[0] for seed in (0, 1)
    )
    assert first.shape != second.shape or not np.allclose(first, second)


def test_background_has_more_edges_than_the_object(sample):
    images, masks = sample
    energy = edges(images)
    outside = (energy * (1 - masks)).sum(dim=(1, 2)) / energy.sum(dim=(1, 2))
    assert outside.mean() > 0.7
    assert (outside > 0.5).float().mean() > 0.95


def test_strongest_edges_are_hardly_commoner_on_the_object_than_elsewhere(sample):
    images, masks = sample
    energy = edges(images).flatten(1)
    strongest = energy.topk(energy.shape[1] // 5, dim=1).indices
    found = masks.flatten(1).gather(1, strongest).mean(dim=1)
    assert (found / masks.mean(dim=(1, 2))).mean() < 1.3


@pytest.mark.slow
def test_place_is_not_biased_towards_any_side_and_avoids_the_middle():
    masks = torch.stack([draw(index, seed=21, size=96)[1] for index in range(400)])
    mean = masks.mean(dim=0)
    halves = torch.stack([mean[:48].mean(), mean[48:].mean(), mean[:, :48].mean(), mean[:, 48:].mean()])
    assert halves.max() / halves.min() < 1.25
    assert mean.max() < 0.5  # no pixel is on the object in more than half of the scenes


def test_ground_does_not_tell_the_class():
    """Grounds are drawn before anything that depends on the class, from a stream that does not know it."""
    from fixtures.datasets.scene_backdrop import backdrop
    from fixtures.datasets.scene_grounds import GROUNDS

    first, second = (backdrop(np.random.default_rng(5), 96) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(GROUNDS) >= 5


def test_hash_tells_data_sets_apart():
    hashes = [
        scenes(n, seed=seed, size=size).sha256 for n, seed, size in ((5, 0, 96), (6, 0, 96), (5, 1, 96), (5, 0, 64))
    ]
    assert len(set(hashes)) == 4
    assert scenes(5, seed=0).sha256 == hashes[0]


def test_bad_numbers_are_refused_with_the_number():
    with pytest.raises(BadInput, match="n >= 1 images, got 0"):
        scenes(0, seed=0)
    with pytest.raises(BadInput, match="size >= 48 pixels, got 20"):
        scenes(5, seed=0, size=20)
