"""The table of two captions: its numbers from the model's own, the scenes beside it, and refusals of one line."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import caption_table
from benchmarks.caption_table import group_scores, logits, main, other_scenes, over_colours, own_scenes
from benchmarks.caption_words import Asked, read
from fixtures.controls import binding_scorers as scorers
from fixtures.datasets.binding_scenes import binding_scenes
from fixtures.datasets.folder import decode
from fixtures.subjects.spec import find_image_text
from fixtures.vision_language.tiny_clip import save_tiny_clip
from tests.captions_folders import picture

TRUE, FALSE = "the red apple is on the left of the photo", "the green apple is on the left of the photo"
ORACLE = ("a red apple to the left of a green apple", "a green apple to the left of a red apple")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("transformers")
    return f"hf:{save_tiny_clip(tmp_path_factory.mktemp('clip'))}"


@pytest.mark.parametrize(
    ("first", "second", "asked"),
    [
        (TRUE, FALSE, ("left", ("red", "green"), "apple")),
        ("A blue mug on the right.", "A red mug on the right.", ("left", ("red", "blue"), "mug")),
        (*ORACLE, ("left", ("red", "green"), "apple")),
        ("the red mug is on the left", "the red mug is on the right", ("left", ("red", "green"), "mug")),
        ("a red ball behind a blue ball", "a blue ball behind a red ball", ("front", ("blue", "red"), "ball")),
        ("something red at the top", "something blue at the top", ("above", ("red", "blue"), None)),
        ("a red mug", "a blue mug", None),  # no place
        ("a red mug on the left", "a red cup on the left", None),
        ("a red mug on the left", "a blue cup on the left", None),
        ("a red mug on the left", "a red mug on the left side", None),
        ("a mug on the left", "a mug on the right", None),  # no colour
        ("a red mug on the left", "a red mug on the top", None),
    ],
)
def test_what_captions_say_of_scenes_is_read_from_their_words(first: str, second: str, asked: tuple | None) -> None:
    found = read(first, second)

    assert found == (None if asked is None else Asked(relation=asked[0], colours=asked[1], thing=asked[2]))


@pytest.mark.parametrize(
    "captions", [ORACLE, ORACLE[::-1], ("a red ball behind a blue ball", "a blue ball behind a red ball")]
)
def test_each_caption_is_true_of_its_own_picture_in_its_own_colours_and_in_others(captions: tuple[str, str]) -> None:
    asked = read(*captions)
    assert asked is not None
    for made in (own_scenes, other_scenes):
        drawn = made(asked, captions, 3, seed=1, size=96)
        scores = group_scores(scorers.scorer("x", scorers.oracle), drawn)
        assert (scores[:, 0, 0] > 0).all()
        assert (scores[:, 1, 1] > 0).all()
    own = own_scenes(asked, captions, 2, seed=1, size=96)
    assert [wordings[0] for wordings in own.groups[0].captions] == list(captions)
    assert len({group.colours for group in drawn.groups}) > 1


def test_colours_are_exchanged_in_the_captions_own_words() -> None:
    captions = ("The red mug, on the left.", "The green mug, on the left.")
    asked = read(*captions)
    assert asked is not None
    for group in other_scenes(asked, captions, 8, seed=0, size=48).groups:
        first, second = group.colours
        assert group.captions == ((f"The {first} mug, on the left.",), (f"The {second} mug, on the left.",))


def test_colours_are_exchanged_with_the_articles_that_they_take() -> None:
    captions = ("An orange ball, on the left", "a red ball, on the left")
    asked = read(*captions)
    assert asked is not None
    drawn = other_scenes(asked, captions, 12, seed=0, size=48).groups
    for group in drawn:
        first, second = (f"{'n' if colour == 'orange' else ''} {colour}" for colour in group.colours)
        assert group.captions == ((f"A{first} ball, on the left",), (f"a{second} ball, on the left",))
    assert any("orange" in group.colours for group in drawn)


def test_scenes_of_the_same_two_colours_count_once() -> None:
    drawn = binding_scenes(40, seed=0, size=48, relations=("left",)).groups
    pairs = sorted({tuple(sorted(group.colours)) for group in drawn})
    hits = torch.tensor([tuple(sorted(group.colours)) == pairs[0] for group in drawn])

    point, low, high = map(float, re.findall(r"\d\.\d\d", over_colours(hits, drawn)))
    assert hits.sum() > 1
    assert point == round(1 / len(pairs), 2)
    assert low <= point <= high


def test_a_clips_logits_are_its_own_and_its_confidence_a_share(clip: str, tmp_path: Path, capsys) -> None:
    file = picture(tmp_path / "photo.png", 90, size=(40, 30))
    assert main([str(file), TRUE, FALSE, "--model", clip, "--scenes", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()

    assert printed[0].startswith("| query | logit | share of the captions given (softmax) | wins on 2 drawn scenes")
    subject = find_image_text(clip)
    image = subject.geometry.fit(decode(file.read_bytes()))[None]
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(subject.embed_image(subject.preprocess(image)), dim=1)
        expected = (subject.scale * embedded @ subject.embed_captions([TRUE, FALSE]).T)[0]
    shares = (expected - expected.max()).exp() / (expected - expected.max()).exp().sum()
    for line, caption, logit, share in zip(printed[2:4], (TRUE, FALSE), expected, shares, strict=True):
        said = [part.strip() for part in line.strip("|").split("|")]
        assert said[0] == caption
        assert float(said[1]) == pytest.approx(logit.item(), abs=0.006)
        assert float(said[2].rstrip("%")) / 100 == pytest.approx(share.item(), abs=6e-5)
        assert re.fullmatch(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", said[3])


def test_a_siglips_logits_are_taken_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    subject = find_image_text(f"hf:{save_tiny_clip(tmp_path / 'siglip', kind='siglip')}")
    image = torch.rand(1, 3, *subject.geometry.crop, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        expected = subject.similarity(image, [TRUE, FALSE]).double()
    torch.testing.assert_close(logits(subject, image, [TRUE, FALSE]), expected)


def test_a_siglips_confidence_is_the_sigmoid_of_each_logit(tmp_path: Path, capsys) -> None:
    pytest.importorskip("transformers")
    spec, file = f"hf:{save_tiny_clip(tmp_path / 'siglip', kind='siglip')}", picture(tmp_path / "photo.png", 90)
    assert main([str(file), TRUE, FALSE, "--model", spec, "--scenes", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()

    assert "| probability (sigmoid of the logit) |" in printed[0]
    for line in printed[2:4]:
        logit, probability = (float(part) for part in line.strip("|").split("|")[1:3])
        assert probability == pytest.approx(torch.tensor(logit).sigmoid().item(), rel=0.02)
    # both are improbable: as a softmax one of them would be likely
    assert sum(float(line.strip("|").split("|")[2]) for line in printed[2:4]) < 0.5


def test_a_function_has_scores_and_no_confidence(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(caption_table, "find_image_text", lambda *_, **__: scorers.scorer("x", scorers.constant))
    assert main([str(picture(tmp_path / "a.png")), TRUE, FALSE, "--model", "x", "--scenes", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()

    assert printed[0] == "| query | score | wins on 2 drawn scenes that it is true of (95 %) |"
    assert printed[2] == f"| {TRUE} | 1.00 | 0.00 [0.00, 0.84] |"


def test_a_caption_that_is_preferred_anyway_wins_wherever_it_is_asked(capsys, tmp_path: Path, monkeypatch) -> None:
    """The seeds' finding in one line: of one picture it looks like an error, of the scenes like what it is."""

    def second(images: Tensor, captions: list[str]) -> Tensor:
        return torch.tensor([[float(caption == FALSE) for caption in captions]] * len(images))

    monkeypatch.setattr(caption_table, "find_image_text", lambda *_, **__: scorers.scorer("second", second))
    assert main([str(picture(tmp_path / "a.png")), TRUE, FALSE, "--model", "x", "--scenes", "6"]) == 0
    printed = capsys.readouterr().out

    rows = printed.splitlines()[2:4]
    assert "| 0.00 [0.00, 0.46] |" in rows[0]
    assert "| 1.00 [0.54, 1.00] |" in rows[1]
    assert re.search(r"prefers anyway, in 0\.00 \[0\.00, 0\.\d\d\] \(by luck 0\.50", printed)
    assert "in other colours, in the same words" in printed


