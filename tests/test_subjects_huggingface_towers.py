"""Two towers of transformers that are no CLIP, against the library's own forward, fed by each one's own processor."""

import json
import math
from functools import partial

import pytest
import torch

from camcore import as_classifier, cam, record
from camcore.errors import TooLong
from camcore.grid import Grid
from camcore.prompted import with_map
from camcore.seeds import generator
from fixtures.subjects.spec import find_image_text
from tests.refusals import refusal

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install camcore[clip]")

from fixtures.subjects.huggingface import quiet_transformers  # noqa: E402
from fixtures.subjects.huggingface_towers import FAMILIES, REFUSED, SHORT  # noqa: E402
from fixtures.vision_language.tiny_clip import CONFIGS, PATCH, SIDE  # noqa: E402
from fixtures.vision_language.tiny_towers import LONGEST, MADE, save_tiny_towers  # noqa: E402

# transformers takes seconds to import
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default:.*:DeprecationWarning"),
    pytest.mark.usefixtures("no_network"),
]

KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            kind == "tipsv2" and not hasattr(transformers, "Tipsv2Model"), reason="TIPSv2 needs a later transformers"
        ),
    )
    for kind in MADE
]
LEFT, RIGHT = "the red mug is on the left of the photo", "the red mug is on the right of the photo"
CAPTIONS = (LEFT, RIGHT, "a photo of a blue dog.", "dog")  # of unlike lengths, so that most are padded
LAYERS = {  # and how many tokens stand before the patches
    "altclip": ("encoder.layers.1.layer_norm1", 1),
    "blip": ("encoder.layers.1.layer_norm1", 1),
    "blip for retrieval": ("encoder.layers.1.layer_norm1", 1),
    "chinese_clip": ("encoder.layers.1.layer_norm1", 1),
    "clipseg": ("encoder.layers.1.layer_norm1", 1),
    "tipsv2": ("encoder.layer.1.norm1", 2),
}
refused = partial(refusal, find_image_text)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model's folder by its kind, made when first asked for; not to be written to."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = save_tiny_towers(tmp_path_factory.mktemp("models") / kind.replace(" ", "_"), kind=kind)
        return made[kind]

    return folder


def some_pictures(count=3):
    """In whole numbers from 0 to 255, as processors take them."""
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator(0, "tiny towers"))


def own_scores(folder, kind, pictures, captions):
    """logits_per_image of the model as its library loads it, fed by the processor that is saved with it."""
    retrieves = kind == "blip for retrieval"
    architecture = FAMILIES[kind].architecture
    with quiet_transformers():
        model = getattr(transformers, architecture).from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    fitting = {"do_resize": False} if kind == "align" else {}  # it would cut the middle out of what is larger
    given = processor(images=list(pictures), text=list(captions), padding="longest", return_tensors="pt", **fitting)
    with torch.no_grad():
        found = model(**given, **({"use_itm_head": False} if retrieves else {}))
    return found.itm_score if retrieves else found.logits_per_image


