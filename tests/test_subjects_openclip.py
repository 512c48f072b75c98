import json
import logging
import sys
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from camcore import as_classifier, cam, record
from camcore.cost import metered
from camcore.seeds import generator
from fixtures.subjects.spec import find_image_text
from tests.refusals import refusal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies' own
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip: pip install camcore[clip]")

from fixtures.vision_language.tiny_clip import (
    PATCH,
    SIDE,
    TINY_RESNET,
    TINY_VIT,
    save_tiny_open_clip,
)
from fixtures.vision_language.tokenisers import real_tokeniser, tiny_tokeniser

# open_clip takes seconds to import
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default:.*:DeprecationWarning")]

CAPTIONS = ("a red mug on the left", "a red mug on the right", "a photo of a dog.")
SIGLIP = {**TINY_VIT, "quick_gelu": False, "init_logit_bias": -10.0}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny models; not to be written to."""
    root = tmp_path_factory.mktemp("open_clip")
    configs = {"resnet": TINY_RESNET, "vit": TINY_VIT, "siglip": SIGLIP}
    return {name: save_tiny_open_clip(root / name, config=config) for name, config in configs.items()}


@pytest.fixture
def folder(tmp_path):
    """A tiny CLIP of the test's own, to be damaged."""
    return save_tiny_open_clip(tmp_path / "tiny")


@pytest.fixture
def named(tmp_path, monkeypatch):
    """open_clip knows the names tiny (GELU) and tiny-quickgelu for the length of the test."""
    from open_clip import factory

    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    for name, quick in (("tiny", False), ("tiny-quickgelu", True)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**TINY_RESNET, "quick_gelu": quick}), encoding="utf-8")
        open_clip.add_model_config(tmp_path / f"{name}.json")


