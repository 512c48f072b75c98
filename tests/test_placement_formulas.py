"""Formulas in a forward, each a network of one operation: those that can be followed, and those that cannot."""

import pytest
import torch
from torch.nn import functional as F

from camcore.placement import even_placement, trace_placement
from camcore.seeds import generator
from tests.placed import Formula, smooth, subject_of


def unsmooth(features):
    """A transposed convolution; stride 2 meets every other tap of 4."""
    return F.conv_transpose2d(features, features.new_full((3, 3, 4, 4), 1 / 12), stride=2, padding=1)


def in_place(images):
    features = smooth(images, 3, 2, 1)
    return features.clone().relu_().mul_(2).sub_(features)


def out_variants(images):
    features = smooth(images, 3, 2, 1)
    found = torch.empty(0)
    with torch.no_grad():
        torch.add(features, features, out=found)
        torch.mul(found, 0.5, out=found)
    return found


def through_views(images):
    features = smooth(images, 3, 2, 1)
    features.view(-1).mul_(2)
    features.permute(0, 2, 3, 1).div_(2)
    return features


def turned_in_place(images):
    features = smooth(images, 3, 2, 1)
    features.transpose_(1, 3)
    return features.unsqueeze_(0).squeeze_(0).transpose(1, 3)


def channels_last(images):
    features = smooth(images, 3, 2, 1).permute(0, 2, 3, 1)
    mixed = F.linear(features, features.new_full((3, 3), 1 / 3))
    return (features + mixed).permute(0, 3, 1, 2) / 2


def tokens_and_back(images):
    features = smooth(images, 4, 4)
    tokens = features.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.new_zeros(1, 1, 3), tokens], 1)
    tokens = F.linear(tokens, torch.eye(3))[:, 1:]
    return tokens.transpose(1, 2).reshape(features.shape)


def with_attention(images):
    features = smooth(images, 3, 2, 1)
    tokens = features.flatten(2).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(tokens, tokens, tokens) * 0
    return features + mixed.transpose(1, 2).unflatten(2, features.shape[2:])


def squeezed_and_excited(images):
    features = smooth(images, 3, 2, 1)
    squeezed = F.adaptive_avg_pool2d(features, 1)
    return features * (smooth(squeezed, 1).sigmoid() * 0 + 1) * (features.mean((2, 3), keepdim=True) * 0 + 1)


def spatial_attention(images):
    features = smooth(images, 3, 2, 1)
    both = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
    return features * (both.sum(1, keepdim=True) * 0 + 1)


def padded_by_hand(images):
    canvas = images.new_zeros(1, 3, images.shape[2] + 3, images.shape[3] + 1)
    canvas[:, :, 3:, 1:] = images
    return smooth(canvas, 3, 2, 1)


