import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from camcore.cost import metered
from camcore.errors import BadInput
from camcore.grounding import find_phrase
from camcore.models.mdetr.processor import (
    fitted_size,
    pad,
    phrase_tokens,
    prepare,
    tokenise,
    tokenizer_from,
)
from camcore.models.mdetr.scoring import PhraseGrounder, object_scores, phrase_scores, pixel_boxes
from camcore.seeds import generator
from camcore.subject import Grounder
from tests.tiny_mdetr import CAPTIONS, needs_reference, reference, reference_model, tiny_model, tokenizer

CASES = ("single_red_left", "single_green_left", "single_red_right", "mirror_red_left", "batch_padded")


def picture(height=48, width=64, seed=0):
    return torch.rand(3, height, width, generator=generator(seed, "pictures"))


def grounder(**given):
    tiny = {"name": "tiny", "module": tiny_model(), "tokenizer": tokenizer_from(tokenizer()), "shorter": 48}
    return PhraseGrounder(**{**tiny, **given})


def reference_grounder(image, **given):
    made = tokenizer_from(Tokenizer.from_str(reference()["tokenizer_json"]))
    model = reference_model()
    return PhraseGrounder(name="reference", module=model, tokenizer=made, shorter=min(image.shape[1:]), **given)


def pictures_of(case):
    return [image.permute(2, 0, 1) / 255 for image in case["images_uint8"]]


def test_boxes_are_written_out_in_pixels():
    shares = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.25, 0.75, 0.5, 0.1], [0.0, 0.0, 0.2, 0.2]])
    expected = torch.tensor([[0, 0, 200, 100], [0, 70, 100, 80], [-20, -10, 20, 10]]).float()
    torch.testing.assert_close(pixel_boxes(shares, 100, 200), expected)


def test_scores_are_written_out():
    logits = torch.tensor([[1.0, 2.0, 4.0, 3.0]]).log()
    torch.testing.assert_close(object_scores(logits), torch.tensor([0.7]))
    torch.testing.assert_close(phrase_scores(logits, [0, 1]), torch.tensor([0.2]))
    torch.testing.assert_close(phrase_scores(logits, range(1, 3)), torch.tensor([0.4]))


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((600, 800), (800, 1066)),
        ((800, 600), (1066, 800)),
        ((480, 480), (800, 800)),
        ((300, 900), (444, 1332)),
        ((2000, 500), (1332, 333)),
    ],
)
def test_the_shorter_side_becomes_800_unless_the_longer_would_pass_1333(size, fitted):
    assert fitted_size(*size) == fitted


def test_an_image_is_normalised_and_resized_only_where_its_size_is_another():
    image = picture(48, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(prepare(image, shorter=48), (image - mean[:, None, None]) / std[:, None, None])
    assert prepare(image, shorter=24).shape == (3, 24, 32)
    grey = torch.full((3, 48, 64), 0.5)
    torch.testing.assert_close(prepare(grey, shorter=96)[:, 5, 5], (0.5 - mean) / std)


def test_an_image_that_is_normalised_already_is_refused():
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        prepare(picture() * 4 - 2)


def test_a_batch_is_padded_to_the_right_and_below():
    images = [picture(4, 6) + 1, picture(5, 3) + 1]
    pixels, padding = pad(images)
    assert pixels.shape == (2, 3, 5, 6)
    for index, image in enumerate(images):
        height, width = image.shape[1:]
        assert torch.equal(pixels[index, :, :height, :width], image)
        assert not padding[index, :height, :width].any()
        assert padding[index].sum() == 5 * 6 - height * width
        assert (pixels[index] == 0).all(0).equal(padding[index])


def test_captions_are_padded_with_the_padding_token_and_keep_their_case():
    tokens = tokenise(tokenizer_from(tokenizer()), ["the red apple", "THE red apple is on the left"])
    short = len(tokens.encodings[0].ids)
    assert tokens.ids[0, :short].tolist() == tokens.encodings[0].ids
    assert set(tokens.ids[0, short:].tolist()) == {1}
    assert tokens.padding[0].tolist() == [False] * short + [True] * (tokens.ids.shape[1] - short)
    assert not tokens.padding[1].any()
    assert tokens.ids[0, 0] == tokens.ids[1, 0] == 0
    assert tokens.ids[0, 1] != tokens.ids[1, 1]


def test_a_tokenizer_comes_from_a_file_from_transformers_or_as_it_is_and_is_left_as_it_was(tmp_path):
    given = tokenizer()
    given.enable_padding(length=30, pad_id=1, pad_token="<pad>")
    given.enable_truncation(4)
    given.save(str(tmp_path / "tokenizer.json"))
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(given.to_str()), pad_token="<pad>")
    expected = tokenizer().encode(CAPTIONS[0]).ids
    for source in (given, tmp_path / "tokenizer.json", str(tmp_path / "tokenizer.json"), fast):
        assert tokenizer_from(source).encode(CAPTIONS[0]).ids == expected
    assert given.padding["length"] == 30
    assert given.truncation["max_length"] == 4