@pytest.fixture
def no_network(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def some_images(count=2):
    return torch.rand(count, 3, SIDE, SIDE, generator=generator(0, "tiny open_clip"))


refused = partial(refusal, find_image_text)


@pytest.mark.parametrize("name", ["resnet", "vit", "siglip"])
def test_the_scores_are_those_of_open_clip(saved, name):
    subject, images = find_image_text(f"open_clip:{saved[name]}"), some_images()
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{saved[name]}", return_transform=True)
    normalise = transform.transforms[-1]
    with torch.no_grad():
        expected = model.eval().get_logits(normalise(images), open_clip.tokenize(CAPTIONS))[0]
        found, logits = subject.similarity(images, CAPTIONS), as_classifier(subject, CAPTIONS).logits(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found if name == "siglip" else found * subject.scale / 100, logits)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [
        ("resnet", "encoder.layer4", (SIDE // 32, SIDE // 32, 0)),
        ("vit", "encoder.transformer.resblocks.1.ln_1", (SIDE // PATCH, SIDE // PATCH, 1)),
    ],
)
def test_the_last_map_that_is_read_is_the_target_and_its_contrast_is_a_map(saved, name, layer, grid):
    classifier = as_classifier(find_image_text(f"open_clip:{saved[name]}"), CAPTIONS)
    assert classifier.target_layer == layer
    assert (classifier.grid.height, classifier.grid.width, classifier.grid.prefix) == grid
    left, right = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    rec = record(classifier, some_images(), left, against=right)
    for method in (cam.gradcam, cam.hirescam):
        assert method(rec).flatten(1).abs().amax(1).min() > 0


def test_the_map_of_a_resnet_is_found_where_nobody_names_it(saved):
    subject = find_image_text(f"open_clip:{saved['resnet']}")
    found = as_classifier(replace(subject, target_layer=None), CAPTIONS)
    named = as_classifier(subject, CAPTIONS)
    assert found.target_layer == "encoder.layer4.0.act3"  # whose output is layer4's
    target = torch.zeros(2, dtype=torch.long)
    maps = [cam.hirescam(record(one, some_images(), target, against=target + 1)) for one in (found, named)]
    torch.testing.assert_close(*maps)


def test_a_subject_is_ready_to_be_asked_and_the_log_is_as_it_was(saved):
    before = logging.root.manager.disable, list(logging.root.handlers)
    spec = f"open_clip:{saved['resnet']}"
    subject = find_image_text(spec)
    assert (logging.root.manager.disable, list(logging.root.handlers)) == before
    assert (subject.name, subject.spec, subject.weights, subject.unsafe) == ("resnet", spec, "folder resnet", ())
    assert not subject.module.training
    with metered() as cost:
        subject.similarity(some_images(3), CAPTIONS)
    assert (cost.forwards, cost.backwards) == (3, 0)


def test_whole_pictures_are_squashed_unless_open_clips_crop_is_asked_for(saved):
    whole, cut = (find_image_text(f"open_clip:{saved['vit']}", whole=whole) for whole in (True, False))
    assert (whole.geometry.cuts_sides, cut.geometry.cuts_sides) == (False, True)
    assert whole.fed == f"squashed to {SIDE}x{SIDE}; open_clip would cut the picture to the middle"
    assert (cut.geometry.resize, cut.geometry.interpolation, cut.fed) == (SIDE, "bicubic", "")


def test_a_caption_that_open_clip_would_cut_is_refused(saved):
    subject = find_image_text(f"open_clip:{saved['vit']}")
    with pytest.raises(ValueError, match=r"the caption 'dog dog .* has 82 tokens, the model reads 77; shorten it"):
        subject.similarity(some_images(1), [" ".join(["dog"] * 80)])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_weights_loads_under_the_name_that_says_its_activation(saved, named, tmp_path, suffix):
    expected, file = find_image_text(f"open_clip:{saved['resnet']}"), tmp_path / f"own{suffix}"
    if suffix == ".pt":
        torch.save(
            {"state_dict": {f"module.{key}": value for key, value in expected.module.state_dict().items()}}, file
        )
    else:
        file.write_bytes((saved["resnet"] / "open_clip_model.safetensors").read_bytes())
    subject = find_image_text(f"open_clip:tiny-quickgelu@{file}")
    assert (subject.sha256, subject.weights, subject.unsafe) == (expected.sha256, f"file own{suffix}", ())
    images = some_images()
    torch.testing.assert_close(subject.similarity(images, CAPTIONS), expected.similarity(images, CAPTIONS))
    by_option = find_image_text("open_clip:tiny-quickgelu", weights=str(file))
    assert (by_option.sha256, by_option.weights) == (expected.sha256, f"file own{suffix}")
    plain = find_image_text(f"open_clip:tiny-gelu@{file}")
    assert plain.sha256 == expected.sha256
    assert (plain.embed_captions(CAPTIONS) - expected.embed_captions(CAPTIONS)).abs().max() > 1e-4


def test_a_file_under_a_name_that_does_not_say_its_activation_is_refused(saved, named):
    file = saved["resnet"] / "open_clip_model.safetensors"
    for message in (refused(f"open_clip:tiny@{file}"), refused("open_clip:tiny", weights=str(file))):
        assert "GELU or QuickGELU" in message
        assert "open_clip:tiny-quickgelu" in message
        assert "open_clip:tiny-gelu" in message
    assert f"open_clip:RN50-quickgelu@{file}" in refused(f"open_clip:RN50@{file}")


@pytest.mark.parametrize(
    ("spec", "instead"),
    [
        ("RN50@openai", "write open_clip:RN50-quickgelu@openai"),
        ("RN50@cc12m", "write open_clip:RN50-quickgelu@cc12m"),
        ("ViT-B-32@openai", "write open_clip:ViT-B-32-quickgelu@openai"),
        ("roberta-ViT-B-32@laion2b_s12b_b32k", "give open_clip:DIR with its own open_clip_config.json"),
    ],
)
def test_a_tag_whose_weights_need_another_activation_is_refused(spec, instead):
    message = refused(f"open_clip:{spec}")
    need, has = ("GELU", "QuickGELU") if spec.startswith("roberta") else ("QuickGELU", "GELU")
    assert f"need {need}, the model of that name has {has}" in message
    assert message.endswith(instead)


def program(state, file):
    """A TorchScript archive with these weights and OpenAI's three numbers among them."""
    holder = nn.Module()
    for key, value in state.items():
        inner = holder
        *path, last = key.split(".")
        for part in path:
            if part not in inner._modules:
                inner.add_module(part, nn.Module())
            inner = inner._modules[part]
        inner.register_buffer(last, value.half() if value.is_floating_point() else value)
    holder.register_buffer("input_resolution", torch.tensor(SIDE))
    holder.register_buffer("context_length", torch.tensor(77))
    holder.register_buffer("vocab_size", torch.tensor(49408))
    holder.forward = lambda x: x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(holder, torch.zeros(1)), file)


def test_a_torchscript_program_is_run_only_if_the_spec_says_so(saved, named, tmp_path):
    expected, file = find_image_text(f"open_clip:{saved['resnet']}"), tmp_path / "RN50.pt"
    program(expected.module.state_dict(), file)
    message = refused(f"open_clip:tiny-quickgelu@{file}")
    assert "it is a TorchScript program" in message
    assert f"write open_clip:tiny-quickgelu@torchscript:{file}" in message
    subject = find_image_text(f"open_clip:tiny-quickgelu@torchscript:{file}")
    assert [reason.partition(" (sha256 ")[0] for reason in subject.unsafe] == ["runs the TorchScript program RN50.pt"]
    images = some_images()
    found = subject.similarity(images, CAPTIONS)
    torch.testing.assert_close(found, expected.similarity(images, CAPTIONS), rtol=0, atol=1.0)  # the file is in fp16


def test_a_state_dict_is_no_torchscript_program(saved, named):
    file = saved["resnet"] / "open_clip_model.safetensors"
    assert "is no TorchScript program" in refused(f"open_clip:tiny-quickgelu@torchscript:{file}")


def test_weights_of_another_architecture_are_refused(saved, named):
    file = saved["vit"] / "open_clip_model.safetensors"
    assert "another architecture" in refused(f"open_clip:tiny-quickgelu@{file}")


def test_a_folder_may_bring_a_tokeniser_of_transformers(tmp_path):
    tokeniser = tiny_tokeniser()
    words = {**TINY_VIT["text_cfg"], "vocab_size": len(tokeniser), "context_length": 40, "hf_tokenizer_name": "its own"}
    folder = save_tiny_open_clip(tmp_path / "own", config={**TINY_VIT, "text_cfg": words})
    tokeniser.save_pretrained(folder)
    subject = find_image_text(f"open_clip:{folder}")
    assert subject.tokenise(CAPTIONS)["text"].shape == (3, 40)
    assert subject.similarity(some_images(), CAPTIONS).isfinite().all()
    with pytest.raises(ValueError, match=r"has 72 tokens, the model reads 40"):
        subject.similarity(some_images(), [" ".join(["dog"] * 70)])


def test_random_weights_need_no_activation_and_are_the_same_in_every_run(named):
    before = torch.get_rng_state()
    first, again, other = (find_image_text("open_clip:tiny", weights=f"random:{seed}") for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    assert first.weights == "random:0"
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_network_published_weights_end_in_one_line(no_network):
    message = refused("open_clip:RN50-quickgelu@openai")
    assert "cannot download RN50-quickgelu@openai of open_clip" in message
    assert "give open_clip:RN50-quickgelu@FILE or open_clip:DIR" in message


def test_without_a_network_a_tokeniser_of_the_hub_ends_in_one_line(no_network):
    message = refused("open_clip:ViT-B-16-SigLIP", weights="random:0")
    assert "cannot download the tokeniser of 'ViT-B-16-SigLIP'" in message
    assert message.endswith("use a model with open_clip's own, such as RN50-quickgelu")


def test_published_weights_are_fetched_as_safetensors_and_fed_as_their_entry_says(saved, named, monkeypatch):
    from open_clip import pretrained

    entry = {"hf_hub": "owner/tiny/", "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1), "resize_mode": "squash"}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-quickgelu", {"own": {**entry, "quick_gelu": True}})
    asked = []

    def fetched(**given):
        asked.append((given["repo_id"], given["allow_patterns"]))
        return str(saved["resnet"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    subject = find_image_text("open_clip:tiny-quickgelu@own", whole=False)
    assert asked == [("owner/tiny", ["open_clip_model.safetensors"])]
    assert (subject.name, subject.weights) == ("tiny-quickgelu-own", "open_clip 'own'")
    assert subject.preprocess.mean == (0.1, 0.2, 0.3)
    assert (subject.geometry.cuts_sides, subject.fed) == (False, "")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("RN50-quickgel@openai", "did you mean 'RN50-quickgelu'"),
        ("RN50-quickgelu@opneai", "'openai'"),
        ("RN50-quickgelu@no/such.pt", "there is no such file"),
        ("RN50-quickgelu", "which weights of RN50-quickgelu? write open_clip:RN50-quickgelu@TAG or @FILE"),
        ("", "no model ''"),
        ("coca_ViT-B-32@laion2b_s13b_b90k", "writes captions (CoCa), expected two towers"),
    ],
)
def test_an_unknown_model_is_refused(spec, words, no_network):
    assert words in refused(f"open_clip:{spec}")


def test_a_folder_without_config_or_weights_is_refused(folder, tmp_path):
    (folder / "open_clip_model.safetensors").unlink()
    assert "there are no weights in" in refused(f"open_clip:{folder}")
    (folder / "open_clip_config.json").write_text("{}", encoding="utf-8")
    assert "cannot read open_clip_config.json" in refused(f"open_clip:{folder}")


def test_without_the_package_one_line_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert refused(f"open_clip:{saved['vit']}").endswith("pip install open_clip_torch")


PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="&"), max_size=60)


@pytest.fixture(scope="module")
def real():
    """CLIP's tokeniser for transformers, rebuilt from open_clip's vocabulary."""
    return real_tokeniser()


@settings(max_examples=200)
@given(caption=PRINTABLE)
def test_the_rebuilt_tokeniser_gives_open_clips_ids(real, caption):
    """But for HTML entities: open_clip resolves them before it looks at the words."""
    theirs = open_clip.tokenize([caption], context_length=256)[0]
    assert real(caption)["input_ids"] == theirs[: int(theirs.argmax()) + 1].tolist()


def test_the_rebuilt_tokeniser_is_the_published_one(real):
    expected = [49406, 518, 736, 3055, 533, 525, 518, 1823, 539, 518, 1125, 49407]
    assert real("the red apple is on the left of the photo")["input_ids"] == expected
    assert len(real) == 49408


def test_a_folder_that_asks_for_code_of_its_own_is_refused_before_any_runs(folder):
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "anyone/anything",
        "tokenizer_kwargs": {"clean": "canonicalize", "trust_remote_code": True},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    tiny_tokeniser().save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n", encoding="utf-8")

    message = refusal(find_image_text, f"open_clip:{folder}")

    assert "'trust_remote_code'" in message
    assert not (folder / "ran").exists()


def test_weights_of_a_file_are_fed_as_the_published_ones_or_refused_where_those_differ(saved, named, monkeypatch):
    ways = {"a": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}, "b": {"mean": [0.4] * 3}}
    told = {"tags": ["a"]}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda _name: told["tags"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda _name, tag: ways.get(tag, {}))
    weights = saved["resnet"] / "open_clip_model.safetensors"

    found = find_image_text(f"open_clip:tiny-quickgelu@{weights}")
    assert (found.preprocess.mean, found.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)

    told["tags"] = ["a", "b"]
    message = refusal(find_image_text, f"open_clip:tiny-quickgelu@{weights}")
    assert "does not say how tiny-quickgelu is fed pictures" in message
    assert find_image_text("open_clip:tiny-quickgelu", weights="random:0")


def test_another_config_is_another_model_whatever_its_weights(folder):
    before = find_image_text(f"open_clip:{folder}")
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    config["model_cfg"]["quick_gelu"] = not config["model_cfg"].get("quick_gelu", False)
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    after = find_image_text(f"open_clip:{folder}")

    assert before.sha256 == after.sha256
    assert before.settings != after.settings
