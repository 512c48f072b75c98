from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camcore import BadInput, CaptionScorer, Geometry, ImageText, TwoTowers, as_classifier, as_scorer, cam, record
from camcore.cost import metered
from camcore.errors import TooLong
from camcore.imagetext import AT_ONCE, reads, same_rows, with_map
from camcore.seeds import generator
from tests.tiny import CLASSES, SIZE, GapNet, as_they_are, randomised, some_images

LEFT, RIGHT, DOG = "a mug on the left", "a mug on the right", "a dog"
LONGEST = 24


class Words(nn.Module):
    """Reads the place of every letter, in lower case; keeps the sizes of the batches it was given."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(128, 4)
        self.mix = nn.Linear(4 * LONGEST, CLASSES)
        self.batches = []

    def forward(self, tokens):
        self.batches.append(len(tokens["ids"]))
        return self.mix(self.table(tokens["ids"]).flatten(1))


def tokenise(captions):
    return {"ids": torch.tensor([[*caption.lower().encode().ljust(LONGEST)][:LONGEST] for caption in captions])}


def towers(**given):
    pair = randomised(nn.ModuleDict({"image": GapNet(), "text": Words()}))
    defaults = {"tokenise": tokenise, "scale": 14.0, "sha256": "abc", "weights": "random:0", "unsafe": ("a reason",)}
    return TwoTowers(
        name="towers",
        spec="towers",
        module=pair,
        geometry=Geometry(crop=(SIZE, SIZE)),
        preprocess=as_they_are,
        embed_image=pair["image"],
        embed_text=pair["text"],
        **{**defaults, **given},
    )


def cosines(subject, images, captions):
    """The definition, one pair at a time."""
    image, text = subject.embed_image(images), subject.embed_text(tokenise(captions))
    return torch.stack([torch.stack([(i @ t) / (i.norm() * t.norm()) for t in text]) for i in image])


def test_two_towers_score_images_and_captions():
    assert isinstance(towers(), ImageText)


def test_the_score_of_a_clip_is_a_hundred_cosines_whatever_its_temperature():
    images = some_images(2)
    for scale in (14.0, 100.0):
        subject = towers(scale=scale)
        found = subject.similarity(images, [LEFT, RIGHT, DOG])
        torch.testing.assert_close(found, 100 * cosines(subject, images, [LEFT, RIGHT, DOG]))
    assert found.shape == (2, 3)
    assert found.dtype == torch.float32


def test_the_score_of_a_siglip_is_its_own_logit():
    subject, images = towers(scale=10.0, bias=-3.0), some_images(2)
    expected = 10 * cosines(subject, images, [LEFT, DOG]) - 3
    torch.testing.assert_close(subject.similarity(images, [LEFT, DOG]), expected)


def test_each_caption_is_embedded_once_in_batches_and_its_score_does_not_depend_on_the_others():
    subject, images = towers(), some_images(1)
    captions = [f"caption {index}" for index in range(2 * AT_ONCE + 2)]
    found = subject.similarity(images, [*captions, captions[0]])
    assert subject.module["text"].batches == [AT_ONCE, AT_ONCE, 2]
    assert found[0, -1] == found[0, 0]
    torch.testing.assert_close(found[:, 70:71], subject.similarity(images, captions[70:71]))


def test_images_are_counted_and_captions_are_not():
    with metered() as cost:
        towers().similarity(some_images(3), [LEFT, RIGHT])
    assert (cost.forwards, cost.backwards) == (3, 0)


def test_images_have_a_gradient_and_captions_build_no_graph():
    subject, images = towers(), some_images(2).requires_grad_()
    assert not subject.embed_captions([LEFT]).requires_grad
    (gradient,) = torch.autograd.grad(subject.similarity(images, [LEFT])[:, 0].sum(), images)
    assert gradient.abs().max() > 0


def test_a_text_tower_that_reads_the_same_place_of_every_caption_is_refused():
    def first_letter(tokens):
        return subject.module["text"].table(tokens["ids"][:, 0])

    subject = towers()
    blind = replace(subject, embed_text=first_letter)
    with pytest.raises(ValueError, match=r"'a mug on the left' and 'a dog' the same embedding.*eos_token_id"):
        blind.similarity(some_images(1), [LEFT, "the left", DOG])


def test_a_bag_of_words_scores_captions_of_the_same_words_exactly_level():
    """It gives them one embedding but for rounding, and rounding would be right half the time."""

    def letters(tokens):
        counted = subject.module["text"].table(tokens["ids"]).sum(1)
        return nn.functional.pad(counted, (0, CLASSES - counted.shape[1]))

    subject = towers()
    bag = replace(subject, embed_text=letters)
    said = ["red left of green", DOG, "green left of red", "of red green left", LEFT]
    found = bag.similarity(some_images(5), said)
    assert (found[:, 0] == found[:, 2]).all()
    assert (found[:, 0] == found[:, 3]).all()
    assert (found[:, [0]] != found[:, [1, 4]]).all()
    torch.testing.assert_close(found[:, 2:3], bag.similarity(some_images(5), said[2:3]))
    reading = subject.similarity(some_images(5), said)  # a tower that reads the order is left as it is
    torch.testing.assert_close(reading, 100 * cosines(subject, some_images(5), said))
    assert (reading[:, 0] != reading[:, 2]).all()


def test_what_a_model_reads_whole_is_known_of_two_towers():
    def short(captions):
        if any(len(caption) > LONGEST for caption in captions):
            raise TooLong("too long")
        return tokenise(captions)

    subject = towers(tokenise=short)
    assert reads(subject, [LEFT, DOG])
    assert not reads(subject, [LEFT, "a dog " * 10])
    scorer = CaptionScorer(
        name="x",
        spec="x",
        module=subject.module,
        geometry=subject.geometry,
        score=lambda images, captions: torch.zeros(len(images), len(captions)),
    )
    assert reads(scorer, ["a dog " * 10])


def test_captions_that_the_tokeniser_cannot_tell_apart_are_exactly_level_and_embedded_once():
    subject = towers()
    for count in (1, 3):
        found = subject.similarity(some_images(count), ["A Dog", LEFT, DOG, "a DOG"])
        assert torch.equal(found[:, [0, 0]], found[:, 2:])
        assert (found[:, 0] != found[:, 1]).all()
    assert subject.module["text"].batches == [2, 2]
    assert subject.same_tokens(DOG, "A Dog")
    assert not subject.same_tokens(DOG, LEFT)


def test_tokens_that_are_no_whole_numbers_are_told_apart():
    def tenths(captions):
        return {"ids": tokenise(captions)["ids"] / 1000}

    subject = replace(towers(), tokenise=tenths, embed_text=lambda tokens: tokens["ids"][:, :CLASSES])
    assert not subject.same_tokens("abcd", "abce")
    assert subject.distinct(["abcd", "abce", "ABCD"])[1] == [0, 1, 0]


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("width", [7, 64, 513])
def test_level_captions_are_exactly_level_of_any_number_of_pictures_and_captions(batch, width):
    """One picture's products are computed by other kernels, in which the same row differs by where it stands."""
    table = torch.randn(128, width, generator=generator(0, "letters"))
    pixels = torch.randn(3 * SIZE * SIZE, width, generator=generator(0, "pixels"))
    subject = replace(
        towers(),
        embed_image=nn.Sequential(nn.Flatten(), Times(pixels)),
        embed_text=lambda tokens: table[tokens["ids"]].sum(1),
    )
    images = some_images(batch)
    for others in (1, 2, 7, 31, 60):
        said = ["red left of green", *(f"caption {chr(33 + index)}" for index in range(others)), "green left of red"]
        found = subject.similarity(images, said)
        assert torch.equal(found[:, 0], found[:, -1])
        scorer = as_scorer(subject, [[caption] for caption in said]).logits(images)
        assert torch.equal(scorer[:, 0], scorer[:, -1])
        assert len(found[0].unique()) == others + 1


