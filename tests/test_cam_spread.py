"""HiResCAM spread over what its cells respond to: the definition, the proof that it is zero, the pixels it reaches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from camcore.cam import METHODS
from camcore.cam.spread import _shares, random_signs, receptive_fields
from camcore.cost import metered
from camcore.recording import Recording, ZeroGradient, features, record
from camcore.seeds import generator
from camcore.wall import build_wall
from camcore.wall_cover import cover_input, cover_layer
from camcore.wall_zone import SIDES, Side
from tests.oracles import spread as oracle
from tests.tiny import CLASSES, FlatNet, GapNet, InPlaceNet, some_images, tiny_subject

spread = METHODS["hirescam_spread"]


def test_the_map_is_the_definitions() -> None:
    subject = tiny_subject(FlatNet(), "relu", size=16)
    subject.module.double()
    rec = record(subject, some_images(2).double())
    energies = []
    for probe in range(2):
        noise = torch.rand((3, 16, 16), generator=generator(0, "spread", "noise", str(probe)), dtype=torch.float32)
        jacobian = torch.autograd.functional.jacobian(
            lambda image: subject.module.relu(subject.module.conv(image[None]))[0], noise.double()
        )
        signs = random_signs((4, 8, 8), 0, probe).double()
        energies.append(oracle.fields(jacobian.numpy(), signs.numpy()))
    down, across = (oracle.shares(one + other, 2) for one, other in zip(*energies, strict=True))
    found, hires = spread(rec), METHODS["hirescam"](rec)

    for index in range(2):
        expected = oracle.spread(hires[index].numpy(), down, across)
        torch.testing.assert_close(found[index], torch.from_numpy(expected))


class OneConvolution(nn.Module):
    """Linear, so that what a cell responds to does not depend on the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 2, stride=2, bias=False)
        self.head = nn.Linear(8 * 8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).flatten(1))


def test_a_patch_is_spread_over_its_own_pixels_by_its_squared_weights() -> None:
    subject = tiny_subject(OneConvolution(), "conv")
    rec = record(subject, some_images(1))
    down, across = receptive_fields(rec, probes=1, seed=0)
    weights = subject.module.conv.weight[0].square().sum(0)

    for cell in range(8):
        for shares, marginal in ((down, weights.sum(1)), (across, weights.sum(0))):
            expected = torch.zeros(16)
            one, other = marginal  # a patch is two pixels wide: each counts the other by half
            expected[2 * cell : 2 * cell + 2] = torch.stack([one + other / 2, other + one / 2]) / (1.5 * (one + other))
            torch.testing.assert_close(shares[cell], expected)


@pytest.mark.parametrize("net", [FlatNet, GapNet, InPlaceNet])
def test_it_sums_to_what_hirescam_sums_to(net: type[nn.Module]) -> None:
    layer = "conv" if net is InPlaceNet else "relu"
    rec = record(tiny_subject(net(), layer), some_images(3))

    torch.testing.assert_close(spread(rec).sum((1, 2)), METHODS["hirescam"](rec).sum((1, 2)), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@settings(max_examples=8)
@given(side=st.sampled_from(SIDES), rows=st.integers(1, 7))
def test_behind_a_head_wall_exactly_the_dead_pixels_are_blank(side: Side, rows: int) -> None:
    subject, images = tiny_subject(FlatNet(), "relu"), some_images(4)
    wall = build_wall(subject, images, seed=0, band=rows / 8, side=side)
    found = wall.turned(spread(record(subject, images, behind=wall.hide)))
    edge = 16 if wall.dead_from is None else wall.dead_from

    assert found[:, edge:].eq(0).all()
    assert found[:, edge - 1].ne(0).any(1).all()  # up to the wall: nothing that matters is blanked on its account


@pytest.mark.slow
@settings(max_examples=4)
@given(side=st.sampled_from(SIDES))
def test_behind_a_cover_dead_pixels_are_exactly_blank(side: Side) -> None:
    subject, images = tiny_subject(GapNet(), "relu", size=24), some_images(3, size=24)
    for build in (cover_input, cover_layer):
        cover = build(subject, images, seed=0, side=side)
        with cover.on(subject) as covered:
            rec = record(covered, images)
            assert cover.turned(METHODS["layercam"](rec))[:, -1].ne(0).any()  # constant features, constant weight
            assert cover.turned(spread(rec))[:, cover.dead_from :].eq(0).all()


@given(step=st.integers(1, 9), seed=st.integers(0, 50))
def test_shares_are_smooth_within_what_a_cell_responds_to(step: int, seed: int) -> None:
    draws = generator(seed, "shares")
    energy = torch.rand(3, 12, generator=draws, dtype=torch.float64) * (torch.rand(3, 12, generator=draws) < 0.7)

    torch.testing.assert_close(_shares(energy, step), torch.from_numpy(oracle.shares(energy.numpy(), step)))


def test_it_costs_a_backward_for_each_row_and_column_of_cells_whatever_the_number_of_images() -> None:
    rec = record(tiny_subject(FlatNet(), "relu"), some_images(5))
    with metered() as cost:
        spread(rec, probes=3)

    assert (cost.forwards, cost.backwards) == (3, 3 * (8 + 8))


def test_another_seed_is_other_noise() -> None:
    rec = record(tiny_subject(GapNet(), "relu"), some_images(1))

    assert torch.equal(spread(rec), spread(rec))
    assert not torch.equal(spread(rec), spread(rec, seed=1))


def test_without_a_probe_there_is_no_field() -> None:
    rec = record(tiny_subject(GapNet(), "relu"), some_images(1))
    with pytest.raises(ValueError, match="needs probes >= 1, got 0"):
        spread(rec, probes=0)


def test_a_recording_made_by_hand_has_no_model_to_ask() -> None:
    subject = tiny_subject(GapNet(), "relu")
    made = Recording(
        images=some_images(1),
        logits=torch.zeros(1, CLASSES),
        target=torch.zeros(1, dtype=torch.long),
        activations=features(subject, some_images(1)),
        gradients=features(subject, some_images(1)),
        layer="relu",
    )
    with pytest.raises(ValueError, match="has no model to ask again"):
        spread(made)


class Detached(GapNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.detach())


def test_a_layer_that_is_cut_off_from_the_pixels_has_no_field() -> None:
    rec = record(tiny_subject(Detached(), "relu"), some_images(1))
    with pytest.raises(ZeroGradient, match=r"layer 'relu' of tiny is cut off from its input; remove"):
        spread(rec)