def test_what_is_no_tokenizer_of_robertas_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"'no/such\.json' is none"):
        tokenizer_from("no/such.json")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match=r"is no tokenizer\.json"):
        tokenizer_from(tmp_path / "tokenizer.json")
    with pytest.raises(BadInput, match="got dict"):
        tokenizer_from({})
    bare = tokenizer()
    bare.post_processor = None
    with pytest.raises(BadInput, match=r"expected RoBERTa's tokenizer.*'a' becomes"):
        tokenizer_from(bare)


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        pytest.param("a café", "a café", id="a letter of two bytes"),
        pytest.param("the (small) one", "the (small) one", id="brackets"),
        pytest.param("(small)", "(small)", id="no letter at the edges"),
        pytest.param(" one ", "one", id="spaces around it"),
    ],
)
def test_a_phrase_is_found_and_its_tokens_spell_it(phrase, words):
    caption = CAPTIONS[2]
    start, end = find_phrase(caption, phrase)
    assert caption[start:end] == words
    encoding = tokenizer().encode(caption)
    tokens = phrase_tokens(encoding, (start, end))
    spelled = caption[encoding.offsets[tokens.start][0] : encoding.offsets[tokens.stop - 1][1]]
    assert spelled.strip() == words


@pytest.mark.parametrize(
    ("phrase", "why"),
    [
        pytest.param("a pear", "not there", id="absent"),
        pytest.param("app", "not there", id="part of a word"),
        pytest.param("the", "3 times", id="more than once"),
        pytest.param("The red apple", r"in another case \('the red apple'\)", id="another case"),
        pytest.param("  ", "not there", id="empty"),
    ],
)
def test_a_phrase_that_is_not_once_in_the_caption_is_refused(phrase, why):
    with pytest.raises(BadInput, match=why):
        find_phrase(CAPTIONS[0], phrase)


def test_spaces_at_the_edges_of_a_span_belong_to_no_token_and_the_words_between_are_taken():
    encoding = tokenizer().encode("one two six")
    assert encoding.char_to_token(3) is None
    assert encoding.char_to_token(7) is None
    assert phrase_tokens(encoding, (3, 8)) == phrase_tokens(encoding, (4, 7))


def test_a_span_without_words_is_refused():
    encoding = tokenizer().encode("a" + " " * 20 + "b")
    with pytest.raises(BadInput, match="no token of the caption covers its characters 8 to 10"):
        phrase_tokens(encoding, (8, 10))


def test_a_phrase_beyond_the_slots_is_refused_and_one_in_the_last_slot_is_not():
    caption = " ".join(["x"] * 252 + ["red", "dog"])
    made = tokenizer((caption,) * 3)
    encoding = made.encode(caption)
    first = encoding.char_to_token(caption.index("red"))
    assert (first, encoding.char_to_token(caption.index("dog"))) == (253, 254)
    assert phrase_tokens(encoding, find_phrase(caption, "red dog")) == range(253, 255)
    later = "x " + caption
    with pytest.raises(BadInput, match="first 255 tokens of its caption, it ends at token 256"):
        phrase_tokens(made.encode(later), find_phrase(later, "dog"))


