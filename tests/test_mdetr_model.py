import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from camcore.models.mdetr.config import CLEVR, GQA, Config
from camcore.models.mdetr.infer import config_of
from camcore.models.mdetr.model import MDETR, TARGET_LAYER, empty
from camcore.models.mdetr.processor import pad
from camcore.models.mdetr.transformer import sine_positions
from camcore.seeds import generator
from tests.tiny_mdetr import (
    DATA,
    QUESTIONS,
    manifests,
    needs_reference,
    reference,
    reference_config,
    reference_model,
    tiny_model,
)

CASES = ("single_red_left", "single_green_left", "single_red_right", "mirror_red_left", "batch_padded")
WITH_GRADIENTS = CASES[:3]
RESNETS = (
    "mdetr_clevr",
    "mdetr_resnet101",
    "mdetr_resnet101_gqa",
    "mdetr_resnet101_phrasecut",
    "mdetr_resnet101_refcoco",
)
NOTHING = torch.zeros(1, 64, 64, dtype=torch.bool)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order differ by as much as small mistakes
    yield
    torch.set_num_threads(before)


def kept(model, *names):
    """Hooks that keep the outputs of modules, and the dictionary that they fill."""
    outputs = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name in names
    ]
    return handles, outputs


def ask(model, case, pixels=None, names=()):
    handles, outputs = kept(model, *names)
    try:
        given = case["padded"] if pixels is None else pixels
        found = model(given, case["padding_mask"], case["input_ids"], case["attention_mask"] == 0)
    finally:
        for handle in handles:
            handle.remove()
    return found, outputs


def off(ours, theirs):
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@needs_reference
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_original_code(name):
    case = reference()["cases"][name]
    found, _ = ask(reference_model(), case)
    expected = case["outputs"]
    assert off(found.logits, expected["pred_logits"]) <= 1e-5
    assert off(found.boxes, expected["pred_boxes"]) <= 1e-5
    assert off(found.query_embeddings, expected["proj_queries"]) <= 1e-5
    assert off(found.token_embeddings, expected["proj_tokens"]) <= 1e-5
    assert found.answers == {}


@needs_reference
@pytest.mark.parametrize("name", CASES)
def test_what_lies_between_is_that_of_the_original_code(name):
    case, model = reference()["cases"][name], reference_model()
    layers = [f"transformer.decoder.layers.{index}" for index in range(2)]
    found, outputs = ask(model, case, names=[TARGET_LAYER, "transformer.resizer", *layers])
    debug = case["debug"]
    assert off(outputs[TARGET_LAYER], debug["layer4"]) <= 1e-5
    assert off(outputs["transformer.resizer"].transpose(0, 1), debug["text_memory_resized"]) <= 1e-5
    assert off(found.memory.transpose(0, 1), debug["memory"]) <= 1e-5
    for layer, expected in zip(layers, debug["decoder_hs"], strict=True):
        assert off(model.transformer.decoder.norm(outputs[layer]).transpose(0, 1), expected) <= 1e-5


@needs_reference
@pytest.mark.parametrize("name", CASES)
def test_positions_are_those_of_the_original_code(name):
    case = reference()["cases"][name]
    rows, columns = case["debug"]["layer4"].shape[-2:]
    cells = rows * columns
    outside = case["debug"]["key_padding_mask"][:, :cells].reshape(-1, rows, columns)
    expected = case["debug"]["pos_embed"][:cells].transpose(0, 1)
    assert off(sine_positions(outside, 64).flatten(1, 2), expected) <= 1e-5


@needs_reference
@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_gradients_are_those_of_the_original_code(name):
    case = reference()["cases"][name]
    pixels = case["padded"].clone().requires_grad_()
    found, outputs = ask(reference_model(), case, pixels, [TARGET_LAYER])
    p = found.logits.softmax(-1)[0]
    anything = (1 - p[:, -1]).sum()
    phrase = p[:, case["phrase_positive_map"][0] > 0].max()
    by_pixel, by_cell = torch.autograd.grad(anything, [pixels, outputs[TARGET_LAYER]], retain_graph=True)
    (of_phrase,) = torch.autograd.grad(phrase, outputs[TARGET_LAYER])
    for ours, theirs in ((by_pixel, "d_a_d_image"), (by_cell, "d_a_d_layer4"), (of_phrase, "d_b_d_layer4")):
        assert off(ours, case["grads"][theirs]) <= 1e-3 * case["grads"][theirs].abs().max()


def published(name):
    """Names and shapes, without the prefix and the head of a model that draws masks; and the size of that head."""
    shapes = manifests()[name]
    heads = {key for key in shapes if key.startswith(("mask_head.", "bbox_attention."))}
    return {key.removeprefix("detr."): tuple(shape) for key, shape in shapes.items() if key not in heads}, len(heads)


