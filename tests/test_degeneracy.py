"""Every way in which a map cannot be judged is named, and a sound map is not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from camcore.degeneracy import Degeneracy, degeneracy
from camcore.maps import rectify
from camcore.recording import Recording, record
from tests.tiny import GapNet, some_images, tiny_subject


@pytest.fixture
def rec() -> Recording:
    return record(tiny_subject(GapNet(), "relu"), some_images(3))


def names(rec: Recording, saliency: Tensor) -> list[Degeneracy]:
    return [Degeneracy(code) for code in degeneracy(rec, saliency).tolist()]


def test_a_sound_map_is_named_nothing(rec: Recording) -> None:
    saliency = rectify((rec.activations * rec.gradients).sum(1))
    assert names(rec, saliency) == [Degeneracy.NONE] * 3


def test_each_image_is_named_by_itself(rec: Recording) -> None:
    saliency = rectify((rec.activations * rec.gradients).sum(1))
    saliency[0] = 0
    saliency[1] = 0.5
    assert names(rec, saliency) == [Degeneracy.EMPTY, Degeneracy.CONSTANT, Degeneracy.NONE]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_not_finite_is_undefined_whatever_else_it_is(rec: Recording, broken: float) -> None:
    saliency = torch.ones(3, *rec.activations.shape[2:])
    saliency[0, 0, 0] = broken
    saliency[1] = broken
    assert names(rec, saliency) == [Degeneracy.UNDEFINED, Degeneracy.UNDEFINED, Degeneracy.CONSTANT]


def test_a_map_that_is_empty_for_want_of_a_gradient_is_told_from_one_that_is_negative(rec: Recording) -> None:
    gradients = rec.gradients.clone()
    gradients[0] = 0
    saliency = torch.zeros(3, *rec.activations.shape[2:])
    found = names(replace(rec, gradients=gradients), saliency)
    assert found == [Degeneracy.ZERO_GRADIENT, Degeneracy.EMPTY, Degeneracy.EMPTY]


def test_a_method_that_needs_no_gradient_is_not_blamed_for_its_want(rec: Recording) -> None:
    saliency = rec.activations.sum(1)
    assert names(replace(rec, gradients=torch.zeros_like(rec.gradients)), saliency) == [Degeneracy.NONE] * 3


def test_a_map_that_is_one_channel_is_named_whatever_its_scale(rec: Recording) -> None:
    # cells of one channel alone; the second image mixes two channels evenly
    activations = torch.rand(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    saliency = torch.stack([7 * activations[0, 2], activations[1, :2].sum(0), activations[2, 0] * 1e-9])
    found = names(replace(rec, activations=activations, gradients=activations), saliency)
    assert found == [Degeneracy.FEW_CHANNELS, Degeneracy.NONE, Degeneracy.FEW_CHANNELS]


def test_a_map_in_pixels_is_compared_with_no_channel(rec: Recording) -> None:
    saliency = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0))
    assert names(rec, saliency) == [Degeneracy.NONE] * 3


@pytest.mark.parametrize("name", list(Degeneracy))
def test_every_name_has_a_sentence(name: Degeneracy) -> None:
    assert name.sentence