def test_beside_captions_that_no_scene_is_known_of_the_scenes_have_their_own(capsys, clip: str, tmp_path: Path) -> None:
    assert main([str(picture(tmp_path / "a.png")), "a cat", "a dog", "--model", clip, "--scenes", "2"]) == 0
    printed = capsys.readouterr().out

    assert all(line.endswith("| - |") for line in printed.splitlines()[2:4])
    assert "captions of their own" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a cat"], "expected two captions that differ"),
        (["a cat", "a cat "], "expected two captions that differ"),
        (["a cat", "A cat"], "gives 'a cat' and 'A cat' the same tokens; case and white space do not count"),
        (["a cat", "a dog", "--scenes", "0"], "expected n >= 1"),
        (["a cat", "a dog", "--scenes", "many"], "invalid int value"),
        (["a cat " * 60, "a dog"], "shorten it"),
    ],
)
def test_what_the_user_can_get_wrong_ends_in_one_line(clip: str, tmp_path: Path, capsys, arguments, words) -> None:
    assert main([str(picture(tmp_path / "a.png")), *arguments, "--model", clip]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err


def test_a_picture_that_cannot_be_read_and_a_model_that_is_none_are_refused(clip: str, tmp_path: Path, capsys) -> None:
    for image, model, words in (
        (tmp_path / "gone.png", clip, "cannot read the picture"),
        (picture(tmp_path / "a.png"), "hf:nowhere", "there is no folder 'nowhere'"),
    ):
        assert main([str(image), "a cat", "a dog", "--model", model]) == 2
        assert words in capsys.readouterr().err
