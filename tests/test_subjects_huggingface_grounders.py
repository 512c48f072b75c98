"""transformers' models that find phrases, through the loading code that users go through, offline."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from camcore.cost import metered
from camcore.errors import BadInput
from fixtures.subjects.spec import find_grounder
from tests.grounded import LEFT, PHRASE, RIGHT, picture, refusal

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install camcore[clip]")

from fixtures.subjects.huggingface_grounders import FINDERS  # noqa: E402
from fixtures.subjects.huggingface_names import FIND_PHRASES, finds_phrases  # noqa: E402
from fixtures.vision_language.tiny_clip import save_tiny_clip  # noqa: E402
from fixtures.vision_language.tiny_grounders import save_tiny_grounder  # noqa: E402

# transformers takes seconds to import
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default:.*:DeprecationWarning"),
    pytest.mark.usefixtures("no_network"),
]
OWLS = ("owlv2", "owlvit")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny models of transformers by their kind; not to be written to."""
    return {
        kind: save_tiny_grounder(tmp_path_factory.mktemp("models") / kind, kind=kind)
        for kind in ("grounding-dino", *OWLS)
    }


@pytest.mark.parametrize("kind", ["grounding-dino", *OWLS])
def test_boxes_and_scores_are_those_of_the_librarys_own_processing(saved, kind) -> None:
    subject = find_grounder(f"hf:{saved[kind]}")
    image = picture(60, 90)
    with metered() as cost:
        boxes, scores = subject.ground(image, LEFT, PHRASE)
    assert (cost.forwards, len(boxes)) == (1, len(scores))

    architecture = transformers.AutoModelForZeroShotObjectDetection
    model = architecture.from_pretrained(saved[kind]).eval()
    tokeniser = transformers.AutoTokenizer.from_pretrained(saved[kind])
    processor = transformers.AutoImageProcessor.from_pretrained(saved[kind])
    pictures = processor(image, do_rescale=False, return_tensors="pt")
    if kind == "grounding-dino":
        tokens = tokeniser(f"{LEFT}.", return_tensors="pt")
    else:
        tokens = tokeniser([LEFT], padding="max_length", max_length=40, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**pictures, **tokens)
    if kind == "grounding-dino":
        outputs.logits = outputs.logits[..., 1:4]  # the, red, mug: after [CLS]
    ours = transformers.models
    post = {
        "grounding-dino": lambda: _dino_boxes(outputs, 60, 90),
        "owlv2": lambda: ours.owlv2.Owlv2ImageProcessor().post_process_object_detection(outputs, -1.0, [(60, 90)])[0],
        "owlvit": lambda: ours.owlvit.OwlViTImageProcessor().post_process_object_detection(outputs, -1.0, [(60, 90)])[
            0
        ],
    }[kind]()
    torch.testing.assert_close(scores, post["scores"])
    torch.testing.assert_close(boxes, post["boxes"], rtol=1e-4, atol=1e-3)