@needs_reference
@pytest.mark.parametrize("name", RESNETS)
def test_names_and_shapes_are_those_of_the_published_weights(name):
    shapes, heads = published(name)
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    config = config_of(state, DATA / name)
    with torch.device("meta"):
        own = MDETR(config).state_dict()
    assert {key: tuple(value.shape) for key, value in own.items()} == shapes
    assert heads == (32 if name.endswith("phrasecut") else 0)


@needs_reference
def test_the_published_models_are_built_as_their_manifests_say():
    found = {
        name: config_of({key: torch.empty(shape, device="meta") for key, shape in published(name)[0].items()}, DATA)
        for name in RESNETS
    }
    assert found["mdetr_resnet101"] == found["mdetr_resnet101_refcoco"] == Config()
    assert found["mdetr_resnet101_phrasecut"] == Config(contrastive=None)
    assert found["mdetr_clevr"].backbone == "resnet18"
    assert found["mdetr_clevr"].text.layers == 6
    assert found["mdetr_clevr"].queries == 25
    assert found["mdetr_clevr"].answers == QUESTIONS
    assert found["mdetr_resnet101_gqa"].contrastive is None
    assert found["mdetr_resnet101_gqa"].answers == tuple(zip(GQA, (5, 3, 1594, 403, 678, 111), strict=True))


@needs_reference
def test_only_the_heads_are_not_inferred_from_the_reference():
    assert config_of(reference()["state_dict"], DATA, heads=8, text_heads=4) == reference_config()


def text_of(*lengths, seed=0):
    ids = torch.randint(5, 300, (len(lengths), max(lengths)), generator=generator(seed, "tokens"))
    padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    return ids.masked_fill(padding, 1), padding


def image(height=64, width=64, seed=0):
    return torch.randn(3, height, width, generator=generator(seed, "pixels"))


def test_positions_of_one_row_are_written_out():
    positions = sine_positions(torch.tensor([[[False, False, True]]]), 8)
    x = [2 * math.pi * number / (2 + 1e-6) for number in (1, 2)]  # the third cell is padding: not counted
    y = 2 * math.pi / (1 + 1e-6)
    for column in range(2):
        rows = [math.sin(y), math.cos(y), math.sin(y / 100), math.cos(y / 100)]
        columns = [math.sin(x[column]), math.cos(x[column]), math.sin(x[column] / 100), math.cos(x[column] / 100)]
        torch.testing.assert_close(positions[0, 0, column], torch.tensor(rows + columns), atol=2e-6, rtol=0)


def test_rows_come_before_columns_in_the_positions():
    tall = sine_positions(torch.zeros(1, 3, 1, dtype=torch.bool), 8)
    wide = sine_positions(torch.zeros(1, 1, 3, dtype=torch.bool), 8)
    torch.testing.assert_close(tall[0, :, 0, :4], wide[0, 0, :, 4:])
    assert tall[0, :, 0, :4].std(0).max() > 0.1
    assert tall[0, :, 0, 4:].std(0).max() == 0


def test_a_cells_position_does_not_depend_on_the_padding():
    alone = sine_positions(torch.zeros(1, 2, 3, dtype=torch.bool), 16)
    padded = torch.ones(1, 4, 5, dtype=torch.bool)
    padded[:, :2, :3] = False
    torch.testing.assert_close(sine_positions(padded, 16)[:, :2, :3], alone)


@pytest.mark.parametrize("blind", [True, False])
def test_positions_say_where_to_look_and_are_no_part_of_what_is_seen(blind):
    transformer = tiny_model().transformer
    encoder, decoder = transformer.encoder.layers[0], transformer.decoder.layers[0]
    if blind:  # queries and keys of zero: all places are looked at alike
        for attention in (encoder.self_attn, decoder.self_attn, decoder.cross_attn_image):
            attention.in_proj_weight[: 2 * 16] = 0
    x, queries, positions, others = torch.randn(4, 1, 5, 16, generator=generator(0, "sequence"))
    padding = torch.zeros(1, 5, dtype=torch.bool)
    encoded = [encoder(x, where, padding) for where in (positions, others)]
    by_memory = [decoder(x, queries, x, where, padding) for where in (positions, others)]
    by_query = [decoder(x, where, x, positions, padding) for where in (queries, others)]
    for one, other in (encoded, by_memory, by_query):
        assert ((one - other).abs().max() < 1e-6) == blind


