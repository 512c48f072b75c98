"""Models that find phrases, through the loading code that users go through, offline."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from camcore.cost import metered
from camcore.errors import BadInput
from camcore.grounding import BoxFinder
from camcore.seeds import generator
from camcore.subject import Grounder
from fixtures.subjects.spec import find_grounder, find_subject
from tests.refusals import refusal as refused

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install camcore[clip]")

from camcore.models.mdetr.checkpoint import convert, load, read  # noqa: E402
from camcore.models.mdetr.processor import tokenizer_from  # noqa: E402
from camcore.models.mdetr.scoring import PhraseGrounder  # noqa: E402
from fixtures.subjects import mdetr  # noqa: E402
from fixtures.subjects.huggingface_grounders import FINDERS  # noqa: E402
from fixtures.subjects.huggingface_names import FIND_PHRASES, finds_phrases  # noqa: E402
from fixtures.vision_language.tiny_clip import save_tiny_clip  # noqa: E402
from fixtures.vision_language.tiny_grounders import save_tiny_grounder, save_tiny_mdetr, tiny_roberta  # noqa: E402

# transformers takes seconds to import
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default:.*:DeprecationWarning")]

LEFT, RIGHT, PHRASE = "the red mug is on the left", "the red mug is on the right", "the red mug"
OWLS = ("owlv2", "owlvit")


def picture(height: int = 80, width: int = 80) -> torch.Tensor:
    return torch.rand(3, height, width, generator=generator(0, "grounded"))


def refusal(spec: str, **options: str) -> str:
    return refused(find_grounder, spec, **options)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(mdetr, "SHORTER", 64)  # a forward at 800 pixels takes half a second


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with its tokeniser's files; not to be written to."""
    file = save_tiny_mdetr(tmp_path_factory.mktemp("mdetr"))
    yield file
    file.unlink()  # 90 MB, and pytest keeps the folders of three runs


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny models of transformers by their kind; not to be written to."""
    return {
        kind: save_tiny_grounder(tmp_path_factory.mktemp("models") / kind, kind=kind)
        for kind in ("grounding-dino", *OWLS)
    }


def edit(file: Path, **given) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **given}), encoding="utf-8")


def test_an_mdetr_is_its_network_with_the_averaged_weights_and_that_is_said(checkpoint) -> None:
    subject = find_grounder(f"mdetr:resnet18@{checkpoint}")

    assert isinstance(subject, Grounder)
    assert subject.weights.startswith("model_ema of mdetr_checkpoint.pth (file's sha256 ")
    assert len(subject.sha256) == 64
    assert not subject.module.training
    with metered() as cost:
        boxes, scores = subject.ground(picture(), LEFT, PHRASE)
    assert (cost.forwards, cost.backwards) == (1, 0)
    reference = PhraseGrounder(name="x", module=load(checkpoint).model, tokenizer=_built(), shorter=64)
    expected = reference.ground(picture(), LEFT, PHRASE)
    torch.testing.assert_close((boxes, scores), expected, rtol=0, atol=0)
    last = PhraseGrounder(name="x", module=load(checkpoint, prefer="model").model, tokenizer=_built(), shorter=64)
    assert not torch.equal(last.ground(picture(), LEFT, PHRASE)[0], boxes)


def _built():
    from tokenizers import processors

    made = tiny_roberta()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer_from(made)


def test_a_converted_checkpoint_is_the_same_model(checkpoint, tmp_path) -> None:
    convert(checkpoint, tmp_path / "mdetr.safetensors")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((checkpoint.parent / name).read_bytes())
    found, expected = (find_grounder(f"mdetr:resnet18@{file}") for file in (tmp_path / "mdetr.safetensors", checkpoint))

    assert found.sha256 == expected.sha256
    assert found.weights.startswith("model_ema of mdetr_checkpoint.pth")
    (tmp_path / "mdetr.safetensors").unlink()


def test_a_tokenizer_json_beside_the_weights_will_do(checkpoint, tmp_path) -> None:
    (tmp_path / "mdetr.pth").symlink_to(checkpoint)
    _built().save(str(tmp_path / "tokenizer.json"))
    found, expected = (find_grounder(f"mdetr:resnet18@{file}") for file in (tmp_path / "mdetr.pth", checkpoint))

    torch.testing.assert_close(found.ground(picture(), LEFT, PHRASE), expected.ground(picture(), LEFT, PHRASE))


def test_the_file_may_be_given_with_weights(checkpoint) -> None:
    by_option = find_grounder("mdetr:resnet18", weights=str(checkpoint))
    assert by_option.sha256 == find_grounder(f"mdetr:resnet18@{checkpoint}").sha256
    assert "leave it out" in refusal(f"mdetr:resnet18@{checkpoint}", weights=str(checkpoint))
    assert "needs a file" in refusal("mdetr:resnet18", weights="random:0")


def test_an_mdetr_of_another_name_is_refused(checkpoint) -> None:
    message = refusal(f"mdetr:resnet101@{checkpoint}")
    assert "expected the weights of resnet101" in message
    assert "they have a resnet18 and no heads for questions" in message
    assert "expected the weights of clevr" in refusal(f"mdetr:clevr@{checkpoint}")
    assert "did you mean 'resnet101'" in refusal(f"mdetr:resnet10@{checkpoint}")


def test_an_mdetr_without_a_file_is_told_where_there_is_one() -> None:
    message = refusal("mdetr:resnet101_refcoco")
    assert "mdetr:resnet101_refcoco@FILE" in message
    assert "mdetr_resnet101_refcoco_checkpoint.pth" in message
    assert "'no/such.pth' does not exist" in refusal("mdetr:resnet101@no/such.pth")


def test_without_a_tokeniser_beside_the_weights_and_on_the_hub_one_line_says_what_to_do(
    checkpoint, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "mdetr.pth").symlink_to(checkpoint)
    message = refusal(f"mdetr:resnet18@{tmp_path / 'mdetr.pth'}")
    assert "the tokeniser of FacebookAI/roberta-base" in message
    assert f"vocab.json and merges.txt beside the weights, in {str(tmp_path)!r}" in message


def test_the_tokeniser_comes_from_the_hub_where_none_lies_beside_the_weights(checkpoint, tmp_path, monkeypatch) -> None:
    asked = []

    def fetched(**given):
        asked.append(given)
        return str(checkpoint.parent)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    (tmp_path / "mdetr.pth").symlink_to(checkpoint)
    find_grounder(f"mdetr:resnet18@{tmp_path / 'mdetr.pth'}")
    assert [given["repo_id"] for given in asked] == ["FacebookAI/roberta-base"]
    assert asked[0]["allow_patterns"] == ["merges.txt", "vocab.json"]


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ("{", "cannot read vocab.json and merges.txt"),
        (json.dumps({"<s>": 0}), "cannot read vocab.json and merges.txt"),
    ],
)
def test_a_damaged_tokeniser_is_refused(checkpoint, tmp_path, vocabulary, words) -> None:
    (tmp_path / "mdetr.pth").symlink_to(checkpoint)
    (tmp_path / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    assert words in refusal(f"mdetr:resnet18@{tmp_path / 'mdetr.pth'}")


def test_a_tokeniser_of_another_vocabulary_is_refused(checkpoint, tmp_path) -> None:
    (tmp_path / "mdetr.pth").symlink_to(checkpoint)
    smaller = _built()
    smaller.add_tokens(["another"])
    smaller.save(str(tmp_path / "tokenizer.json"))
    assert "339; published models have" in refusal(f"mdetr:resnet18@{tmp_path / 'mdetr.pth'}")


def test_an_mdetr_scores_no_classes(checkpoint) -> None:
    with pytest.raises(BadInput, match="use find_grounder"):
        find_subject(f"mdetr:resnet18@{checkpoint}")


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


FACTORY = """
import torch
from torch import nn

