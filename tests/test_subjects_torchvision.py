import hashlib
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from camcore.images import load as load_batch
from fixtures.datasets.find import find_dataset
from fixtures.subjects.spec import find_subject
from fixtures.subjects.torchvision import load
from tests.refusals import refusal

DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = DATA / "squeezenet1_1_imagenet.safetensors"
CLASSIFIERS = models.list_models(module=models)
SMALL = ("densenet121", "efficientnet_b0", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5")

needs_real_weights = pytest.mark.skipif(not REAL.exists(), reason="the shared folder with real weights is not here")

refused = partial(refusal, find_subject)


def test_random_weights_depend_on_the_seed_alone():
    first, again, other = (load("squeezenet1_1", f"random:{seed}").module.features[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("spec", "resize", "crop", "interpolation"),
    [
        ("resnet18", 256, 224, "bilinear"),
        ("mobilenet_v2", 256, 224, "bilinear"),  # its default, V2, has 232
        ("mobilenet_v2@IMAGENET1K_V2", 232, 224, "bilinear"),
        ("mobilenet_v2@DEFAULT", 232, 224, "bilinear"),
        ("efficientnet_b1", 256, 240, "bicubic"),
        ("inception_v3", 342, 299, "bilinear"),
    ],
)
def test_own_weights_are_fed_as_v1_unless_an_entry_is_named(spec, resize, crop, interpolation):
    geometry = load(spec, "random:0").geometry
    assert (geometry.resize, geometry.crop, geometry.interpolation) == (resize, (crop, crop), interpolation)


def test_mean_and_deviation_are_the_presets():
    with torch.device("meta"):
        subject = load("efficientnet_v2_l", "random:0")
    assert (subject.preprocess.mean, subject.preprocess.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("size", [(320, 479), (530, 220), (161, 240), (256, 256)])
def test_images_are_fed_as_torchvisions_own_preset_feeds_them(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    subject = load("squeezenet1_1", "random:0")
    ours = subject.preprocess(subject.geometry.fit(image)[None])[0]
    theirs = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()(image)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_entry_is_part_of_the_name():
    assert load("mobilenet_v2@IMAGENET1K_V2", "random:0").name == "mobilenet_v2-IMAGENET1K_V2"


def test_a_vision_transformer_has_the_positions_of_its_entry():
    with torch.device("meta"):
        sizes = [load(f"vit_b_16{entry}", "random:0").module.image_size for entry in ("", "@IMAGENET1K_SWAG_E2E_V1")]
    assert sizes == [224, 384]


@pytest.mark.slow
def test_a_random_vision_transformer_tells_images_apart_and_has_a_target_layer():
    subject = find_subject("vit_b_32", weights="random:0")
    with torch.no_grad():
        black, white = subject.logits(torch.stack([torch.zeros(3, 224, 224), torch.ones(3, 224, 224)]))
    assert not torch.allclose(black, white)
    assert (subject.grid.layout, subject.grid.prefix) == ("tokens", 1)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_inceptions_normalise_their_input_as_published(name):
    assert load(name, "random:0").module.transform_input


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_scores_its_classes_at_its_size(name):
    if name == "regnet_y_128gf":
        pytest.skip("645 million parameters, and RegNets cannot be built without memory; regnet_y_16gf stands for it")
    # On the meta device nothing is computed, so the largest are no slower; RegNets compute their widths when built.
    if name.startswith("regnet"):
        subject = load(name, "random:0")
        subject.module.to("meta")
    else:
        with torch.device("meta"):
            subject = load(name, "random:0")
    logits = subject.module.eval()(torch.zeros(1, 3, *subject.geometry.crop, device="meta"))
    assert logits.shape == (1, len(subject.classes)) == (1, 1000)
    assert subject.classes[207] == "golden retriever"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, "googlenet", "inception_v3", "vit_b_32", "swin_t"])
def test_own_weights_come_back_from_both_kinds_of_file(tmp_path, name):
    saved = load(name, "random:1").module
    state = saved.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pth")
    for file in ("weights.safetensors", "weights.pth"):
        loaded = load(name, str(tmp_path / file)).module.state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_the_auxiliary_heads_of_a_published_googlenet_are_dropped_as_torchvision_drops_them(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        published = models.googlenet(weights=None, aux_logits=True, init_weights=False).state_dict()
    torch.save(published, tmp_path / "weights.pth")
    loaded = load("googlenet", str(tmp_path / "weights.pth")).module
    assert loaded.aux1 is None
    assert set(published) - set(loaded.state_dict()) == {key for key in published if key.startswith("aux")}


def test_a_densenet_file_with_dots_in_its_names_loads(tmp_path):
    state = load("densenet121", "random:1").module.state_dict()
    dotted = {}
    for key, value in state.items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in key:
                    key = key.replace(f".{part}{number}.", f".{part}.{number}.")
        dotted[key] = value
    assert dotted.keys() != state.keys()
    torch.save(dotted, tmp_path / "weights.pth")
    loaded = load("densenet121", str(tmp_path / "weights.pth")).module.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "googlenet"])
def test_a_fine_tuned_head_brings_its_number_of_classes(tmp_path, name):
    arguments = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    torch.save(models.get_model(name, weights=None, num_classes=7, **arguments).state_dict(), tmp_path / "seven.pth")
    subject = load(name, str(tmp_path / "seven.pth"))
    assert subject.classes == tuple(f"class {index}" for index in range(7))
    assert subject.weights == "file seven.pth"


def test_the_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(load("squeezenet1_0", "random:0").module.state_dict(), tmp_path / "other.pth")
    message = refused("squeezenet1_1", weights=str(tmp_path / "other.pth"))
    assert "another architecture" in message
    assert "other.pth" in message
    assert "of another shape" in message


def test_a_dataparallel_checkpoint_loads(tmp_path):
    module = load("squeezenet1_1", "random:1").module
    torch.save({"state_dict": nn.DataParallel(module).state_dict()}, tmp_path / "weights.pth")
    found = find_subject("squeezenet1_1", weights=str(tmp_path / "weights.pth"))
    assert found.sha256 == find_subject("squeezenet1_1", weights="random:1").sha256


@pytest.fixture
def published(tmp_path, monkeypatch):
    """SqueezeNet's "published" weights are random ones of ours, in torch.hub's cache under a name with their hash."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / "weights.pth"
    file.parent.mkdir()
    torch.save(load("squeezenet1_1", "random:1").module.state_dict(), file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    file = file.rename(file.with_name(f"squeezenet1_1-{digits}.pth"))
    entry = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(entry, "url", f"https://download.invalid/models/{file.name}")
    return file


def test_published_weights_come_from_the_cache(published):
    assert published.exists()
    subject = find_subject("squeezenet1_1")
    assert subject.weights == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert subject.sha256 == find_subject("squeezenet1_1", weights="random:1").sha256
    assert subject.classes[:2] == ("tench", "goldfish")


def test_a_damaged_file_in_the_cache_is_refused_by_name(published):
    content = bytearray(published.read_bytes())
    content[-1000] ^= 1
    published.write_bytes(content)
    message = refused("squeezenet1_1@IMAGENET1K_V1")
    assert str(published) in message
    assert "damaged" in message
    assert "delete it" in message


@needs_real_weights
def test_real_weights_load_strictly():
    subject = find_subject("squeezenet1_1", weights=str(REAL))
    assert subject.weights == f"file {REAL.name}"
    assert subject.target_layer == "features.12"
    assert {value.dtype for value in subject.module.parameters()} == {torch.float32}


@pytest.mark.slow
@needs_real_weights
def test_real_weights_have_their_published_accuracy_on_real_photographs():
    subject = find_subject("squeezenet1_1", weights=str(REAL))
    data = find_dataset(str(DATA / "imagenet_dev"), subject=subject)
    assert (len(data), data.skipped) == (200, ())
    right = 0
    with torch.no_grad():
        for start in range(0, 200, 20):
            batch = load_batch(data, data.ids[start : start + 20], subject.geometry, seed=0, device=torch.device("cpu"))
            right += int((subject.logits(batch.images).argmax(1) == batch.labels).sum())
    assert right / 200 == 0.625  # with Resize(256) and CenterCrop(224)
