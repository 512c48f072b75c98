import pytest
import torch
from torch import nn

from camcore import Geometry, cam, captions_as_classes, record, with_target_layer
from camcore.seeds import generator
from tests.tiny import CLASSES, SIZE, GapNet, TokenNet, as_they_are, randomised, some_images

CAPTIONS = ("a mug on the left of a table", "a mug on the right of a table", "a dog")


def embeddings(count=3, seed=0):
    return torch.randn(count, CLASSES, generator=generator(seed, "captions"))


def subject_of(net, text, **given):
    return captions_as_classes(
        randomised(net),
        text,
        CAPTIONS[: len(text)],
        geometry=Geometry(crop=(SIZE, SIZE)),
        preprocess=as_they_are,
        **given,
    )


def test_scores_are_scaled_cosines_whatever_the_length_of_the_embeddings():
    text, images = embeddings(), some_images(2)
    subject = subject_of(GapNet(), text, scale=10.0)
    image = subject.module.encoder(images).detach()
    expected = 10 * nn.functional.cosine_similarity(image[:, None], text[None], dim=2)
    torch.testing.assert_close(subject.logits(images).detach(), expected)
    torch.testing.assert_close(subject_of(GapNet(), 7 * text, scale=10.0).logits(images).detach(), expected)
    assert subject.classes == CAPTIONS


@pytest.mark.parametrize(("net", "layer"), [(GapNet, "encoder.relu"), (TokenNet, "encoder.block2.norm1")])
def test_the_target_layer_is_that_of_the_encoder(net, layer):
    assert with_target_layer(subject_of(net(), embeddings())).target_layer == layer


def test_a_caption_is_explained_like_a_class_and_a_pair_of_captions_by_their_difference():
    subject = with_target_layer(subject_of(GapNet().double(), embeddings().double()))
    images = some_images(2).double()
    left, right = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    contrast = record(subject, images, left, against=right)
    alone, other = record(subject, images, left), record(subject, images, right)
    torch.testing.assert_close(cam.hirescam(contrast), cam.hirescam(alone) - cam.hirescam(other))
    torch.testing.assert_close(cam.hirescam(record(subject, images, right, against=left)), -cam.hirescam(contrast))
    assert cam.hirescam(contrast).abs().max() > 0


def test_the_gradient_is_that_of_the_cosine_written_out():
    text, images = embeddings().double(), some_images(2).double()
    subject = with_target_layer(subject_of(GapNet().double(), text, scale=1.0))
    rec = record(subject, images, torch.tensor([2, 0]))
    weight, bias = subject.module.encoder.head.weight, subject.module.encoder.head.bias
    places = rec.activations[0, 0].numel()
    for index, caption in enumerate([2, 0]):
        image = weight @ rec.activations[index].mean((1, 2)) + bias
        length, goal = image.norm(), text[caption] / text[caption].norm()
        by_image = goal / length - (goal @ image) * image / length**3
        expected = (weight.T @ by_image)[:, None, None] / places
        torch.testing.assert_close(rec.gradients[index], expected.expand_as(rec.gradients[index]).detach())


def test_captions_and_embeddings_that_differ_in_number_are_refused():
    with pytest.raises(ValueError, match="expected one embedding per caption, got 2 embeddings for 3 captions"):
        captions_as_classes(GapNet(), embeddings(2), CAPTIONS, geometry=Geometry(crop=(SIZE, SIZE)))


def test_the_encoders_mode_is_kept_so_that_a_training_encoder_is_refused():
    subject = captions_as_classes(
        GapNet().train(), embeddings(), CAPTIONS, geometry=Geometry(crop=(SIZE, SIZE)), preprocess=as_they_are
    )
    with pytest.raises(ValueError, match="training mode"):
        record(subject, some_images(1), layer="encoder.relu")


@pytest.mark.slow
def test_a_clip_vision_tower_is_explained_on_its_grid_of_patches():
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=CLASSES,
    )  # fmt: skip
    encoder = randomised(transformers.CLIPVisionModelWithProjection(config))
    subject = with_target_layer(
        captions_as_classes(
            encoder, embeddings(), CAPTIONS, geometry=Geometry(crop=(32, 32)), embedding=lambda out: out.image_embeds
        )
    )
    assert subject.grid is not None
    assert (subject.grid.height, subject.grid.width, subject.grid.prefix) == (4, 4, 1)
    assert subject.target_layer.endswith("layers.1.layer_norm1")
    assert torch.isfinite(cam.hirescam(record(subject, some_images(2, size=32)))).all()
