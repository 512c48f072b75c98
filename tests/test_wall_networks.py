"""The paper's network, AlexNet and ResNets with random weights: nothing local leaks behind a head wall, exactly."""

import copy

import pytest
import torch
from torch import Tensor, nn

from camcore.cam import METHODS
from camcore.images import Geometry
from camcore.layers import with_target_layer
from camcore.maps import rectify, upsample
from camcore.metrics import leakage, over_blanking, zero_share
from camcore.recording import record, run_behind
from camcore.subject import Classifier
from camcore.wall import Wall, build_wall
from tests.tiny import randomised, some_images

pytestmark = pytest.mark.slow
LOCAL = ("hirescam", "layercam", "eigengradcam")


def of(module: nn.Module) -> Classifier:
    names = tuple(f"class {index}" for index in range(10))
    geometry = Geometry(crop=(224, 224))
    return with_target_layer(Classifier(name="net", spec="net", module=module.eval(), geometry=geometry, classes=names))


def thin_masked_vgg16() -> nn.Module:
    """The paper's: torchvision's thirteen convolutions without the last pooling, dense layers behind; 4 channels."""
    from torchvision.models.vgg import cfgs, make_layers

    thin = ["M" if width == "M" else 4 for width in cfgs["D"]]
    body = make_layers(thin)[:-1]
    dense = nn.Linear(4 * 14 * 14, 16)
    return nn.Sequential(body, nn.Flatten(), nn.Sequential(dense, nn.ReLU(), nn.Dropout(), nn.Linear(16, 10)))


def seeded(build: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()  # type: ignore[operator]


def leaked(subject: Classifier, wall: Wall, images: Tensor, name: str) -> Tensor:
    rec = record(subject, images, behind=wall.hide)
    saliency = rectify(METHODS[name](rec))
    if wall.dead_from is None:
        return leakage(saliency, wall.judged_from)
    return leakage(upsample(saliency, images.shape[2:], rec.placement), wall.judged_from)


def test_the_papers_masked_vgg16() -> None:
    subject, images = of(randomised(thin_masked_vgg16())), some_images(3, size=224)
    wall = build_wall(subject, images[:1], seed=0)

    assert (wall.rows, wall.kept_rows) == (14, 5)  # a map of 14 x 14, a band of 9
    assert (wall.dead_from, wall.pixels) == (170, 224)  # the paper counts the dead rows 171-224 from 1
    assert wall.constant_line == pytest.approx(0.491, abs=5e-4)
    for name in LOCAL:
        assert leaked(subject, wall, images, name).nan_to_num(0).eq(0).all(), name
    assert leaked(subject, wall, images, "gradcam_plus_plus").nanmean() > 0.1


def test_hiding_the_band_is_zeroing_the_papers_first_dense_layer() -> None:
    subject, images = of(randomised(thin_masked_vgg16())), some_images(2, size=224)
    wall = build_wall(subject, images[:1], seed=0)
    masked = copy.deepcopy(subject.module)
    with torch.no_grad():
        masked[2][0].weight.view(16, 4, 14, 14)[:, :, -9:] = 0
    twin = Classifier(**{**vars(subject), "module": masked})

    torch.testing.assert_close(run_behind(subject, images, wall.hide)[1], twin.logits(images), rtol=0, atol=1e-6)


def test_hirescam_blanks_61_percent_of_the_papers_picture_and_spread_over_its_fields_no_more_than_the_dead_24() -> None:
    subject, images = of(randomised(thin_masked_vgg16())), some_images(3, size=224)
    wall = build_wall(subject, images[:1], seed=0)
    rec = record(subject, images, behind=wall.hide)
    assert wall.dead_from is not None
    # without rectifying: negative evidence is another reason for zeros, which is not the wall's
    drawn = upsample(METHODS["hirescam"](rec).abs(), (224, 224), rec.placement)
    spread = METHODS["hirescam_spread"](rec).abs()

    assert zero_share(drawn).min() >= 136 / 224 - 1e-6  # rows 88 to 223: 61 %
    assert over_blanking(drawn, wall.dead_from).min().item() == pytest.approx((170 - 88) / 224)
    assert spread[:, 170:].eq(0).all()
    assert over_blanking(spread, wall.dead_from).max() == 0


def test_alexnet() -> None:
    from torchvision.models import alexnet

    subject, images = of(seeded(lambda: alexnet(weights=None, num_classes=10))), some_images(3, size=224)
    wall = build_wall(subject, images[:1], seed=0)

    assert (wall.rows, wall.kept_rows, wall.dead_from) == (13, 4, 145)
    for name in LOCAL:
        assert leaked(subject, wall, images, name).nan_to_num(0).eq(0).all(), name
    assert leaked(subject, wall, images, "gradcam_plus_plus").nanmean() > 0.1


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_on_feature_rows(name: str) -> None:
    import torchvision

    module = seeded(lambda: getattr(torchvision.models, name)(weights=None, num_classes=10))
    subject, images = of(module), some_images(2, size=224)
    wall = build_wall(subject, images[:1], seed=0)

    assert (wall.rows, wall.kept_rows, wall.dead_from) == (7, 2, None)
    for method in LOCAL:
        assert leaked(subject, wall, images, method).nan_to_num(0).eq(0).all(), method
    assert leaked(subject, wall, images, "gradcam_plus_plus").nanmean() > 0.1