def space_to_depth(images):
    return torch.cat([images[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1)


def branches_that_differ(images):
    return (smooth(images, 3, 2, 1) + F.avg_pool2d(images, 2)) / 2


def constants_written(images):
    features = smooth(images, 3, 2, 1)
    other = features.clone()
    other[:, :1] = 0
    return features + 0 * other


FORMULAS = {
    "in place": in_place,
    "out variants": out_variants,
    "views written through": through_views,
    "turned in place": turned_in_place,
    "channels last": channels_last,
    "tokens and back": tokens_and_back,
    "attention beside": with_attention,
    "squeeze and excitation": squeezed_and_excited,
    "spatial attention": spatial_attention,
    "padded by hand": padded_by_hand,
    "space to depth": space_to_depth,
    "branches that differ": branches_that_differ,
    "constants written": constants_written,
    "dilated": lambda images: smooth(images, 3, 2, 1, dilation=2),
    "transposed convolution": unsmooth,
    "slices": lambda images: images[:, :, 3:-1:2, 1::3],
    "padded on one side": lambda images: F.pad(images, (3, 0, 1, 2)),
    "reflected": lambda images: F.pad(images, (3, 1, 1, 2), mode="reflect"),
    "around a circle": lambda images: F.pad(images, (3, 1, 1, 2), mode="circular"),
    "a margin before": lambda images: torch.cat([images.new_zeros(1, 3, 3, images.shape[3]), images], 2),
    "pixel unshuffle": lambda images: F.pixel_unshuffle(images, 4),
    "pixel shuffle": lambda images: F.pixel_shuffle(torch.cat([images] * 4, 1), 2),
    "nearest, twice as large": lambda images: F.interpolate(images, scale_factor=2),
    "bilinear, twice as large": lambda images: F.interpolate(images, scale_factor=2, mode="bilinear"),
    "bilinear, to a size": lambda images: F.interpolate(images, (24, 40), mode="bilinear"),
    "bilinear, corners aligned": lambda images: F.interpolate(images, (24, 40), mode="bilinear", align_corners=True),
    "antialiased": lambda images: F.interpolate(images, (16, 20), mode="bilinear", antialias=True),
    "adaptive pooling": lambda images: F.adaptive_avg_pool2d(images, (8, 10)),
    "halves of the channels": lambda images: torch.cat([images[:, 1:].chunk(2, 1)[1], images], 1),
    "channels shuffled": lambda images: F.channel_shuffle(smooth(images, 3, 2, 1), 3),
    "one channel picked": lambda images: smooth(images, 3, 2, 1)[:, 1].unsqueeze(1),
    "instance norm beside": lambda images: images + 0 * F.instance_norm(images),
}


@pytest.mark.parametrize("function", FORMULAS.values(), ids=FORMULAS)
def test_a_cell_of_a_ramp_holds_its_own_place(function):
    size = (32, 40)
    cells = function(torch.zeros(1, 3, *size)).shape[2:]
    placement = trace_placement(subject_of(Formula(function), size, "last", cells))
    assert placement.source == "traced"

    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    for axis, ramp in enumerate((rows, columns)):
        features = function(ramp.expand(1, 3, *size).clone())
        # away from the border; of four cells, since copies of one cell hold the place in their middle
        held = features[:, :, 4:8, 4:8].mean().item()
        assert held == pytest.approx(placement.first[axis] + 5.5 * placement.step[axis], abs=1e-4)


def shuffled_rows(images):
    return images[:, :, torch.randperm(images.shape[2], generator=generator(0, "rows"))]


def freed_and_forgotten(images):
    """What is computed last gets the memory of what was freed just before."""
    features = smooth(images, 3, 2, 1)
    shape = features.shape
    del features
    return torch.rand(shape, generator=generator(0, "noise"))


def overwritten(images):
    features = smooth(images, 3, 2, 1)
    return features.copy_(torch.rand(features.shape, generator=generator(0, "noise")))


def overwritten_behind_a_view(images):
    features = smooth(images, 3, 2, 1)
    flat = features.view(-1)
    flat.copy_(torch.rand(flat.shape, generator=generator(0, "noise")))
    return features


UNFOLLOWED = {
    "rolled": lambda images: smooth(images, 3, 2, 1).roll(1, 2),
    "flipped": lambda images: smooth(images, 3, 2, 1).flip(2),
    "transposed": lambda images: F.pad(smooth(images, 3, 2, 1), (0, 0, 0, 4)).transpose(2, 3),
    "rows shuffled": shuffled_rows,
    "every second picked": lambda images: F.interpolate(images, scale_factor=0.5),
    "steps that differ": lambda images: smooth(images, 3, 2, 1) + images[:, :, 8:24, 10:30],
    "rows and columns summed": lambda images: images.mean(3, keepdim=True).expand(images.shape),
    "freed": freed_and_forgotten,
    "overwritten": overwritten,
    "overwritten behind a view": overwritten_behind_a_view,
}


@pytest.mark.parametrize("function", UNFOLLOWED.values(), ids=UNFOLLOWED)
def test_what_cannot_be_followed_is_spread_evenly_and_says_so(function):
    size = (32, 40)
    cells = function(torch.zeros(1, 3, *size)).shape[2:]
    found = trace_placement(subject_of(Formula(function), size, "last", cells))
    assert found == even_placement(tuple(cells), size)
    assert found.source == "even"
