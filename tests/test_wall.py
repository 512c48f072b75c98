"""The wall: found, certified, and equal to the paper's where the paper's is defined."""

import copy

import pytest
import torch
from torch import Tensor, nn

from camcore import with_target_layer
from camcore.cam import RECORDED
from camcore.grid import Placement
from camcore.images import Geometry
from camcore.maps import rectify, upsample
from camcore.metrics import leakage
from camcore.recording import record, run_behind
from camcore.subject import Classifier
from camcore.wall import Wall, WallLeaks, build_wall, rows_kept
from tests.tiny import CLASSES, FlatNet, GapNet, as_they_are, randomised, some_images, tiny_subject


def vgg16_geometry(channels: int = 4) -> nn.Sequential:
    """Thirteen 3 x 3 convolutions and four poolings, as the paper's masked VGG16, with a few channels."""
    layers: list[nn.Module] = []
    inputs = 3
    for depth in (2, 2, 3, 3, 3):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(nn.Sequential(*layers[:-1]), nn.Flatten(), nn.Linear(channels * 14 * 14, CLASSES))


def subject_of(module: nn.Module, size: int) -> Classifier:
    names = tuple(f"class {index}" for index in range(CLASSES))
    return with_target_layer(
        Classifier(
            name="net",
            spec="net",
            module=randomised(module),
            geometry=Geometry(crop=(size, size)),
            preprocess=as_they_are,
            classes=names,
        )
    )


@pytest.mark.slow
def test_the_dead_rows_of_the_papers_network_are_the_last_54() -> None:
    subject = subject_of(vgg16_geometry(), 224)
    wall = build_wall(subject, some_images(1, size=224), seed=0)

    assert (wall.kept_rows, wall.rows) == (5, 14)
    assert wall.dead_from == 170  # counted from 0; the paper counts 171-224 from 1
    assert wall.constant_line == pytest.approx((54 / 224) ** 0.5)


@pytest.mark.slow
def test_the_dead_rows_of_squeezenet_begin_at_167() -> None:
    from torchvision.models import squeezenet1_1

    module = squeezenet1_1(weights=None).eval()
    subject = with_target_layer(
        Classifier(name="squeezenet", spec="", module=module, geometry=Geometry(crop=(224, 224)), classes=("x",) * 1000)
    )
    wall = build_wall(subject, some_images(2, size=224), seed=0)

    assert (subject.target_layer, wall.kept_rows, wall.rows, wall.dead_from) == ("features.12", 4, 13, 167)


def test_zeroing_the_band_is_zeroing_the_first_dense_layers_weights() -> None:
    subject = tiny_subject(FlatNet(), "relu")
    images = some_images(4)
    wall = build_wall(subject, images, seed=0)
    masked = copy.deepcopy(subject.module)
    with torch.no_grad():
        weights = masked.dense.weight.view(CLASSES, 4, 8, 8)
        weights[:, :, wall.kept_rows :] = 0
    twin = Classifier(**{**vars(subject), "module": masked})

    torch.testing.assert_close(run_behind(subject, images, wall.hide)[1], twin.logits(images))
    behind, plain = record(subject, images, behind=wall.hide), record(twin, images)
    torch.testing.assert_close(behind.gradients, plain.gradients)
    torch.testing.assert_close(behind.activations, plain.activations)


def test_local_weights_leak_exactly_nothing_and_global_ones_leak() -> None:
    subject = tiny_subject(FlatNet(), "relu")
    images = some_images(6)
    wall = build_wall(subject, images, seed=0)
    rec = record(subject, images, behind=wall.hide)
    assert wall.dead_from is not None
    found = {
        name: leakage(upsample(rectify(cam(rec)), images.shape[2:]), wall.judged_from) for name, cam in RECORDED.items()
    }

    for name in ("hirescam", "layercam", "eigengradcam"):
        assert found[name].nan_to_num(0).eq(0).all(), name
    for name in ("gradcam", "gradcam_plus_plus", "eigencam"):
        assert found[name].nanmean() > 0, name


def test_the_wall_leaves_no_trace_in_the_model() -> None:
    subject = tiny_subject(GapNet(), "relu")
    before = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
    build_wall(subject, some_images(2), seed=0)

    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.module.state_dict().items())
    assert all(parameter.grad is None for parameter in subject.module.parameters())
    assert not any(module._forward_hooks for module in subject.module.modules())


class Attentive(nn.Module):
    """Every cell of the target knows the mean of all: no pixel is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.body = GapNet()
        self.mix = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body.relu(self.body.conv2(self.body.conv1(images)))
        features = self.mix(features + features.mean((2, 3), keepdim=True)).relu()
        return self.head(features.mean((2, 3)))


def test_where_every_pixel_reaches_every_cell_none_is_dead_and_feature_rows_are_judged() -> None:
    wall = build_wall(tiny_subject(Attentive(), "mix"), some_images(2), seed=0)

    assert wall.dead_from is None
    assert wall.judged_from == wall.kept_rows
    assert wall.constant_line == pytest.approx(((wall.rows - wall.kept_rows) / wall.rows) ** 0.5)


class Bypass(nn.Module):
    """The head reads the images too, past the target layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.cat([self.conv(images).relu().mean((2, 3)), images.mean((2, 3))], 1))


def test_pixels_that_reach_the_head_past_the_layer_are_not_called_dead() -> None:
    assert build_wall(tiny_subject(Bypass(), "conv"), some_images(2), seed=0).dead_from is None