class Corner:
    def __init__(self, found=None):
        self.found = found
        self.module = nn.Linear(2, 2)

    def ground(self, image, caption, phrase):
        return self.found or (torch.tensor([[0.0, 0.0, 5.0, 5.0]]), torch.tensor([len(phrase)]))

class Network(nn.Module):
    def ground(self, image, caption, phrase):
        return torch.zeros(0, 4), torch.zeros(0)

def corner(): return Corner()
def network(): return Network()
def shapeless(): return Corner((torch.zeros(3), torch.zeros(3)))
def infinite(): return Corner((torch.full((1, 4), torch.inf), torch.zeros(1)))
def lists(): return Corner(([[0, 0, 1, 1]], [1.0]))
def classifier():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY, encoding="utf-8")
    return f"py:{tmp_path / 'mine.py'}"


def test_whatever_has_a_method_ground_finds_phrases(factory) -> None:
    subject = find_grounder(f"{factory}:corner")

    assert isinstance(subject, BoxFinder)
    assert (subject.name, subject.geometry.crop) == ("mine-corner", (384, 384))
    assert "runs code from mine.py (sha256" in subject.unsafe[0]
    with metered() as cost:
        boxes, scores = subject.ground(picture(), LEFT, PHRASE)
    assert cost.forwards == 1
    assert (boxes.tolist(), scores.tolist()) == ([[0, 0, 5, 5]], [len(PHRASE)])
    assert find_grounder(f"{factory}:network").ground(picture(), LEFT, PHRASE)[0].shape == (0, 4)
    assert [*subject.module.state_dict()] == ["weight", "bias"]


def test_what_a_factorys_grounder_must_not_give(factory) -> None:
    assert "boxes (3,) and scores (3,), expected (n, 4) and (n,)" in refusal(f"{factory}:shapeless")
    assert "not finite" in refusal(f"{factory}:infinite")
    assert "gave list and list, expected tensors" in refusal(f"{factory}:lists")
    assert "no method ground(image, caption, phrase)" in refusal(f"{factory}:classifier")
    with pytest.raises(BadInput, match="finds phrases and scores no classes"):
        find_subject(f"{factory}:corner")


def test_an_unknown_kind_of_grounder_is_refused() -> None:
    assert "no kind 'open_clip' of models that find phrases" in refusal("open_clip:DIR")
    assert "finds nothing that a phrase names" in refusal("control:clip-oracle")
    message = refusal("hf:nobody/no-such-model")
    assert "hf download nobody/no-such-model --local-dir DIR" in message


def test_a_plain_read_of_a_tiny_checkpoint_has_both_sets_of_weights(checkpoint) -> None:
    assert {read(checkpoint, prefer=name).chosen for name in ("model", "model_ema")} == {"model", "model_ema"}
