from functools import partial

import pytest
import torch

from camcore.subject import Classifier
from fixtures.subjects.registry import FAMILIES, IMAGE_TEXT
from fixtures.subjects.spec import MADE_FOR, find_subject, first_ability
from tests.refusals import refusal

refused = partial(refusal, find_subject)


def test_a_subject_is_ready_to_be_asked():
    subject = find_subject("squeezenet1_1", weights="random:0")
    assert isinstance(subject, Classifier)
    assert (subject.name, subject.spec, subject.weights) == ("squeezenet1_1", "squeezenet1_1", "random:0")
    assert not subject.module.training
    assert len(subject.sha256) == 64
    assert subject.target_layer == "features.12"
    assert (subject.grid.height, subject.grid.width) == (13, 13)
    assert all(parameter.requires_grad for parameter in subject.module.parameters())


def test_a_bare_name_is_one_of_torchvisions():
    bare, full = (find_subject(spec, weights="random:3") for spec in ("squeezenet1_1", "torchvision:squeezenet1_1"))
    assert bare.sha256 == full.sha256


def test_finding_a_subject_leaves_the_global_generator_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    find_subject("squeezenet1_1", weights="random:0")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_users_layer_is_the_target_layer():
    subject = find_subject("squeezenet1_1", weights="random:0", layer="features.5")
    assert subject.target_layer == "features.5"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resnet5", ["'resnet5'", "did you mean", "'resnet50'"]),
        ("ResNet50", ["'ResNet50'", "'resnet50'"]),
        ("torchvision:deeplabv3_resnet50", ["'deeplabv3_resnet50'"]),
        ("torchvision:", ["''"]),
        ("", ["''"]),
        ("resnet50@IMAGENET1K_V9", ["'IMAGENET1K_V9'", "IMAGENET1K_V1, IMAGENET1K_V2"]),
        ("vgg16@IMAGENET1K_FEATURES", ["'IMAGENET1K_FEATURES'", "known: IMAGENET1K_V1"]),
        ("torchvison:resnet50", ["'torchvison'", "'torchvision'"]),
        ("timm:resnet50", ["'timm:resnet50'", "not supported yet"]),
        ("hf:owner/name@rev", ["'hf:owner/name@rev'", "score captions", "those of --data"]),
        ("open_clip:RN50-quickgelu@openai", ["score captions", "as_classifier"]),
        ("mdetr:resnet101@x.pth", ["find phrases", "find_grounder"]),
    ],
)
def test_an_unknown_spec_is_refused_in_one_line(spec, words):
    message = refused(spec, weights="random:0")
    assert all(word in message for word in words), message


def test_an_unknown_device_is_refused():
    assert "'cuda:99'" in refused("squeezenet1_1", weights="random:0", device="cuda:99")
    assert "'gpu'" in refused("squeezenet1_1", weights="random:0", device="gpu")


def test_an_unknown_layer_is_refused():
    assert "'layer9'" in refused("squeezenet1_1", weights="random:0", layer="layer9")


def test_weights_that_are_not_finite_are_refused_with_their_file(tmp_path):
    state = find_subject("squeezenet1_1", weights="random:0").module.state_dict()
    state["features.0.bias"][:3] = float("nan")
    torch.save(state, tmp_path / "broken.pth")
    message = refused("squeezenet1_1", weights=str(tmp_path / "broken.pth"))
    assert "3 NaN or infinite values in 'features.0.bias'" in message
    assert "broken.pth" in message


def test_a_control_takes_no_weights():
    assert "'random:0'" in refused("control:clean", weights="random:0")


def test_what_a_model_was_made_for_is_known_before_it_is_loaded():
    find_subject("control:clean")  # imports every family

    assert {
        prefix for prefix, ability in MADE_FOR.items() if ability == "captions"
    } == IMAGE_TEXT.keys() - FAMILIES.keys()
    assert [first_ability(spec) for spec in ("resnet50", "hf:a/b", "control:clip-oracle", "control:none")] == [
        "classes",
        "captions",
        "captions",
        "classes",
    ]