class Noisy(GapNet):
    """Its scores change from call to call: nothing can be certified on it."""

    def forward(self, images: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(images) + self.calls


def test_scores_that_move_by_themselves_bring_the_wall_down() -> None:
    with pytest.raises(WallLeaks, match="moves the logits"):
        build_wall(tiny_subject(Noisy(), "relu"), some_images(2), seed=0)


class SameTensor(nn.Module):
    """The in-place ReLU's output is read under its input's name too, where no hook can put anything in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return self.head((self.relu(features) + features).mean((2, 3)))


def test_an_output_that_is_read_past_the_wall_brings_it_down() -> None:
    with pytest.raises(WallLeaks, match="noise in the hidden feature rows moves the logits"):
        build_wall(tiny_subject(SameTensor(), "relu"), some_images(2), seed=0)


class StraightThrough(torch.autograd.Function):
    """Drops the lower half of the image on the way up, and pretends on the way down that it did not."""

    @staticmethod
    def forward(_context: object, images: Tensor) -> Tensor:
        return torch.where(torch.arange(images.shape[2])[:, None] < images.shape[2] // 2, images, 0)

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return gradient + 1


class Pretending(GapNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(StraightThrough.apply(images))


def test_a_gradient_in_pixels_that_change_nothing_brings_the_wall_down() -> None:
    with pytest.raises(WallLeaks, match="gradient in the dead pixels"):
        build_wall(tiny_subject(Pretending(), "relu"), some_images(2), seed=0)


class Decorated(GapNet):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


def test_a_model_that_switches_gradients_off_cannot_be_certified_at_its_dead_pixels() -> None:
    with pytest.raises(WallLeaks, match=r"tiny switches gradients off in its forward.*; remove torch\.no_grad"):
        build_wall(tiny_subject(Decorated(), "relu"), some_images(2), seed=0)


def test_building_a_wall_leaves_the_images_alone() -> None:
    images = some_images(2)
    build_wall(tiny_subject(FlatNet(), "relu"), images, seed=0)
    assert torch.equal(images, some_images(2))


@pytest.mark.slow
def test_the_head_of_a_resnet_sees_every_pixel_row() -> None:
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = resnet18(weights=None).eval()
    subject = with_target_layer(
        Classifier(name="resnet", spec="", module=module, geometry=Geometry(crop=(224, 224)), classes=("x",) * 1000)
    )
    wall = build_wall(subject, some_images(1, size=224), seed=0)

    assert (wall.kept_rows, wall.rows, wall.dead_from) == (2, 7, None)
    assert wall.judged_from == 2


@pytest.mark.parametrize(("dead_from", "height"), [(1, 4), (3, 4), (170, 224)])
def test_leakage_of_a_constant_map_is_the_root_of_the_share_of_its_dead_rows(dead_from: int, height: int) -> None:
    found = leakage(torch.full((2, height, 3), 0.2), dead_from)

    torch.testing.assert_close(found, torch.full((2,), ((height - dead_from) / height) ** 0.5))


def test_leakage_is_a_share_of_the_norm_and_free_of_scale() -> None:
    saliency = torch.zeros(1, 4, 4)
    saliency[0, 0, 0], saliency[0, 3, 1] = 4, 3

    for scale in (1e-8, 1.0, 1e8):
        assert leakage(saliency * scale, 2).item() == pytest.approx(0.6)
    assert leakage(saliency, 0).item() == 1
    assert leakage(saliency.flip(1), 2).item() == pytest.approx(0.8)


@pytest.mark.parametrize("band", [0.0, 1.0])
def test_a_band_must_hide_some_rows_and_leave_some(band: float) -> None:
    with pytest.raises(WallLeaks, match="does not fit in a map of 8 rows"):
        build_wall(tiny_subject(GapNet(), "relu"), some_images(1), seed=0, band=band)


def test_what_is_hidden_is_zero_even_where_it_was_not_finite() -> None:
    wall = Wall(kept_rows=2, rows=4, dead_from=None, pixels=16, centre=9.5, step=4)
    features = torch.full((1, 1, 4, 4), torch.inf)

    assert wall.hide(features)[:, :, 2:].eq(0).all()
    assert wall.hide(features)[:, :, :2].isinf().all()


def test_the_seam_of_the_upsampling_is_not_held_against_a_map() -> None:
    wall = Wall(kept_rows=2, rows=4, dead_from=9, pixels=16, centre=9.5, step=4)
    saliency = torch.zeros(1, 4, 4)
    saliency[:, :2] = 1

    assert wall.judged_from == 10
    assert upsample(saliency, (16, 16))[:, 9].max() > 0
    assert leakage(upsample(saliency, (16, 16)), wall.judged_from).item() == 0


def test_the_seam_ends_where_the_first_hidden_cell_is_centred_wherever_that_is() -> None:
    wall = Wall(kept_rows=2, rows=4, dead_from=7, pixels=16, centre=8.0, step=4)
    saliency = torch.zeros(1, 4, 4)
    saliency[:, :2] = 1
    placed = upsample(saliency, (16, 16), Placement(first=(0.0, 0.0), step=(4.0, 4.0), source="traced"))

    assert (wall.judged_from, wall.drawn_from) == (9, 7)
    assert placed[:, 7].max() > 0
    assert leakage(placed, wall.judged_from).item() == 0


def test_a_constant_map_scores_its_line_and_an_empty_one_is_undefined() -> None:
    torch.testing.assert_close(leakage(torch.ones(2, 224, 224), 170), torch.full((2,), (54 / 224) ** 0.5))
    assert leakage(torch.zeros(1, 8, 8), 4).isnan().all()


def test_of_two_rows_one_is_hidden_and_one_alone_holds_no_wall() -> None:
    assert [rows_kept(rows, 9 / 14, "a map") for rows in (2, 3, 7, 14)] == [1, 1, 2, 5]
    for rows, band in ((1, 9 / 14), (14, 1.0), (14, 0.0)):
        with pytest.raises(WallLeaks, match="give another share of the rows"):
            rows_kept(rows, band, "a map")
