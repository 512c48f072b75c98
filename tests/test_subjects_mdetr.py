"""MDETR through the loading code that users go through, offline: its checkpoints and its tokeniser."""

import json

import pytest
import torch

from camcore.cost import metered
from camcore.errors import BadInput
from camcore.subject import Grounder
from fixtures.subjects.spec import find_grounder, find_subject
from tests.grounded import LEFT, PHRASE, picture, refusal

pytest.importorskip("transformers", reason="needs transformers: pip install camcore[clip]")

from camcore.models.mdetr.checkpoint import convert, load, read
from camcore.models.mdetr.processor import tokenizer_from
from camcore.models.mdetr.scoring import PhraseGrounder
from fixtures.subjects import mdetr
from fixtures.vision_language.tiny_grounders import save_tiny_mdetr, tiny_roberta

# transformers takes seconds to import
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default:.*:DeprecationWarning"),
    pytest.mark.usefixtures("no_network"),
]


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(mdetr, "SHORTER", 64)  # a forward at 800 pixels takes half a second


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with its tokeniser's files; not to be written to."""
    file = save_tiny_mdetr(tmp_path_factory.mktemp("mdetr"))
    yield file
    file.unlink()  # 90 MB, and pytest keeps the folders of three runs


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
    said = f"got one with {smaller.get_vocab_size()}; published models have"
    assert said in refusal(f"mdetr:resnet18@{tmp_path / 'mdetr.pth'}")


def test_an_mdetr_scores_no_classes(checkpoint) -> None:
    with pytest.raises(BadInput, match="use find_grounder"):
        find_subject(f"mdetr:resnet18@{checkpoint}")


def test_a_plain_read_of_a_tiny_checkpoint_has_both_sets_of_weights(checkpoint) -> None:
    assert {read(checkpoint, prefer=name).chosen for name in ("model", "model_ema")} == {"model", "model_ema"}
