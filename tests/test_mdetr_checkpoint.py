import os
import pickle
import warnings
from argparse import Namespace
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path, PosixPath

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from camcore.models.mdetr.checkpoint import convert, load, read
from camcore.models.mdetr.infer import config_of
from tests.refusals import refusal
from tests.tiny_mdetr import QUESTIONS, manifests, needs_reference, reference, tiny_config, tiny_model


@pytest.fixture(autouse=True)
def _leave_nothing(tmp_path):
    yield
    for file in tmp_path.iterdir():  # a ResNet-18 is 45 MB, and pytest keeps the folders of three runs
        file.unlink()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def state():
    return tiny_model().state_dict()


def container(state, ema=None, **args):
    """What a training saved: the last weights, their average, the optimiser's moments, and its arguments."""
    given = {"nheads": 2, "output_dir": PosixPath("/runs/1"), "position_embedding": "sine", "dilation": False, **args}
    return {
        "model": state,
        "model_ema": ema,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 39,
        "args": Namespace(**given),
    }


def moved(state):
    return OrderedDict((name, value + 1 if value.is_floating_point() else value) for name, value in state.items())


def saved(folder, content, name="mdetr.pth"):
    torch.save(content, folder / name)
    return folder / name


def test_the_average_is_preferred_and_named(tmp_path, state):
    file = saved(tmp_path, container(moved(state), state))
    loaded = load(file)
    assert same(loaded.model.state_dict(), state)
    assert loaded.weights == "model_ema of mdetr.pth"
    assert loaded.sha256 == sha256(file.read_bytes()).hexdigest()


def test_the_last_weights_are_taken_where_they_are_asked_for_or_there_is_no_average(tmp_path, state):
    both, alone = saved(tmp_path, container(moved(state), state)), saved(tmp_path, container(state), "alone.pth")
    assert read(both, prefer="model").chosen == "model"
    assert same(dict(read(both, prefer="model").state), moved(state))
    assert read(alone).chosen == "model"
    assert same(dict(read(alone).state), dict(state))
    assert "no weights 'model_ema'; it has model" in refusal(read, alone, prefer="model_ema")


@pytest.mark.slow
def test_everything_but_the_heads_is_inferred_and_those_of_the_transformer_are_in_the_arguments(tmp_path, state):
    assert load(saved(tmp_path, container(state, state))).model.config == tiny_config()
    assert load(saved(tmp_path, container(state, nheads=4))).model.config == tiny_config(heads=4)
    assert load(saved(tmp_path, container(state)), heads=1).model.config == tiny_config(heads=1)
    assert load(saved(tmp_path, dict(state))).model.config == tiny_config(heads=8)


@pytest.mark.slow
def test_the_heads_matter_though_no_shape_tells(tmp_path, state):
    file = saved(tmp_path, dict(state))
    pixels, nothing = torch.ones(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool)
    tokens, none = torch.tensor([[0, 7, 9, 2]]), torch.zeros(1, 4, dtype=torch.bool)
    two, four = (load(file, heads=heads).model(pixels, nothing, tokens, none).boxes for heads in (2, 4))
    assert (two - four).abs().max() > 1e-4


@pytest.mark.parametrize("given", [{"answers": QUESTIONS}, {"contrastive": None}, {"decoder_layers": 3}])
def test_variants_are_inferred(tmp_path, given):
    model = tiny_model(**given)
    assert load(saved(tmp_path, container(model.state_dict()))).model.config == model.config


def test_position_ids_of_older_transformers_are_dropped(tmp_path, state):
    ids = {"transformer.text_encoder.embeddings.position_ids": torch.arange(40)[None]}
    assert same(load(saved(tmp_path, container({**state, **ids}))).model.state_dict(), state)