def _dino_boxes(outputs, height, width):
    from torchvision.ops import box_convert

    boxes = box_convert(outputs.pred_boxes[0], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    return {"scores": outputs.logits[0].sigmoid().max(1).values, "boxes": boxes}


@pytest.mark.parametrize("kind", OWLS)
def test_an_owl_draws_the_same_boxes_whatever_is_said_and_scores_them_otherwise(saved, kind) -> None:
    subject = find_grounder(f"hf:{saved[kind]}")
    (boxes, scores), (same, others) = (subject.ground(picture(), caption, PHRASE) for caption in (LEFT, RIGHT))

    assert torch.equal(boxes, same)
    assert (scores - others).abs().max() > 1e-4


def test_a_grounding_dino_reads_the_whole_caption_whatever_its_case(saved) -> None:
    subject = find_grounder(f"hf:{saved['grounding-dino']}")
    left, right, loud, stopped = (
        subject.ground(picture(), caption, phrase)
        for caption, phrase in ((LEFT, PHRASE), (RIGHT, PHRASE), (LEFT.upper(), "The red mug"), (f"{LEFT}.", PHRASE))
    )

    assert (left[0] - right[0]).abs().max() > 1e-3
    assert (left[1] - right[1]).abs().max() > 1e-4
    torch.testing.assert_close(loud, left)
    torch.testing.assert_close(stopped, left)
    other = subject.ground(picture(), LEFT, "the left")
    assert (other[1] - left[1]).abs().max() > 1e-4


def test_without_its_full_stop_a_grounding_dino_would_read_words_one_by_one(saved) -> None:
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(saved["grounding-dino"])
    tokeniser = transformers.AutoTokenizer.from_pretrained(saved["grounding-dino"])
    from transformers.models.grounding_dino.modeling_grounding_dino import (
        SPECIAL_TOKENS,
        generate_masks_with_special_tokens_and_transfer_map,
    )

    special = torch.tensor(SPECIAL_TOKENS)
    seen = [
        generate_masks_with_special_tokens_and_transfer_map(tokeniser(said, return_tensors="pt")["input_ids"], special)
        for said in (LEFT, f"{LEFT}.")
    ]
    assert [int(mask[0, 2].sum()) for mask, _ in seen] == [1, 8]  # what "red" sees: itself; the sentence and its stop
    assert model.config.model_type == "grounding-dino"


def test_kernels_of_the_hub_are_never_asked_for(saved) -> None:
    assert not json.loads((saved["grounding-dino"] / "config.json").read_text()).get("disable_custom_kernels")
    assert find_grounder(f"hf:{saved['grounding-dino']}").module.config.disable_custom_kernels


def test_captions_and_phrases_that_cannot_be_read_are_refused(saved) -> None:
    for kind in ("grounding-dino", *OWLS):
        subject = find_grounder(f"hf:{saved[kind]}")
        with pytest.raises(BadInput, match="expected 'a cat' in"):
            subject.ground(picture(), LEFT, "a cat")
        with pytest.raises(BadInput, match="expected a caption of at most"):
            subject.ground(picture(), " ".join(["mug"] * 80 + ["cat"]), "cat")


def test_the_tokeniser_of_another_bert_is_refused(tmp_path) -> None:
    folder = save_tiny_grounder(tmp_path / "dino")
    transformers.BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}).save_pretrained(
        folder
    )
    assert "expected the tokeniser of BERT, uncased" in refusal(f"hf:{folder}")


def test_weights_that_are_missing_or_of_another_kind_are_refused(tmp_path) -> None:
    folder = save_tiny_grounder(tmp_path / "owl", kind="owlv2")
    state = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in state.items() if "class_head" not in key}, folder / "model.safetensors")
    assert "missing keys" in refusal(f"hf:{folder}")
    (folder / "model.safetensors").unlink()
    assert "cannot read the weights" in refusal(f"hf:{folder}")


def test_a_clip_is_no_grounder_and_a_grounder_no_clip(saved, tmp_path) -> None:
    clip = save_tiny_clip(tmp_path / "clip")
    assert "holds a model of type 'clip', expected one that finds phrases" in refusal(f"hf:{clip}")
    assert [finds_phrases(str(folder)) for folder in (clip, saved["owlv2"], tmp_path / "none")] == [False, True, False]
    (clip / "config.json").write_text("[]", encoding="utf-8")
    assert not finds_phrases(str(clip))
    assert set(FINDERS) == set(FIND_PHRASES)


def test_random_weights_take_the_place_of_the_folders(saved) -> None:
    first, again, other = (find_grounder(f"hf:{saved['owlv2']}", weights=f"random:{seed}") for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    assert first.weights == "random:0"


def test_an_unknown_kind_of_grounder_is_refused() -> None:
    assert "no kind 'open_clip' of models that find phrases" in refusal("open_clip:DIR")
    assert "finds nothing that a phrase names" in refusal("control:clip-oracle")
    message = refusal("hf:nobody/no-such-model")
    assert "hf download nobody/no-such-model --local-dir DIR" in message
