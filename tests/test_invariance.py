from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from camcore.cam import METHODS
from camcore.cost import metered
from camcore.errors import Undefined
from camcore.grid import Placement
from camcore.maps import is_constant
from camcore.metrics.invariance import (
    between_cells,
    likeness,
    mirror_likeness,
    relative_distance,
    sensitivity,
    translation_likeness,
)
from camcore.perturbations import down_up, jpeg, mirrored, sign_noise, translated, uniform_noise
from camcore.recording import record
from camcore.seeds import generator
from camcore.shift import absorbed, apart, record_shifted, twin_of
from camcore.subject import Normalise
from tests.oracles import invariance as oracle
from tests.tiny import SIZE, ChannelsLastNet, DenseNet, FlatNet, GapNet, TokenNet, some_images, tiny_subject

PLACEMENTS = {"resnet": Placement(first=(0.0, 0.0), step=(4.0, 4.0), source="traced"), "even": None}


def some_maps(count=3, side=4, name="maps"):
    return torch.rand(count, side, side, generator=generator(0, name), dtype=torch.float64)


def draws(count=3, name="noise"):
    return [generator(0, name, str(index)) for index in range(count)]


# -- comparing two maps


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_map_is_like_nothing_and_not_unlike(value):
    whole, broken = some_maps(), some_maps(name="others")
    broken[1, 0, 0] = value
    for found in (likeness(whole, broken), likeness(broken, whole)):
        assert found.isnan().tolist() == [False, True, False]
    broken[1] = torch.nan
    assert likeness(whole, broken).isnan().tolist() == [False, True, False]


def test_likeness_and_distances_equal_their_definitions():
    one, other = some_maps(name="one"), some_maps(name="other").mul(4).round()  # with ties
    for index in range(3):
        a, b = one[index].flatten().tolist(), other[index].flatten().tolist()
        assert likeness(one, other)[index].item() == pytest.approx(oracle.spearman(a, b))
        assert relative_distance(one, other)[index].item() == pytest.approx(oracle.relative_distance(a, b))
        assert sensitivity(one, other)[index].item() == pytest.approx(oracle.sensitivity(a, b))


@given(st.lists(st.floats(0, 8, width=32), min_size=18, max_size=18))
def test_distance_is_a_share_and_the_same_both_ways(values):
    one, other = torch.tensor(values).view(2, 1, 3, 3)
    there = relative_distance(one, other)
    assert torch.equal(there.nan_to_num(-1), relative_distance(other, one).nan_to_num(-1))
    assert there.isnan().item() == (not any(values))
    assert there.isnan() or 0 <= there <= 1


def test_distance_of_maps_of_equal_norm_is_what_the_docstring_says_of_their_cosine():
    angle = torch.tensor(0.5)
    one = torch.tensor([[[1.0, 0.0]]])
    other = torch.stack([angle.cos(), angle.sin()])[None, None]
    torch.testing.assert_close(relative_distance(one, other), ((1 - angle.cos()) / 2).sqrt()[None])
    assert relative_distance(one, -one) == 1
    assert relative_distance(one, torch.zeros_like(one)) == 1
    assert relative_distance(one, 3 * one) == 0.5  # unlike the ranks, it sees the scale


def test_a_map_that_vanishes_is_like_nothing_and_one_that_was_not_there_has_nothing_to_be_like():
    maps, nothing = some_maps(1), torch.zeros(1, 4, 4, dtype=torch.float64)
    assert likeness(maps, nothing) == 0
    assert likeness(nothing, maps).isnan()
    assert likeness(nothing, nothing).isnan()
    assert sensitivity(nothing, maps).isnan()


@pytest.mark.parametrize("rescale", [lambda x: 5 * x - 2, torch.exp, lambda x: x**3], ids=["line", "exp", "cube"])
def test_likeness_ignores_a_monotone_rescaling(rescale):
    one, other = some_maps(name="one"), some_maps(name="other")
    torch.testing.assert_close(likeness(one, rescale(other)), likeness(one, other))