def test_the_prefix_and_the_head_of_a_model_that_draws_masks_are_left_out_and_that_is_said(tmp_path, state):
    ids = {"transformer.text_encoder.embeddings.position_ids": torch.arange(40)[None]}
    masks = {"mask_head.lay1.weight": torch.zeros(2), "bbox_attention.q_linear.bias": torch.zeros(2)}
    prefixed = {f"detr.{name}": value for name, value in {**state, **ids}.items()}
    loaded = load(saved(tmp_path, container({**prefixed, **masks})))
    assert same(loaded.model.state_dict(), state)
    assert loaded.weights == "model of mdetr.pth, without its head for masks"


@pytest.mark.slow
def test_safetensors_hold_the_same_weights_and_tell_where_they_came_from(tmp_path, state):
    source, target = saved(tmp_path, container(moved(state), state)), tmp_path / "mdetr.safetensors"
    digest = convert(source, target)
    assert digest == sha256(target.read_bytes()).hexdigest()
    assert same(load_file(target), state)
    loaded, weights = load(target), read(target)
    assert same(loaded.model.state_dict(), state)
    assert loaded.weights == "model_ema of mdetr.pth"
    assert loaded.sha256 == digest
    assert loaded.model.config == tiny_config()  # with the 2 heads that the arguments told
    assert weights.source_sha256 == sha256(source.read_bytes()).hexdigest()
    assert target.stat().st_size < 0.6 * source.stat().st_size


@pytest.mark.slow
def test_the_same_checkpoint_becomes_the_same_bytes(tmp_path, state):
    source = saved(tmp_path, container(state))
    assert len({convert(source, tmp_path / f"{name}.safetensors") for name in "abcd"}) == 1


def test_converting_overwrites_nothing_and_writes_nothing_that_does_not_load(tmp_path, state):
    source, there = saved(tmp_path, container(state)), tmp_path / "there.safetensors"
    there.write_bytes(b"audited")
    assert "exists" in refusal(convert, source, there)
    assert there.read_bytes() == b"audited"
    assert "another suffix" in refusal(convert, source, tmp_path / "new.pth")
    broken = saved(tmp_path, container({**state, "extra": torch.zeros(1)}), "broken.pth")
    assert "1 unexpected ('extra')" in refusal(convert, broken, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_what_was_converted_is_not_taken_for_other_weights(tmp_path, state):
    convert(saved(tmp_path, container(state, state)), tmp_path / "ema.safetensors")
    assert "holds 'model_ema'" in refusal(load, tmp_path / "ema.safetensors", prefer="model")


def test_safetensors_without_a_story_load_as_a_state_dict(tmp_path, state):
    save_file(dict(state), tmp_path / "plain.safetensors")
    assert load(tmp_path / "plain.safetensors", heads=2).weights == "state dict of plain.safetensors"


class Touch:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


@pytest.mark.parametrize("protocol", [None, 2, 4])  # None: in torch's own zip file
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, state, protocol):
    file, touched = tmp_path / "evil.pth", tmp_path / "touched"
    evil = {"model": {}, "epoch": Touch(touched)}
    if protocol is None:
        torch.save(evil, file)
    else:
        file.write_bytes(pickle.dumps(evil, protocol=protocol))
    message = refusal(load, file)
    assert not touched.exists()
    assert "refused" in message
    assert ("a plain pickle" if protocol == 4 else "system") in message
    assert str(file) in message
    pickle.loads(pickle.dumps(Touch(touched)))  # it would have run
    assert touched.exists()


def test_classes_other_than_those_of_the_arguments_are_refused(tmp_path, state):
    assert "refused" in refusal(load, saved(tmp_path, container(state, something=nn.Linear(1, 1))))


def test_a_torchscript_archive_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; such files exist all the same
        torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "scripted.pt")
    assert "TorchScript" in refusal(load, tmp_path / "scripted.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"404: not found", bytes(range(256)) * 4])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix, content):
    file = tmp_path / f"mdetr{suffix}"
    file.write_bytes(content)
    message = refusal(load, file)
    assert str(file) in message
    assert "damaged" in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "'no/such.pth' does not exist" in refusal(load, Path("no/such.pth"))
    assert "is a folder" in refusal(load, tmp_path)


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, torch.zeros(2), {"model": {"a": 1}}])
def test_a_file_without_weights_is_refused(tmp_path, content):
    assert "expected a" in refusal(load, saved(tmp_path, content))


