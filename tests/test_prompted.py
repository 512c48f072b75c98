from dataclasses import replace

import pytest
import torch
from torch import nn

from camcore import BadInput, as_classifier, as_scorer, cam, record
from camcore.cost import metered
from camcore.prompted import with_map
from tests.tiny import CLASSES, SIZE, randomised, some_images
from tests.worded_towers import DOG, LEFT, RIGHT, cosines, tokenise, towers


def test_classes_that_are_one_to_the_model_are_refused():
    with pytest.raises(ValueError, match=r"'dog' and 'Dog' the same embedding.*case and white space do not count"):
        as_classifier(towers(), ["dog", "mug", "Dog"], templates=["a {}.", "one {}"])
    subject = towers()
    bag = replace(subject, embed_text=lambda tokens: subject.module["text"].table(tokens["ids"]).sum(1)[:, :CLASSES])
    with pytest.raises(ValueError, match=r"'on top' and 'top on' the same embedding.*does not read the order of words"):
        as_classifier(bag, ["on top", "top on"])
    assert as_classifier(towers(), ["crane", "mug", "crane"]).classes == ("crane", "mug", "crane")  # ImageNet has it
    # one caption of two classes is the same, and the classes are not
    assert as_classifier(towers(), ["dog", "A dog"], templates=["a {}", "{}"]).classes == ("dog", "A dog")


@pytest.mark.parametrize("bias", [None, -3.0])
def test_the_logits_of_the_classifier_are_the_models_own(bias):
    subject, images = towers(bias=bias), some_images(2)
    classifier = as_classifier(subject, [LEFT, RIGHT, DOG])
    expected = 14 * cosines(subject, images, [LEFT, RIGHT, DOG]) + (bias or 0)
    torch.testing.assert_close(classifier.logits(images), expected)
    if bias is not None:
        torch.testing.assert_close(classifier.logits(images), subject.similarity(images, [LEFT, RIGHT, DOG]))
    assert classifier.classes == (LEFT, RIGHT, DOG)


def test_a_class_of_several_templates_is_the_mean_of_unit_embeddings():
    subject, images = towers(), some_images(2)
    classifier = as_classifier(subject, ["mug", "dog"], templates=["a {}.", "one {} here"])
    units = [
        nn.functional.normalize(subject.embed_text(tokenise([f"a {x}.", f"one {x} here"]))) for x in ("mug", "dog")
    ]
    image = nn.functional.normalize(subject.embed_image(images))
    expected = torch.stack([14 * image @ (unit.mean(0) / unit.mean(0).norm()) for unit in units], 1)
    torch.testing.assert_close(classifier.logits(images), expected)
    assert classifier.classes == ("mug", "dog")


def test_a_template_without_a_place_for_the_class_is_refused():
    with pytest.raises(ValueError, match=r"expected a template with {} .* got 'a photo'"):
        as_classifier(towers(), ["mug", "dog"], templates=["a photo"])


def test_braces_in_the_name_of_a_class_are_letters():
    assert as_classifier(towers(), ["{0}", "{mug}"]).classes == ("{0}", "{mug}")


def test_the_classifier_says_where_it_comes_from_and_other_captions_are_another_model():
    subject = towers()
    first, again, other = (as_classifier(subject, [LEFT, name]) for name in (RIGHT, RIGHT, DOG))
    assert (first.name, first.spec, first.weights, first.unsafe) == ("towers", "towers", "random:0", ("a reason",))
    assert first.sha256 == again.sha256 != other.sha256
    assert as_classifier(replace(subject, sha256="def"), [LEFT, RIGHT]).sha256 != first.sha256


def test_the_target_layer_is_found_or_the_subjects_or_the_callers():
    subject = towers()
    assert as_classifier(subject, [LEFT, DOG]).target_layer == "encoder.relu"
    assert as_classifier(replace(subject, target_layer="conv1"), [LEFT, DOG]).target_layer == "encoder.conv1"
    chosen = as_classifier(replace(subject, target_layer="conv1"), [LEFT, DOG], layer="encoder.conv2")
    assert chosen.target_layer == "encoder.conv2"


def test_what_speaks_for_a_caption_rather_than_another_is_a_map():
    classifier = as_classifier(towers(), [LEFT, RIGHT])
    left, right = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    found = cam.hirescam(record(classifier, some_images(2), left, against=right))
    assert found.flatten(1).abs().amax(1).min() > 0
    torch.testing.assert_close(found, -cam.hirescam(record(classifier, some_images(2), right, against=left)))


def test_a_scorer_gives_the_mean_of_the_wordings_scores_and_a_prompt_ensemble_does_not():
    subject, images = towers(), some_images(3)
    said = [[LEFT, "left, a mug"], [RIGHT, "right, a mug"]]
    scorer = as_scorer(subject, said)
    scores = subject.similarity(images, [caption for wordings in said for caption in wordings])
    wanted = scores.unflatten(1, (2, 2)).mean(2) * subject.scale / 100
    torch.testing.assert_close(scorer.logits(images), wanted)
    assert scorer.classes == (LEFT, RIGHT)
    assert scorer.sha256 != as_scorer(subject, [wordings[::-1] for wordings in said]).sha256
    ensemble = as_classifier(subject, ["left", "right"], templates=["a mug on the {}", "{}, a mug"])
    assert (ensemble.logits(images) - wanted).abs().max() > 1e-3  # means of length one are longer than means


@pytest.mark.parametrize("said", [[], [[]], [[LEFT, DOG], [RIGHT]]])
def test_a_scorer_needs_as_many_wordings_of_each_class(said):
    with pytest.raises(ValueError, match="expected as many wordings of each class, at least one, got"):
        as_scorer(towers(), said)


def test_the_map_of_two_towers_is_found_once_for_all_captions():
    subject = with_map(towers())
    asked = as_classifier(towers(), [LEFT, DOG])
    assert (f"encoder.{subject.target_layer}", subject.grid) == (asked.target_layer, asked.grid)
    assert subject.placement == asked.placement
    assert subject.placement.source == "traced"
    with metered() as cost:
        again = as_scorer(subject, [[LEFT], [DOG]])
    assert (cost.forwards, cost.backwards) == (0, 0)
    assert (again.target_layer, again.grid, again.placement) == (asked.target_layer, asked.grid, asked.placement)
    images, target = some_images(2), torch.zeros(2, dtype=torch.long)
    found, wanted = (cam.hirescam(record(one, images, target)) for one in (again, asked))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["conv1", "encoder.conv1"])
def test_a_layer_is_named_within_the_image_tower_or_the_classifier(name):
    subject = with_map(with_map(towers()), layer=name)
    assert subject.target_layer == "conv1"
    assert as_classifier(subject, [LEFT, DOG]).grid.height == SIZE


def test_a_layer_that_two_towers_do_not_have_is_refused():
    with pytest.raises(BadInput, match=r"no layer 'encoder.conv9' .* did you mean 'encoder.conv"):
        with_map(towers(), layer="conv9")


def test_two_towers_without_a_map_of_features_stay_as_they_are():
    net = randomised(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)))
    subject = replace(towers(), embed_image=net)
    assert with_map(subject) == subject
