import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from camcore import as_classifier, cam, record
from camcore.cost import metered
from camcore.errors import BadInput
from camcore.seeds import generator
from fixtures.subjects.spec import find_image_text, find_subject, made_ready
from tests.refusals import refusal

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install camcore[clip]")

from fixtures.vision_language.tiny_clip import CONFIGS, PATCH, SIDE, save_tiny_clip  # noqa: E402
from fixtures.vision_language.tokenisers import template_captions, tiny_tokeniser  # noqa: E402

# transformers takes seconds to import
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default:.*:DeprecationWarning")]

LEFT, RIGHT = "the red mug is on the left of the photo", "the red mug is on the right of the photo"
CAPTIONS = (LEFT, RIGHT, "a photo of a blue dog.")
LAYERS = {
    "clip": ("encoder.model.vision_model.encoder.layers.1.layer_norm1", 1),
    "metaclip_2": ("encoder.model.vision_model.encoder.layers.1.layer_norm1", 1),
    "siglip": ("encoder.model.vision_model.post_layernorm", 0),
    "siglip2": ("encoder.model.vision_model.post_layernorm", 0),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny models by their kind; not to be written to."""
    return {kind: save_tiny_clip(tmp_path_factory.mktemp("models") / kind, kind=kind) for kind in CONFIGS}


@pytest.fixture
def folder(tmp_path):
    """A tiny CLIP of the test's own, to be damaged."""
    return save_tiny_clip(tmp_path / "tiny")


def some_images(count=2):
    return torch.rand(count, 3, SIDE, SIDE, generator=generator(0, "tiny clip"))


refused = partial(refusal, find_image_text)


def edit(file: Path, **given):
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **given}), encoding="utf-8")