def test_names_that_do_not_fit_are_counted_and_some_told(tmp_path, state):
    wrong = dict(state)
    wrong["class_embed.scale"] = wrong.pop("class_embed.bias")
    wrong["bbox_embed.layers.2.bias"] = torch.zeros(5)
    message = refusal(load, saved(tmp_path, wrong), heads=2)
    assert "1 missing ('class_embed.bias')" in message
    assert "1 unexpected ('class_embed.scale')" in message
    assert "1 of another shape ('bbox_embed.layers.2.bias')" in message


def test_weights_of_another_network_are_refused_by_what_they_lack(tmp_path, state):
    without = {name: value for name, value in state.items() if "word_embeddings" not in name}
    assert "they lack 'transformer.text_encoder.embeddings.word_embeddings.weight'" in refusal(
        load, saved(tmp_path, without)
    )
    assert "0, 0, 0, 0 blocks" in refusal(load, saved(tmp_path, {"fc.weight": torch.zeros(2)}))


@pytest.mark.parametrize(("name", "value"), [("dilation", True), ("pre_norm", True), ("position_embedding", "learned")])
def test_a_variant_that_no_shape_tells_is_refused(tmp_path, state, name, value):
    assert f"trained with {name}={value!r}" in refusal(load, saved(tmp_path, container(state, **{name: value})))


def test_heads_that_cannot_share_the_features_are_refused(tmp_path, state):
    file = saved(tmp_path, dict(state))
    assert "16 features, which 3 attention heads cannot share" in refusal(load, file, heads=3)
    assert "64 features, which 5 attention heads cannot share" in refusal(load, file, text_heads=5)


def test_a_value_that_is_not_finite_is_refused_by_name(tmp_path, state):
    broken = {**state, "class_embed.bias": torch.full_like(state["class_embed.bias"], torch.nan)}
    assert "1 tensors of mdetr.pth hold NaN or infinity ('class_embed.bias')" in refusal(load, saved(tmp_path, broken))


def test_an_efficientnet_is_refused_in_one_line():
    state = {"backbone.0.body.conv_stem.weight": torch.zeros(1), "backbone.0.body.blocks.0.0.bn1.bias": torch.zeros(1)}
    assert "EfficientNet, which is not supported" in refusal(config_of, state, Path("b3.pth"))


@needs_reference
@pytest.mark.parametrize("name", ["mdetr_efficientnetB3", "mdetr_efficientnetB5"])
def test_the_published_efficientnets_are_refused(name):
    state = {key: torch.empty(shape, device="meta") for key, shape in manifests()[name].items()}
    assert "EfficientNet, which is not supported" in refusal(config_of, state, Path(name))


@needs_reference
@pytest.mark.slow
def test_the_reference_in_the_published_container_gives_the_reference_outputs(tmp_path):
    weights = reference()["state_dict"]
    ids = {"transformer.text_encoder.embeddings.position_ids": torch.arange(66)[None]}
    source = saved(tmp_path, container(moved(weights), {**weights, **ids}, nheads=8))
    convert(source, tmp_path / "mdetr.safetensors")
    case = reference()["cases"]["batch_padded"]
    for file in (source, tmp_path / "mdetr.safetensors"):
        model = load(file, text_heads=4).model
        found = model(case["padded"], case["padding_mask"], case["input_ids"], case["attention_mask"] == 0)
        torch.testing.assert_close(found.boxes, case["outputs"]["pred_boxes"], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.logits, case["outputs"]["pred_logits"], atol=1e-5, rtol=0)
    assert "pass text_heads" in refusal(load, source)