# -- moving a map back


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
def test_mirrored_and_moved_maps_are_compared_pixel_by_pixel(placement):
    one, other = some_maps(name="one"), some_maps(name="other")
    first, step = (1.5, 1.5) if placement is None else placement.first, (4.0, 4.0)
    size = (16, 16)
    for index in range(3):
        a, b = one[index].tolist(), other[index].tolist()
        found = mirror_likeness(one, other, size, placement)[index].item()
        assert found == pytest.approx(oracle.mirror_likeness(a, b, size, first, step), abs=0.01)
        for down, right in ((2, 3), (-1, 0), (0, -4)):
            found = translation_likeness(one, other, size, placement, down=down, right=right)[index].item()
            expected = oracle.translation_likeness(a, b, size, first, step, down, right)
            assert found == pytest.approx(expected, abs=0.01)


def test_cells_that_lie_off_the_middle_are_mirrored_where_they_lie():
    # cells at 0, 4, 8, 12 of 16 pixels: in the mirrored image they see what was at 15, 11, 7, 3
    placement = PLACEMENTS["resnet"]
    slope = torch.arange(0.0, 16, 4).expand(1, 4, 4)
    of_mirrored = 15 - slope
    assert mirror_likeness(slope, of_mirrored, (16, 16), placement) == pytest.approx(1)
    assert mirror_likeness(slope, slope, (16, 16), placement) == pytest.approx(-1)


def test_only_pixels_between_cells_are_compared():
    maps = some_maps()
    assert between_cells(maps, (16, 16), PLACEMENTS["resnet"]) == (slice(0, 13), slice(0, 13))
    assert between_cells(maps, (16, 16)) == (slice(2, 14), slice(2, 14))
    assert between_cells(maps, (4, 4)) == (slice(0, 4), slice(0, 4))


def test_a_map_in_pixels_that_goes_along_is_the_same_and_one_that_stays_is_not():
    maps = some_maps(side=SIZE)
    size = (SIZE, SIZE)
    torch.testing.assert_close(mirror_likeness(maps, maps.flip(2), size), torch.ones(3, dtype=torch.float64))
    assert mirror_likeness(maps, maps, size).abs().max() < 0.3
    moved = maps.roll((2, 1), (1, 2))
    together = translation_likeness(maps, moved, size, down=2, right=1)
    torch.testing.assert_close(together, torch.ones(3, dtype=torch.float64))
    assert translation_likeness(maps, maps, size, down=2, right=1).abs().max() < 0.3


def test_a_network_that_sees_all_places_alike_gives_the_mirrored_map_of_the_mirrored_image():
    # stride 1 and circular padding with symmetric filters: nothing in it knows left from right
    subject = tiny_subject(GapNet(padding_mode="circular"), "relu")
    with torch.no_grad():
        for conv in (subject.module.conv1, subject.module.conv2):
            conv.weight.add_(conv.weight.flip(3)).div_(2)
    subject.module.conv2.stride = (1, 1)
    subject = tiny_subject(subject.module, "relu", seed=None)
    images = some_images()
    maps, others = (
        METHODS["hirescam"](record(subject, one, torch.zeros(3, dtype=int))) for one in (images, mirrored(images))
    )
    torch.testing.assert_close(mirror_likeness(maps, others, (SIZE, SIZE)), torch.ones(3, dtype=torch.float64))


# -- changes of the image


def test_moved_pixels_land_where_it_says_and_the_rest_is_reflected():
    images = some_images(2)
    moved = translated(images, down=2, right=-3)
    torch.testing.assert_close(moved[:, :, 2:, :-3], images[:, :, :-2, 3:])
    torch.testing.assert_close(moved[:, :, 1, :-3], images[:, :, 1, 3:])  # reflected at the first row
    assert torch.equal(translated(images, down=0, right=0), images)
    assert torch.equal(mirrored(mirrored(images)), images)
    with pytest.raises(ValueError, match="cannot be moved by 16 down and 0 right"):
        translated(images, down=16, right=0)