class Times(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, rows):
        return rows @ self.matrix


def test_two_orders_of_the_same_words_are_level_whatever_order_comes_first():
    """Who reads which word is first and no other tells one of these from the others, and not these from each other."""

    def first_and_bag(tokens):
        letters = subject.module["text"].table(tokens["ids"])
        return torch.cat((letters.sum(1), letters[:, 0]), 1)[:, :CLASSES]

    subject = towers()
    found = replace(subject, embed_text=first_and_bag).distinct(["abc", "bac", "bca", "acb", DOG])[1]
    assert found == [0, 1, 1, 0, 2]


def test_classes_that_are_one_to_the_model_are_refused():
    with pytest.raises(ValueError, match=r"'dog' and 'Dog' the same embedding.*case and white space do not count"):
        as_classifier(towers(), ["dog", "mug", "Dog"], templates=["a {}.", "one {}"])
    subject = towers()
    bag = replace(subject, embed_text=lambda tokens: subject.module["text"].table(tokens["ids"]).sum(1)[:, :CLASSES])
    with pytest.raises(ValueError, match=r"'on top' and 'top on' the same embedding.*does not read the order of words"):
        as_classifier(bag, ["on top", "top on"])
    assert as_classifier(towers(), ["crane", "mug", "crane"]).classes == ("crane", "mug", "crane")  # ImageNet has it
    # one caption of two classes is the same, and the classes are not
    assert as_classifier(towers(), ["dog", "A dog"], templates=["a {}", "{}"]).classes == ("dog", "A dog")