class Patches(nn.Module):
    """In the place of the ResNet: cells that see their own 32 pixels only, so that padding reaches no other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 512, 32, stride=32).requires_grad_(False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(512, 3, 32, 32, generator=generator(0, "patches")) / 55)
            self.conv.bias.fill_(0.5)

    def forward(self, pixels):
        return self.conv(pixels)


def test_an_image_padded_in_a_batch_has_the_boxes_that_it_has_alone():
    model = tiny_model()
    model.backbone[0].body = Patches()
    images = [image(96, 128), image(64, 96, seed=1), image(32, 64, seed=2)]
    ids, token_padding = text_of(11, 4, 7)
    together = model(*pad(images), ids, token_padding)
    for index, length in enumerate((11, 4, 7)):
        alone = model(
            *pad(images[index : index + 1]), ids[index : index + 1, :length], token_padding[index : index + 1, :length]
        )
        torch.testing.assert_close(together.boxes[index], alone.boxes[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.logits[index], alone.logits[0], atol=1e-5, rtol=0)
    assert (together.boxes[0] - together.boxes[1]).abs().max() > 1e-3


def test_without_its_mask_padding_moves_the_boxes():
    model = tiny_model()
    model.backbone[0].body = Patches()
    pixels, padding = pad([image(96, 128), image(64, 96, seed=1)])
    ids, token_padding = text_of(6, 6)
    right = model(pixels, padding, ids, token_padding).boxes[1]
    assert (model(pixels, torch.zeros_like(padding), ids, token_padding).boxes[1] - right).abs().max() > 1e-3


def test_a_caption_padded_in_a_batch_has_the_boxes_that_it_has_alone():
    model, pixels = tiny_model(), torch.stack([image(), image(seed=1)])
    ids, token_padding = text_of(9, 4)
    together = model(pixels, NOTHING.expand(2, -1, -1), ids, token_padding)
    alone = model(pixels[1:], NOTHING, ids[1:, :4], token_padding[1:, :4])
    torch.testing.assert_close(together.boxes[1], alone.boxes[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together.token_embeddings[1, :4], alone.token_embeddings[0], atol=1e-5, rtol=0)


def test_the_gradient_with_respect_to_the_image_is_the_slope():
    model = tiny_model().double()
    pixels, direction = image().double()[None], image(seed=3).double()[None]
    ids, token_padding = text_of(6)

    def score(step):
        return model(pixels + step * direction, NOTHING, ids, token_padding).boxes.sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(score(step), step)
    h = 1e-6
    torch.testing.assert_close(
        slope, (score(torch.tensor(h)) - score(torch.tensor(-h))) / (2 * h), rtol=1e-4, atol=1e-9
    )
    assert slope.abs() > 1e-6


def test_answers_are_read_off_the_first_decoder_layer_and_their_queries_name_no_box():
    model = tiny_model(answers=QUESTIONS)
    ids, token_padding = text_of(6)
    handles, outputs = kept(model, "transformer.decoder.layers.0", "transformer.decoder.layers.1")
    found = model(image()[None], NOTHING, ids, token_padding)
    for handle in handles:
        handle.remove()
    norm = model.transformer.decoder.norm
    first, last = (norm(outputs[f"transformer.decoder.layers.{index}"])[0] for index in (0, 1))
    assert found.boxes.shape == (1, 5, 4)
    torch.testing.assert_close(found.logits[0], model.class_embed(last[:5]))
    assert list(found.answers) == list(CLEVR)
    torch.testing.assert_close(found.answers["type"][0], model.answer_type_head(first[5]))
    torch.testing.assert_close(found.answers["binary"], model.answer_binary_head(first[6]))
    torch.testing.assert_close(found.answers["attr"][0], model.answer_attr_head(first[8]))
    one, two, three = model.answer_reg_head.layers
    torch.testing.assert_close(found.answers["reg"][0], three(two(one(first[7]).relu()).relu()))


def test_embeddings_have_length_one_or_are_not_there():
    ids, token_padding = text_of(6)
    found = tiny_model()(image()[None], NOTHING, ids, token_padding)
    for embeddings, count in ((found.query_embeddings, 5), (found.token_embeddings, 6)):
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(1, count))
    without = tiny_model(contrastive=None)(image()[None], NOTHING, ids, token_padding)
    assert without.query_embeddings is None
    assert without.token_embeddings is None


def test_the_memory_holds_the_cells_of_the_grid_and_then_the_tokens():
    ids, token_padding = text_of(6)
    found = tiny_model()(image(64, 128)[None], torch.zeros(1, 64, 128, dtype=torch.bool), ids, token_padding)
    assert found.grid == (2, 4)
    assert found.memory.shape == (1, 2 * 4 + 6, 16)


def test_an_empty_network_draws_no_random_numbers_and_has_nothing_to_train():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = empty(tiny_model().config)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model.transformer.text_encoder.embeddings.position_ids[0], torch.arange(40))


def test_another_backbone_is_refused_by_name():
    with pytest.raises(ValueError, match=r"resnet18.*got 'vgg11'"):
        empty(Config(backbone="vgg11"))


def test_dropout_is_nowhere_so_that_training_mode_changes_nothing():
    model = tiny_model()
    ids, token_padding = text_of(6)
    asked = model(image()[None], NOTHING, ids, token_padding).boxes
    torch.testing.assert_close(
        model.train()(image()[None], NOTHING, ids, token_padding).boxes, asked, atol=1e-6, rtol=0
    )
    assert functional.mse_loss(asked, torch.full_like(asked, 0.5)) > 0