def as_transformers_scores(folder, images):
    """logits_per_image of the model as its library loads and feeds it, captions as its processor would pad them."""
    model = transformers.AutoModelForZeroShotImageClassification.from_pretrained(folder)
    tokeniser = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pictures = processor(list(images), do_rescale=False, return_tensors="pt")
    words = tokeniser(list(CAPTIONS), padding="max_length", max_length=64, return_tensors="pt")
    if model.config.model_type.startswith("siglip"):
        del words["attention_mask"]  # as their repositories' model_input_names have it
    with torch.no_grad():
        return model(**pictures, **words).logits_per_image


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_scores_are_those_of_transformers(saved, kind):
    subject, images = find_image_text(f"hf:{saved[kind]}"), some_images()
    with torch.no_grad():
        found, logits = subject.similarity(images, CAPTIONS), as_classifier(subject, CAPTIONS).logits(images)
    expected = as_transformers_scores(saved[kind], images)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    own = found if kind.startswith("siglip") else found * subject.scale / 100
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_layer_whose_patches_are_read_is_found_and_its_contrast_is_a_map(saved, kind):
    classifier = as_classifier(find_image_text(f"hf:{saved[kind]}"), CAPTIONS)
    layer, prefix = LAYERS[kind]
    assert classifier.target_layer == layer
    grid = classifier.grid
    assert (grid.height, grid.width, grid.prefix) == (SIDE // PATCH, SIDE // PATCH, prefix)
    left, right = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    rec = record(classifier, some_images(), left, against=right)
    for method in (cam.gradcam, cam.hirescam):
        assert method(rec).flatten(1).abs().amax(1).min() > 0


def test_the_last_block_of_a_clip_says_nothing_and_is_refused_as_a_target(saved):
    subject = find_image_text(f"hf:{saved['clip']}")
    with pytest.raises(BadInput, match="zero gradient everywhere"):
        as_classifier(subject, CAPTIONS, layer="encoder.model.vision_model.encoder.layers.1")


def test_a_subject_is_ready_to_be_asked(saved):
    spec = f"hf:{saved['clip']}"
    subject = find_image_text(spec)
    assert (subject.name, subject.spec, subject.weights, subject.unsafe) == ("clip", spec, "folder clip", ())
    assert not subject.module.training
    assert subject.sha256 == find_image_text(spec).sha256
    with metered() as cost:
        subject.similarity(some_images(3), CAPTIONS)
    assert (cost.forwards, cost.backwards) == (3, 0)


def test_whole_pictures_are_squashed_unless_the_processors_crop_is_asked_for(saved):
    whole, cut = (find_image_text(f"hf:{saved['clip']}", whole=whole) for whole in (True, False))
    assert not whole.geometry.cuts_sides
    assert whole.fed == f"squashed to {SIDE}x{SIDE}; its processor would cut the picture to the middle"
    assert (cut.geometry.cuts_sides, cut.geometry.resize, cut.fed) == (True, SIDE, "")
    siglip = find_image_text(f"hf:{saved['siglip']}", whole=False)
    assert (siglip.geometry.cuts_sides, siglip.fed) == (False, "")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_photograph_is_fed_as_the_processor_feeds_it(saved, kind):
    subject = find_image_text(f"hf:{saved[kind]}", whole=False)
    photograph = torch.rand(3, 9, 12, generator=generator(0, "photograph"))
    photograph = torch.nn.functional.interpolate(photograph[None], (90, 120), mode="bilinear")[0] * 0.6 + 0.2
    processor = transformers.AutoImageProcessor.from_pretrained(saved[kind])
    expected = processor(photograph, do_rescale=False, return_tensors="pt")["pixel_values"]
    found = subject.preprocess(subject.geometry.fit(photograph)[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_the_default_end_of_text_of_another_vocabulary_is_refused(tmp_path):
    folder = save_tiny_clip(tmp_path / "trap", eos_token_id=49407)
    assert "the same embedding" in (message := refused(f"hf:{folder}"))
    assert "eos_token_id" in message


def test_a_caption_that_is_longer_than_the_model_reads_is_refused(saved):
    subject = find_image_text(f"hf:{saved['clip']}")
    with pytest.raises(ValueError, match=r"the caption 'dog dog .* has 72 tokens, the model reads 64; shorten it"):
        subject.similarity(some_images(1), [" ".join(["dog"] * 70)])


def test_random_weights_and_weights_of_a_file_take_the_place_of_the_folders(saved, tmp_path):
    spec = f"hf:{saved['clip']}"
    first, again, other = (find_image_text(spec, weights=f"random:{seed}") for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    assert first.weights == "random:0"
    torch.save(first.module.state_dict(), tmp_path / "own.pt")
    own = find_image_text(spec, weights=str(tmp_path / "own.pt"))
    assert (own.sha256, own.weights) == (first.sha256, "file own.pt")


def test_a_plain_state_dict_is_read_where_there_are_no_safetensors_and_a_pickle_is_not_run(folder):
    before = find_image_text(f"hf:{folder}")
    (folder / "model.safetensors").unlink()
    torch.save(before.module.state_dict(), folder / "pytorch_model.bin")
    assert find_image_text(f"hf:{folder}").sha256 == before.sha256
    torch.save({**before.module.state_dict(), "logit_scale": subprocess.Popen}, folder / "pytorch_model.bin")
    message = refused(f"hf:{folder}")
    assert "cannot read the weights" in message
    assert "UnpicklingError" in message or "weights_only" in message


def test_weights_that_a_library_would_draw_at_random_are_refused(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    message = refused(f"hf:{folder}")
    assert "1 missing keys: visual_projection.weight" in message
    assert "another architecture" in message


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "cannot read the model's config.json"),
        ("preprocessor_config.json", "cannot read the picture's preprocessor_config.json"),
        ("model.safetensors", "cannot read the weights"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_without_asking_a_hub(folder, no_network, file, words):
    (folder / file).unlink()
    assert words in refused(f"hf:{folder}")


def test_damaged_files_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert "cannot read the weights" in refused(f"hf:{folder}")
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert "cannot read the model's config.json" in refused(f"hf:{folder}")


@pytest.mark.parametrize(
    ("file", "given", "words"),
    [
        ("config.json", {"model_type": "vit"}, "a model of type 'vit', expected one of images and captions: align, "),
        ("preprocessor_config.json", {"resample": 1}, "resamples by Pillow's method 1"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "scales pixels by 1.0, expected 1/255"),
        ("preprocessor_config.json", {"crop_size": {"height": 32, "width": 32}}, "does not score one 32x32 picture"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused(folder, file, given, words):
    edit(folder / file, **given)
    assert words in refused(f"hf:{folder}")


def test_code_that_a_repository_brings_along_is_not_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('run')", encoding="utf-8")
    edit(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.EvilConfig"})
    assert "cannot read the model's config.json" in refused(f"hf:{folder}")


def test_without_a_network_a_name_on_the_hub_ends_in_one_line(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refused("hf:nobody/no-such-clip@abc123")
    assert "nobody/no-such-clip" in message
    assert "the hub is out of reach, and its cache holds no copy" in message
    assert "hf download nobody/no-such-clip --local-dir DIR" in message
    assert len(message) < 300
    assert "give hf:DIR" in message


def test_a_name_on_the_hub_is_fetched_at_its_revision_without_pickles(folder, monkeypatch):
    asked = []

    def fetched(**given):
        asked.append(given)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    subject = find_image_text("hf:owner/tiny@abc123")
    assert [(given["repo_id"], given["revision"]) for given in asked] == [("owner/tiny", "abc123")]
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked[0]["allow_patterns"])
    assert (subject.name, subject.weights) == ("owner-tiny-abc123", "hub owner/tiny at tiny")


@pytest.mark.parametrize("spec", ["hf:", "hf:no such folder", "hf:./no/such/folder", "hf:../up"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(spec, no_network):
    message = refused(spec)
    assert "there is no folder" in message
    assert "hf:OWNER/NAME@REV" in message


def test_an_unknown_kind_of_model_is_refused():
    assert "no kind 'clip'" in (message := refused("clip:DIR"))
    assert "did you mean 'open_clip'?" in message
    assert "'torchvision'" in (message := refused("resnet50"))
    assert "known: control, hf, open_clip" in message


def test_questions_about_classes_are_told_how_to_ask(saved):
    with pytest.raises(BadInput, match=r"camcore\.as_classifier\(find_image_text"):
        find_subject(f"hf:{saved['clip']}")


def test_without_the_package_one_line_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert refused(f"hf:{saved['clip']}").endswith("pip install transformers")


def test_the_loaders_are_imported_without_what_they_load_with():
    code = (
        "import sys, camcore; early = {'transformers', 'open_clip', 'torchvision'} & set(sys.modules);"
        "from fixtures.subjects import spec; spec.import_families();"
        "print(early, {'transformers', 'open_clip', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["set()", "set()"]


def test_the_tiny_tokeniser_knows_every_byte_and_ends_with_the_end_of_text():
    tokeniser = tiny_tokeniser()
    assert tokeniser.eos_token_id == len(tokeniser) - 1
    for caption in ("Zürich at 12 o'clock: \x7f 猫 🐈", *template_captions()[:5]):
        ids = tokeniser(caption)["input_ids"]
        assert ids[0] == tokeniser.bos_token_id
        assert ids.index(tokeniser.eos_token_id) == len(ids) - 1
        assert tokeniser.decode(ids, skip_special_tokens=True).replace(" ", "") == caption.lower().replace(" ", "")


def test_another_config_or_vocabulary_is_another_model_whatever_its_weights(folder):
    before = find_image_text(f"hf:{folder}")
    again = find_image_text(f"hf:{folder}")
    edit(folder / "config.json", note="something else")
    after = find_image_text(f"hf:{folder}")

    assert before.sha256 == after.sha256
    assert before.settings == again.settings != after.settings
    assert as_classifier(before, CAPTIONS).settings == before.settings


def test_a_tokeniser_that_says_lower_case_gets_it(folder):
    edit(folder / "tokenizer_config.json", do_lower_case=True)
    subject = find_image_text(f"hf:{folder}")

    said = [subject.tokenise([caption])["input_ids"] for caption in ("A Red MUG", "a red mug")]
    assert torch.equal(*said)


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_a_siglip_reads_its_padding_whether_or_not_its_tokeniser_returns_a_mask(tmp_path, kind):
    """Saved anew, a tokeniser of theirs returns one; with it every caption's score would be another."""
    folder, images, found = save_tiny_clip(tmp_path / kind, kind=kind), some_images(), []
    for named in (["input_ids", "attention_mask"], ["input_ids"]):
        edit(folder / "tokenizer_config.json", model_input_names=named)
        returned = transformers.AutoTokenizer.from_pretrained(folder)("a mug", padding="max_length", max_length=64)
        assert sorted(returned) == sorted(named)
        subject = find_image_text(f"hf:{folder}")
        assert list(subject.tokenise([LEFT])) == ["input_ids"]
        found.append(subject.similarity(images, CAPTIONS).detach())
    assert torch.equal(*found)
    words = transformers.AutoTokenizer.from_pretrained(folder)(
        list(CAPTIONS), padding="max_length", max_length=64, return_attention_mask=True, return_tensors="pt"
    )
    masked = torch.nn.functional.normalize(subject.module.get_text_features(**words).pooler_output.detach(), dim=1)
    assert (masked - subject.embed_captions(CAPTIONS)).abs().max() > 1e-3


def test_a_clip_is_given_the_mask_that_its_tokeniser_returns(saved):
    assert set(find_image_text(f"hf:{saved['clip']}").tokenise([LEFT])) == {"input_ids", "attention_mask"}


def test_a_tokeniser_that_tells_nothing_apart_is_refused(saved):
    subject = find_image_text(f"hf:{saved['clip']}")
    unknown = replace(subject, tokenise=lambda captions: subject.tokenise(["?"] * len(captions)))
    message = refusal(made_ready, unknown, subject.spec, device="cpu")
    assert "the same embedding" in message
    assert "its tokeniser gives both the same tokens" in message


def test_positions_that_earlier_versions_saved_are_left_out_of_a_file(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(saved["clip"] / "model.safetensors")
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(state, tmp_path / "old.safetensors")
    found = find_image_text(f"hf:{saved['clip']}", weights=str(tmp_path / "old.safetensors"))

    assert found.sha256 == find_image_text(f"hf:{saved['clip']}").sha256
    save_file({**state, "visual.strange": torch.zeros(1)}, tmp_path / "strange.safetensors")
    assert "visual.strange" in refused(f"hf:{saved['clip']}", weights=str(tmp_path / "strange.safetensors"))


def test_a_siglip_with_its_own_kind_of_vocabulary_is_read(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs sentencepiece: pip install camcore[clip]")
    folder = save_tiny_clip(tmp_path / "siglip", kind="siglip")
    (tmp_path / "said.txt").write_text("\n".join([*CAPTIONS, *template_captions()] * 3), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "said.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    (folder / "tokenizer.json").unlink()
    kind = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**kind, "do_lower_case": True}), encoding="utf-8")
    subject = find_image_text(f"hf:{folder}")

    said = [subject.tokenise([caption])["input_ids"] for caption in ("A Red MUG", "a red mug", "a blue mug")]
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[1], said[2])