def test_the_same_row_is_found_among_many_and_near_rows_are_not_the_same():
    rows = nn.functional.normalize(torch.randn(3000, 16, generator=generator(0, "rows")), dim=1)
    assert same_rows(rows) is None
    rows[2501] = rows[40] + 1e-7
    assert same_rows(rows) == (40, 2501)
    rows[2501] = rows[40] + 1e-4
    assert same_rows(rows) is None
    assert same_rows(rows[:1]) is None


def test_no_caption_and_a_training_model_are_refused():
    subject = towers()
    with pytest.raises(ValueError, match="expected at least one caption for towers, got none"):
        subject.similarity(some_images(1), [])
    subject.module.train()
    with pytest.raises(ValueError, match="towers is in training mode"):
        subject.similarity(some_images(1), [DOG])


@pytest.mark.parametrize("bias", [None, -3.0])
def test_the_logits_of_the_classifier_are_the_models_own(bias):
    subject, images = towers(bias=bias), some_images(2)
    classifier = as_classifier(subject, [LEFT, RIGHT, DOG])
    expected = 14 * cosines(subject, images, [LEFT, RIGHT, DOG]) + (bias or 0)
    torch.testing.assert_close(classifier.logits(images), expected)
    if bias is not None:
        torch.testing.assert_close(classifier.logits(images), subject.similarity(images, [LEFT, RIGHT, DOG]))
    assert classifier.classes == (LEFT, RIGHT, DOG)


def test_a_class_of_several_templates_is_the_mean_of_unit_embeddings():
    subject, images = towers(), some_images(2)
    classifier = as_classifier(subject, ["mug", "dog"], templates=["a {}.", "one {} here"])
    units = [
        nn.functional.normalize(subject.embed_text(tokenise([f"a {x}.", f"one {x} here"]))) for x in ("mug", "dog")
    ]
    image = nn.functional.normalize(subject.embed_image(images))
    expected = torch.stack([14 * image @ (unit.mean(0) / unit.mean(0).norm()) for unit in units], 1)
    torch.testing.assert_close(classifier.logits(images), expected)
    assert classifier.classes == ("mug", "dog")


def test_a_template_without_a_place_for_the_class_is_refused():
    with pytest.raises(ValueError, match=r"expected a template with {} .* got 'a photo'"):
        as_classifier(towers(), ["mug", "dog"], templates=["a photo"])


def test_braces_in_the_name_of_a_class_are_letters():
    assert as_classifier(towers(), ["{0}", "{mug}"]).classes == ("{0}", "{mug}")


def test_the_classifier_says_where_it_comes_from_and_other_captions_are_another_model():
    subject = towers()
    first, again, other = (as_classifier(subject, [LEFT, name]) for name in (RIGHT, RIGHT, DOG))
    assert (first.name, first.spec, first.weights, first.unsafe) == ("towers", "towers", "random:0", ("a reason",))
    assert first.sha256 == again.sha256 != other.sha256
    assert as_classifier(replace(subject, sha256="def"), [LEFT, RIGHT]).sha256 != first.sha256


def test_the_target_layer_is_found_or_the_subjects_or_the_callers():
    subject = towers()
    assert as_classifier(subject, [LEFT, DOG]).target_layer == "encoder.relu"
    assert as_classifier(replace(subject, target_layer="conv1"), [LEFT, DOG]).target_layer == "encoder.conv1"
    chosen = as_classifier(replace(subject, target_layer="conv1"), [LEFT, DOG], layer="encoder.conv2")
    assert chosen.target_layer == "encoder.conv2"


def test_what_speaks_for_a_caption_rather_than_another_is_a_map():
    classifier = as_classifier(towers(), [LEFT, RIGHT])
    left, right = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    found = cam.hirescam(record(classifier, some_images(2), left, against=right))
    assert found.flatten(1).abs().amax(1).min() > 0
    torch.testing.assert_close(found, -cam.hirescam(record(classifier, some_images(2), right, against=left)))