def test_jpeg_stays_near_a_smooth_picture_in_range_and_nearer_with_quality():
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    far, near = ((jpeg(ramp, quality=quality) - ramp).abs().mean().item() for quality in (5, 95))
    assert near < 0.01 < far
    noise = some_images(2, size=32)
    out = jpeg(noise)
    assert out.shape == noise.shape
    assert 0 <= out.min() <= out.max() <= 1
    torch.testing.assert_close(out * 255, (out * 255).round(), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="between 1 and 100, got 0"):
        jpeg(noise, quality=0)


@pytest.mark.parametrize("size", [(32, 48), (37, 21)], ids=["whole blocks", "cut blocks"])
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_loses_what_a_file_loses(quality, size):
    smooth = torch.rand(1, 3, 6, 6, generator=generator(0, "jpeg"))
    image = torch.nn.functional.interpolate(smooth, size, mode="bicubic", align_corners=False).clamp(0, 1)
    written = BytesIO()
    pixels = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(written, "JPEG", quality=quality)
    read = torch.from_numpy(np.array(Image.open(written))).permute(2, 0, 1)[None] / 255
    found = jpeg(image, quality=quality)
    # colours are rounded to whole levels four times on the way, in another order: far less than what is lost
    assert (found - read).abs().mean() * 255 < 1.5
    assert (found - read).abs().mean() < 0.25 * (image - read).abs().mean()


def test_jpeg_of_an_image_does_not_depend_on_its_batch():
    images = some_images(3, size=32)
    assert torch.equal(jpeg(images)[1:2], jpeg(images[1:2]))


def test_resizing_keeps_a_flat_picture_and_loses_a_chequered_one():
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(down_up(flat), flat)
    places = torch.arange(16)
    chequered = ((places[:, None] + places) % 2).float().expand(1, 3, 16, 16)
    assert down_up(chequered).std() < 0.5 * chequered.std()
    images = some_images()
    torch.testing.assert_close(down_up(images, scale=1.0), images)
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        down_up(images, scale=1.5)


@pytest.mark.parametrize("make", [uniform_noise, sign_noise])
def test_noise_stays_within_its_radius_and_in_range_and_is_drawn_for_each_image_alone(make):
    images = some_images()
    noisy = make(images, radius=0.05, generators=draws())
    assert (noisy - images).abs().max() <= 0.05 + 1e-6
    assert 0 <= noisy.min() <= noisy.max() <= 1
    assert torch.equal(noisy[1:2], make(images[1:2], radius=0.05, generators=draws()[1:2]))
    assert torch.equal(make(images, radius=0.0, generators=draws()), images)


def test_sign_noise_goes_all_the_way():
    images = torch.full((2, 3, 8, 8), 0.5)
    gone = (sign_noise(images, radius=0.1, generators=draws(2)) - images).abs()
    torch.testing.assert_close(gone, torch.full_like(gone, 0.1))


# -- the twin that absorbs a shift