def test_a_grounder_is_one_and_its_boxes_come_best_first():
    made, image = grounder(), picture()
    assert isinstance(made, Grounder)
    with metered() as cost:
        boxes, scores = made.ground(image, CAPTIONS[0], "the red apple")
    assert (cost.forwards, cost.backwards) == (1, 0)
    assert boxes.shape == (5, 4)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert ((scores > 0) & (scores < 1)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert scores[0] > scores[-1]


def test_the_phrase_chooses_the_score_and_the_other_score_does_without():
    image = picture()
    by_phrase = [grounder().ground(image, CAPTIONS[0], phrase)[1] for phrase in ("the red apple", "the photo")]
    anything = [grounder(score="object").ground(image, CAPTIONS[0], phrase)[1] for phrase in ("the red apple", "photo")]
    assert (by_phrase[0] - by_phrase[1]).abs().max() > 1e-4
    assert torch.equal(*anything)
    assert (anything[0] >= by_phrase[0]).all()


def test_the_case_of_the_caption_reaches_the_network():
    image = picture()
    boxes = [grounder().ground(image, caption, "apple")[0] for caption in ("the red apple", "THE RED apple")]
    assert (boxes[0] - boxes[1]).abs().max() > 1e-3


def test_boxes_are_in_pixels_of_the_image_given_not_of_the_one_resized():
    image = torch.full((3, 40, 80), 0.5)  # a grey is the same at any size
    small, large = (
        grounder(shorter=64).ground(one, CAPTIONS[0], "the photo") for one in (image, image.repeat(1, 2, 2))
    )
    torch.testing.assert_close(small[0] * 2, large[0])
    torch.testing.assert_close(small[1], large[1])


def test_a_score_has_a_slope_along_the_image():
    image = picture().requires_grad_()
    _, scores = grounder().ground(image, CAPTIONS[0], "the red apple")
    (slope,) = torch.autograd.grad(scores[0], image)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


def test_captions_and_tokenizers_that_the_model_cannot_read_are_refused():
    with pytest.raises(BadInput, match="at most 38 tokens, got"):
        grounder().ground(picture(), " ".join(f"w{index}" for index in range(60)), "w3")
    with pytest.raises(BadInput, match=r"with \d+ entries, got one with"):
        grounder(tokenizer=tokenizer_from(tokenizer(("zebra zebra zebra",))))


@needs_reference
@pytest.mark.parametrize("name", CASES)
def test_what_the_processor_makes_is_what_the_reference_was_given(name):
    case = reference()["cases"][name]
    prepared = [prepare(image, shorter=min(image.shape[1:])) for image in pictures_of(case)]
    for ours, theirs in zip(prepared, case["pixel_values"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    pixels, padding = pad(prepared)
    torch.testing.assert_close(pixels, case["padded"], atol=1e-6, rtol=0)
    assert torch.equal(padding, case["padding_mask"])
    made = tokenizer_from(Tokenizer.from_str(reference()["tokenizer_json"]))
    tokens = tokenise(made, case["captions"])
    assert torch.equal(tokens.ids, case["input_ids"])
    assert torch.equal(tokens.padding, case["attention_mask"] == 0)
    for index, (caption, phrase) in enumerate(zip(case["captions"], case["phrases"], strict=True)):
        covered = phrase_tokens(tokens.encodings[index], find_phrase(caption, phrase))
        assert list(covered) == case["phrase_positive_map"][index].nonzero()[:, 0].tolist()


@needs_reference
@pytest.mark.parametrize("name", CASES)
def test_scores_and_boxes_are_those_of_the_original_postprocessing(name):
    case = reference()["cases"][name]
    logits, boxes = case["outputs"]["pred_logits"], case["outputs"]["pred_boxes"]
    torch.testing.assert_close(object_scores(logits), case["score_not_no_object"], atol=1e-6, rtol=0)
    torch.testing.assert_close(object_scores(logits), case["post_scores"], atol=1e-6, rtol=0)
    for index, image in enumerate(case["images_uint8"]):
        covered = case["phrase_positive_map"][index].nonzero()[:, 0].tolist()
        scores = phrase_scores(logits[index], covered)
        in_pixels = pixel_boxes(boxes[index], image.shape[0], image.shape[1])
        torch.testing.assert_close(scores, case["score_phrase_max"][index], atol=1e-6, rtol=0)
        torch.testing.assert_close(in_pixels, case["post_boxes_xyxy_abs"][index], atol=1e-4, rtol=0)
        best_first = in_pixels[scores.argsort(descending=True, stable=True)]
        torch.testing.assert_close(best_first, case["flickr_sorted_boxes"][index], atol=1e-4, rtol=0)


@needs_reference
@pytest.mark.parametrize("name", CASES[:4])
def test_grounding_is_that_of_the_original_code(name):
    case = reference()["cases"][name]
    (image,), caption, phrase = pictures_of(case), case["captions"][0], case["phrases"][0]
    boxes, scores = reference_grounder(image).ground(image, caption, phrase)
    torch.testing.assert_close(boxes, case["flickr_sorted_boxes"][0], atol=1e-3, rtol=0)
    torch.testing.assert_close(scores, case["score_phrase_max"][0].sort(descending=True).values, atol=1e-5, rtol=0)
    boxes, scores = reference_grounder(image, score="object").ground(image, caption, phrase)
    order = case["post_scores"][0].argsort(descending=True, stable=True)
    torch.testing.assert_close(scores, case["post_scores"][0][order], atol=1e-5, rtol=0)
    torch.testing.assert_close(boxes, case["post_boxes_xyxy_abs"][0][order], atol=1e-3, rtol=0)
