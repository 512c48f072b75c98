import pytest
import torch

from camcore import chance
from camcore.cam import METHODS
from camcore.recording import Recording
from camcore.seeds import generator
from tests.tiny import some_images


def recording(images, side=(4, 6)):
    features = torch.zeros(len(images), 3, *side)
    return Recording(
        images=images,
        logits=torch.zeros(len(images), 2),
        target=torch.zeros(len(images), dtype=torch.long),
        activations=features,
        gradients=features,
        layer="made up",
    )


def named_generators(*names):
    return [generator(0, name) for name in names]


def test_random_maps_depend_on_the_generators_alone():
    rec = recording(some_images(3))
    together = chance.random(rec, generators=named_generators("a", "b", "c"))
    alone = chance.random(recording(some_images(1, seed=5)), generators=named_generators("b"))
    assert together.shape == (3, 4, 6)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_random_maps_are_uniform():
    values = chance.random(recording(some_images(1), (100, 100)), generators=named_generators("a")).flatten()
    # ten bins of a thousand on average: chi-square with 9 degrees of freedom is below 27.9 in 999 of 1000 draws
    counts = torch.histc(values, bins=10, min=0, max=1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9


def test_chance_draws_no_global_random_number():
    before = torch.get_rng_state()
    chance.random(recording(some_images(1)), generators=named_generators("a"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("side", [(7, 7), (4, 6), (1, 3)])
def test_centre_is_highest_in_the_middle_and_symmetric(side):
    rec = recording(some_images(2), side)
    bump = chance.centre(rec)
    assert bump.shape == (2, *side)
    assert torch.equal(bump[0], bump[1])
    torch.testing.assert_close(bump, bump.flip(1))
    torch.testing.assert_close(bump, bump.flip(2))
    assert bump[0, side[0] // 2, side[1] // 2] == bump.max()


def test_centre_is_a_gaussian_a_quarter_of_the_side_wide():
    # of 100 cells, the one 25.5 cells right of the middle lies 51 % of half a side out: exp(-0.51² / 0.5)
    bump = chance.centre(recording(some_images(1), (1, 100)))[0, 0]
    assert bump[75].item() == pytest.approx(2.718281828 ** (-(0.51**2) / 0.5), rel=1e-5)


def test_edges_of_a_flat_image_are_zero():
    assert not chance.edges(recording(torch.full((2, 3, 16, 24), 0.3))).any()


def test_edges_lie_in_the_cells_that_hold_them():
    images = torch.zeros(1, 3, 16, 24)
    images[:, :, :, 10:] = 1  # a vertical edge between columns 9 and 10: the third of six cells
    found = chance.edges(recording(images))[0]
    assert (found[:, 2] > 0).all()
    assert not found[:, [0, 1, 3, 4, 5]].any()
    # Sobel answers 4 in two of the cell's four columns
    torch.testing.assert_close(found[:, 2], torch.full((4,), 2.0))


def test_edges_do_not_depend_on_the_model_and_turn_with_the_image():
    images = some_images(2)
    rec = recording(images, (4, 4))
    torch.testing.assert_close(chance.edges(recording(images.mT, (4, 4))), chance.edges(rec).mT)
    torch.testing.assert_close(chance.edges(recording(images.flip(3), (4, 4))), chance.edges(rec).flip(2))


def test_uniform_is_the_same_everywhere():
    assert torch.equal(chance.uniform(recording(some_images(2))), torch.ones(2, 4, 6))


def test_no_chance_map_can_be_asked_for_as_a_method():
    assert not {"random", "centre", "edges", "uniform"} & set(METHODS)


def test_a_moved_map_has_the_same_values_elsewhere_and_depends_on_its_generator_alone():
    saliency = torch.rand(3, 8, 12, generator=generator(0, "maps"))
    found = chance.moved(saliency, generators=named_generators("a", "b", "c"))
    alone = chance.moved(saliency[1:2], generators=named_generators("b"))

    assert torch.equal(found[1:2], alone)
    assert torch.equal(found.flatten(1).sort(1).values, saliency.flatten(1).sort(1).values)
    places = {
        tuple(divmod(int(one.argmax()), 12))
        for one in chance.moved(saliency[:1].expand(64, -1, -1), generators=named_generators(*map(str, range(64))))
    }
    assert len(places) > 32