class StridedNet(nn.Module):
    """A first convolution without bias, strided, dilated, its padding not square."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (3, 5), stride=2, padding=(2, 1), dilation=(2, 1), bias=False)
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


class SkippingNet(GapNet):
    """The image reaches the scores on a second way, around the first layer."""

    def forward(self, images):
        return super().forward(images) + images.mean((1, 2, 3))[:, None]


class SquaringNet(GapNet):
    """What comes before its first layer makes of a constant something else."""

    def forward(self, images):
        return super().forward(images**2)


NETS = {
    "zero padding": (GapNet(), "relu"),
    "reflected": (GapNet(padding_mode="reflect"), "relu"),
    "circular": (GapNet(padding_mode="circular"), "relu"),
    "strided": (StridedNet(), "conv"),
    "dense behind": (FlatNet(), "conv"),
    "patches": (TokenNet(), "block1"),
    "channels last": (ChannelsLastNet(), "norm"),
    "dense first": (DenseNet(), None),
}


@pytest.mark.parametrize("shift", [-1.0, 0.3])
@pytest.mark.parametrize("name", NETS)
def test_the_twin_on_shifted_images_gives_the_same_scores_border_and_all(name, shift):
    module, layer = NETS[name]
    subject = tiny_subject(module, layer, preprocess=Normalise())
    images = some_images()
    twin = twin_of(subject, images, shift=shift)
    with torch.no_grad():
        torch.testing.assert_close(twin.logits(images + shift), subject.logits(images), rtol=1e-4, atol=1e-4)
        assert apart(twin.logits(images), subject.logits(images)).min() > 1e-3  # it is another function of the pixels


def test_the_bias_takes_up_what_the_shift_adds_to_the_sum_over_the_filter():
    subject = tiny_subject(GapNet(padding_mode="circular"), "relu", preprocess=Normalise())
    conv = subject.module.conv1
    twin = absorbed(subject, some_images(1)).module.conv1
    for out in range(4):
        added = 0.0
        for channel, std in enumerate(Normalise().std):
            for row in range(3):
                for column in range(3):
                    added += conv.weight[out, channel, row, column].item() * -1 / std
        assert twin.bias[out].item() == pytest.approx(conv.bias[out].item() - added, rel=1e-4)


def test_the_twin_shares_every_weight_but_one_bias_and_leaves_the_model_as_it_was():
    subject = tiny_subject(GapNet(), "relu")
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    twin = absorbed(subject, some_images(1))
    ours = {id(parameter) for parameter in subject.module.parameters()}
    own = [name for name, parameter in twin.module.named_parameters() if id(parameter) not in ours]
    assert own == ["conv1.1.bias"]
    assert all(torch.equal(before[name], value) for name, value in subject.module.state_dict().items())
    assert all(parameter.grad is None for parameter in subject.module.parameters())
    assert not any(module._forward_hooks for module in (*subject.module.modules(), *twin.module.modules()))
    assert subject.module.conv1.padding == (1, 1)


@pytest.mark.parametrize("module", [SkippingNet(), SquaringNet(), nn.Sequential(nn.Flatten(), nn.LogSoftmax(1))])
def test_a_model_whose_first_layer_cannot_absorb_a_shift_has_no_twin(module):
    with pytest.raises(Undefined, match="absorb"):
        twin_of(tiny_subject(module), some_images())


def test_maps_of_features_do_not_move_in_the_twin_and_maps_that_multiply_by_the_pixels_do():
    subject = tiny_subject(GapNet(), "relu", preprocess=Normalise())
    images = some_images()
    rec = record(subject, images)
    twin = record_shifted(absorbed(subject, images[:1]), images, rec.target)
    for name in ("hirescam", "gradcam", "layercam", "gradient"):
        here, there = METHODS[name](rec).relu(), METHODS[name](twin).relu()
        assert not is_constant(here).any()
        assert relative_distance(here, there).max() < 1e-4, name
    moved = relative_distance(METHODS["gradient_times_input"](rec), METHODS["gradient_times_input"](twin))
    assert moved.min() > 0.1


def test_gradient_times_input_moves_by_the_gradient_times_the_shift():
    subject = tiny_subject(GapNet(), "relu", preprocess=Normalise())
    images = some_images()
    rec = record(subject, images)
    twin = record_shifted(absorbed(subject, images[:1]), images, rec.target)
    moved = METHODS["gradient_times_input"](twin) - METHODS["gradient_times_input"](rec)
    torch.testing.assert_close(moved, -METHODS["gradient"](rec), rtol=1e-3, atol=1e-5)


def test_finding_the_first_layer_costs_two_forwards():
    subject = tiny_subject(GapNet(), "relu")
    with metered() as cost:
        absorbed(subject, some_images(1))
    assert (cost.forwards, cost.backwards) == (2, 0)