def edit(file, **given):
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **given}), encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_are_the_models_own_fed_by_its_own_processor(saved, kind):
    subject, pictures = find_image_text(f"hf:{saved(kind)}"), some_pictures()
    with torch.no_grad():
        found = subject.similarity(pictures / 255, CAPTIONS)
        logits = as_classifier(subject, CAPTIONS).logits(pictures / 255)
    expected = own_scores(saved(kind), kind, pictures, CAPTIONS)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3
    own = 1 if kind == "blip for retrieval" else subject.scale  # its own score is the cosine
    torch.testing.assert_close(found * own / 100, expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(logits * own / subject.scale, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_by_prompts_scores_as_the_model_scores_the_prompts(saved, kind):
    subject, pictures = find_image_text(f"hf:{saved(kind)}"), some_pictures()
    classifier = as_classifier(subject, ("red mug", "dog"), templates=["a photo of a {}."])
    with torch.no_grad():
        found = classifier.logits(pictures / 255)
    expected = own_scores(saved(kind), kind, pictures, ["a photo of a red mug.", "a photo of a dog."])
    own = 1 if kind == "blip for retrieval" else subject.scale
    torch.testing.assert_close(found * own / subject.scale, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_that_is_read_last_is_found_and_its_contrast_is_a_map(saved, kind):
    classifier = as_classifier(with_map(find_image_text(f"hf:{saved(kind)}")), CAPTIONS)
    if kind == "align":
        # not the last convolution, which is a branch: what it is added to is pooled with it
        layer, grid = "encoder.blocks.2", Grid(layout="channels_first", height=SIDE // 4, width=SIDE // 4)
    else:
        layer, prefix = LAYERS[kind]
        grid = Grid(layout="tokens", height=SIDE // PATCH, width=SIDE // PATCH, prefix=prefix)
    assert (classifier.target_layer, classifier.grid) == (f"encoder.model.vision_model.{layer}", grid)
    assert classifier.placement.source == "traced"
    left, right = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    rec = record(classifier, some_pictures(2) / 255, left, against=right)
    for method in (cam.gradcam, cam.hirescam):
        assert method(rec).flatten(1).abs().amax(1).min() > 0


def test_all_of_what_align_pools_is_in_its_map(saved):
    subject = as_classifier(find_image_text(f"hf:{saved('align')}"), CAPTIONS)
    images, zero = some_pictures(2) / 255, torch.zeros(2, dtype=torch.long)
    embedded = subject.module.encoder(subject.preprocess(images))
    torch.testing.assert_close(record(subject, images, zero).activations.mean((-2, -1)), embedded)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_passed_whatever_the_saved_tokeniser_returns(tmp_path, kind):
    """And no types of tokens, which are all of the first: some text towers take none."""
    folder, found = save_tiny_towers(tmp_path / "tiny", kind=kind), []
    for named in (["input_ids"], ["input_ids", "token_type_ids", "attention_mask"]):
        edit(folder / "tokenizer_config.json", model_input_names=named)
        subject = find_image_text(f"hf:{folder}")
        assert set(subject.tokenise([LEFT])) == {"input_ids", "attention_mask"}
        found.append(subject.embed_captions(CAPTIONS))
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_stands_behind_a_caption_wherever_the_saved_tokeniser_puts_it(saved, tmp_path, kind):
    folder = save_tiny_towers(tmp_path / "tiny", kind=kind)
    edit(folder / "tokenizer_config.json", padding_side="left")
    assert transformers.AutoTokenizer.from_pretrained(folder).padding_side == "left"
    found, expected = (find_image_text(f"hf:{one}").embed_captions(CAPTIONS) for one in (folder, saved(kind)))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_captions_score_does_not_depend_on_those_beside_it(saved, kind):
    subject, images = find_image_text(f"hf:{saved(kind)}"), some_pictures() / 255
    with torch.no_grad():
        together, alone = subject.similarity(images, CAPTIONS), subject.similarity(images, CAPTIONS[-1:])
    torch.testing.assert_close(together[:, -1:], alone, rtol=1e-6, atol=1e-4)  # of 100


@pytest.mark.parametrize("kind", ["align", "altclip", "blip", "blip for retrieval", "chinese_clip"])
def test_a_caption_longer_than_others_are_padded_to_is_read_to_its_end(saved, kind):
    subject, pictures = find_image_text(f"hf:{saved(kind)}"), some_pictures()
    reads = LONGEST - 2 if kind == "altclip" else LONGEST  # RoBERTa's first positions are for what is no text
    long = [" ".join(["dog"] * (reads - 3) + [last]) for last in ("mug", "cat")]  # and a token at either end
    ids = subject.tokenise([*long, "dog"])["input_ids"]
    assert subject.tokenise(["dog"])["input_ids"].shape == (1, SHORT)
    assert ids.shape == (3, reads)
    with torch.no_grad():
        found = subject.similarity(pictures / 255, [*long, "dog"])
    expected = own_scores(saved(kind), kind, pictures, [*long, "dog"])
    scale = 1 if kind == "blip for retrieval" else subject.scale
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-4
    torch.testing.assert_close(found * scale / 100, expected, rtol=1e-6, atol=1e-5)
    with pytest.raises(TooLong, match=rf"has {reads + 1} tokens, the model reads {reads}; shorten it"):
        subject.similarity(pictures / 255, [f"{long[0]} dog"])


def test_a_caption_longer_than_the_tokeniser_says_is_refused_though_there_are_positions(tmp_path):
    folder = save_tiny_towers(tmp_path / "tiny", kind="align")
    edit(folder / "tokenizer_config.json", model_max_length=12)
    subject = find_image_text(f"hf:{folder}")
    assert subject.tokenise(["dog " * 10])["input_ids"].shape == (1, 12)
    with pytest.raises(TooLong, match=r"has 13 tokens, the model reads 12; shorten it"):
        subject.tokenise(["dog " * 11])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_file_are_those_of_the_folder_under_whichever_of_their_names(saved, tmp_path, kind):
    """The file's own names are not always the network's: parts were renamed, or belong to a larger network."""
    spec, file = f"hf:{saved(kind)}", tmp_path / "own.pt"
    subject = find_image_text(spec)
    torch.save(subject.module.state_dict(), file)
    for weights in (file, saved(kind) / "model.safetensors"):
        assert find_image_text(spec, weights=str(weights)).sha256 == subject.sha256
    torch.save({**subject.module.state_dict(), "visual.strange": torch.zeros(1)}, file)
    assert "1 unexpected keys: visual.strange" in refused(spec, weights=str(file))
    first, again, other = (find_image_text(spec, weights=f"random:{seed}").sha256 for seed in (0, 0, 1))
    assert first == again
    assert len({first, other, subject.sha256}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_lacks_a_weight_of_either_tower_is_refused(tmp_path, kind):
    from safetensors.torch import load_file, save_file

    folder = save_tiny_towers(tmp_path / "tiny", kind=kind)
    whole = load_file(folder / "model.safetensors")
    for tower in ("text", "vision"):
        name = next(name for name in whole if f"{tower}_" in name and name.endswith("weight"))
        state = {key: value for key, value in whole.items() if key != name}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        assert "1 missing keys: " in refused(f"hf:{folder}")
    old = {**whole, "text_model.embeddings.position_ids": torch.arange(LONGEST)[None]}
    if kind in ("align", "altclip", "blip", "chinese_clip"):  # which were published when positions were saved
        save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
        find_image_text(f"hf:{folder}")


def test_a_tips_is_published_without_its_temperature_which_is_its_configs(tmp_path):
    pytest.importorskip("transformers.models.tipsv2", reason="TIPSv2 needs a later transformers")
    from safetensors.torch import load_file, save_file

    folder = save_tiny_towers(tmp_path / "tiny", kind="tipsv2")
    state = load_file(folder / "model.safetensors")
    del state["temperature"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", temperature_init_value=0.25)
    assert find_image_text(f"hf:{folder}").scale == 4
    assert find_image_text(f"hf:{folder}", weights=str(folder / "model.safetensors")).scale == 4


@pytest.mark.parametrize(("temperature", "scale"), [(0.0, "inf"), (-0.5, "-2.0"), (math.nan, "nan")])
def test_a_temperature_that_none_can_be_is_refused(tmp_path, temperature, scale):
    folder = save_tiny_towers(tmp_path / "tiny", kind="align")
    model = find_image_text(f"hf:{folder}").module
    torch.save({**model.state_dict(), "temperature": torch.tensor(temperature)}, tmp_path / "own.pt")
    assert f"multiplies cosines by {scale}, expected" in refused(f"hf:{folder}", weights=str(tmp_path / "own.pt"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"include_top": True},
        {"do_normalize": True},
        {"rescale_offset": False, "rescale_factor": 1 / 255},
        {"rescale_offset": False, "rescale_factor": 1 / 255, "do_normalize": True, "include_top": True},
    ],
)
def test_aligns_pixels_are_scaled_as_an_efficientnets_processor_does(tmp_path, given):
    folder = save_tiny_towers(tmp_path / "tiny", kind="align")
    file = folder / "processor_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    edit(file, image_processor={**told["image_processor"], **given})
    subject, pictures = find_image_text(f"hf:{folder}"), some_pictures()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    expected = processor(list(pictures), do_resize=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(subject.preprocess(pictures / 255), expected, rtol=1e-5, atol=1e-5)
    edit(file, image_processor={**told["image_processor"], "rescale_offset": True, "rescale_factor": 1 / 255})
    assert "expected 2/255: pictures in [0, 2]" in refused(f"hf:{folder}")


def test_how_align_cuts_pictures_is_said(saved):
    whole, cut = (find_image_text(f"hf:{saved('align')}", whole=whole) for whole in (True, False))
    assert (whole.geometry.squash, whole.geometry.crop) == (True, (SIDE, SIDE))
    assert whole.fed == f"squashed to {SIDE}x{SIDE}; its processor would cut the picture to the middle"
    assert (cut.geometry.resize, cut.geometry.crop) == (SIDE + 10, (SIDE, SIDE))
    assert cut.fed == "cut to the middle; its processor would squash the picture before that"
    blobs = torch.nn.functional.interpolate(some_pictures(1)[:, :, :9, :9] / 255, (90, 90), mode="bilinear")
    square = (blobs[0] * 200).to(torch.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(saved("align"))
    expected = processor(square, return_tensors="pt")["pixel_values"]
    found = cut.preprocess(cut.geometry.fit(square / 255)[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * 2 / 255)  # of 2; it rounds to whole numbers in between


def test_a_clipseg_is_read_at_its_end_of_text_the_old_way_and_the_new(tmp_path):
    folder, pictures = save_tiny_towers(tmp_path / "tiny", kind="clipseg"), some_pictures()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = []
    for end in (config["text_config"]["eos_token_id"], 2):  # 2: where the largest number is, as in old configs
        edit(folder / "config.json", text_config={**config["text_config"], "eos_token_id": end})
        subject = find_image_text(f"hf:{folder}")
        found.append(subject.similarity(pictures / 255, CAPTIONS).detach() * subject.scale / 100)
        expected = own_scores(folder, "clipseg", pictures, CAPTIONS)
        torch.testing.assert_close(found[-1], expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(*found)
    edit(folder / "config.json", text_config={**config["text_config"], "eos_token_id": 49407})
    assert "correct eos_token_id in its config" in refused(f"hf:{folder}")


def test_every_family_has_a_tiny_model_of_its_kind():
    assert set(FAMILIES) == set(MADE) | set(CONFIGS)
    known = transformers.models.auto.modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    assert set(known) <= set(FAMILIES) | set(REFUSED)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("Blip2Config", "type 'blip-2', which scores a caption by the likest of several embeddings of the picture"),
        ("VideoPrismConfig", "type 'videoprism', which reads videos, expected one of images and captions: align, "),
    ],
)
def test_what_has_no_single_embedding_of_a_picture_is_refused(tmp_path, config, words):
    if not hasattr(transformers, config):
        pytest.skip(f"{config} needs a later transformers")
    getattr(transformers, config)().save_pretrained(tmp_path)
    assert words in refused(f"hf:{tmp_path}")


@pytest.mark.parametrize("architecture", ["BlipForConditionalGeneration", "BlipForQuestionAnswering"])
def test_a_blip_that_writes_is_refused(tmp_path, architecture):
    folder = save_tiny_towers(tmp_path / "tiny", kind="blip")
    edit(folder / "config.json", architectures=[architecture])
    message = refused(f"hf:{folder}")
    assert "type 'blip', which writes text" in message
    assert "BlipForImageTextRetrieval" in message