def test_a_scorer_gives_the_mean_of_the_wordings_scores_and_a_prompt_ensemble_does_not():
    subject, images = towers(), some_images(3)
    said = [[LEFT, "left, a mug"], [RIGHT, "right, a mug"]]
    scorer = as_scorer(subject, said)
    scores = subject.similarity(images, [caption for wordings in said for caption in wordings])
    wanted = scores.unflatten(1, (2, 2)).mean(2) * subject.scale / 100
    torch.testing.assert_close(scorer.logits(images), wanted)
    assert scorer.classes == (LEFT, RIGHT)
    assert scorer.sha256 != as_scorer(subject, [wordings[::-1] for wordings in said]).sha256
    ensemble = as_classifier(subject, ["left", "right"], templates=["a mug on the {}", "{}, a mug"])
    assert (ensemble.logits(images) - wanted).abs().max() > 1e-3  # means of length one are longer than means


@pytest.mark.parametrize("said", [[], [[]], [[LEFT, DOG], [RIGHT]]])
def test_a_scorer_needs_as_many_wordings_of_each_class(said):
    with pytest.raises(ValueError, match="expected as many wordings of each class, at least one, got"):
        as_scorer(towers(), said)


def test_the_map_of_two_towers_is_found_once_for_all_captions():
    subject = with_map(towers())
    asked = as_classifier(towers(), [LEFT, DOG])
    assert (f"encoder.{subject.target_layer}", subject.grid) == (asked.target_layer, asked.grid)
    assert subject.placement == asked.placement
    assert subject.placement.source == "traced"
    with metered() as cost:
        again = as_scorer(subject, [[LEFT], [DOG]])
    assert (cost.forwards, cost.backwards) == (0, 0)
    assert (again.target_layer, again.grid, again.placement) == (asked.target_layer, asked.grid, asked.placement)
    images, target = some_images(2), torch.zeros(2, dtype=torch.long)
    found, wanted = (cam.hirescam(record(one, images, target)) for one in (again, asked))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["conv1", "encoder.conv1"])
def test_a_layer_is_named_within_the_image_tower_or_the_classifier(name):
    subject = with_map(with_map(towers()), layer=name)
    assert subject.target_layer == "conv1"
    assert as_classifier(subject, [LEFT, DOG]).grid.height == SIZE


def test_a_layer_that_two_towers_do_not_have_is_refused():
    with pytest.raises(BadInput, match=r"no layer 'encoder.conv9' .* did you mean 'encoder.conv"):
        with_map(towers(), layer="conv9")


def test_two_towers_without_a_map_of_features_stay_as_they_are():
    net = randomised(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)))
    subject = replace(towers(), embed_image=net)
    assert with_map(subject) == subject


def test_a_squashed_picture_is_seen_whole():
    geometry = Geometry(crop=(6, 8), squash=True)
    image = torch.rand(3, 30, 20, generator=generator(0, "squashed"))
    expected = nn.functional.interpolate(image[None], (6, 8), mode="bilinear", align_corners=False, antialias=True)[0]
    torch.testing.assert_close(geometry.fit(image), expected)
    assert not geometry.cuts_sides
    assert geometry.window(30, 20) == (0, 0, 20, 30)
    assert geometry.keeps(torch.tensor([[0.0, 0.0, 20.0, 30.0]]), 30, 20).tolist() == [True]


def test_a_crop_of_a_wide_photograph_loses_an_eighth_of_it_on_either_side():
    geometry = Geometry(crop=(224, 224), resize=224)
    assert geometry.cuts_sides
    assert geometry.window(480, 640) == pytest.approx((80, 0, 560, 480), abs=2)
    boxes = torch.tensor([[90.0, 0.0, 550.0, 480.0], [70.0, 10.0, 200.0, 90.0], [300.0, 0.0, 570.0, 90.0]])
    assert geometry.keeps(boxes, 480, 640).tolist() == [True, False, False]


@given(
    st.integers(8, 20), st.integers(8, 20), st.integers(0, 18), st.integers(0, 18), st.integers(1, 6), st.integers(1, 6)
)
def test_a_box_is_kept_if_and_only_if_none_of_its_pixels_is_cut_away(height, width, left, top, wide, high):
    left, top = min(left, width - wide), min(top, height - high)
    picture = torch.zeros(3, height, width)
    picture[:, top : top + high, left : left + wide] = 1
    geometry = Geometry(crop=(8, 8))
    box = torch.tensor([[left, top, left + wide, top + high]], dtype=torch.float32)
    seen = geometry.fit(picture)[0].sum().item()
    assert geometry.keeps(box, height, width).item() is (seen == wide * high)


def test_a_picture_is_not_both_squashed_and_cropped():
    with pytest.raises(ValueError, match="leave resize out"):
        Geometry(crop=(8, 8), resize=9, squash=True)
