from dataclasses import replace

import pytest
import torch
from torch import nn

from camcore import CaptionScorer, ImageText, as_scorer
from camcore.cost import metered
from camcore.errors import TooLong
from camcore.imagetext import AT_ONCE, reads, same_rows
from camcore.seeds import generator
from tests.tiny import CLASSES, SIZE, some_images
from tests.worded_towers import DOG, LEFT, LONGEST, RIGHT, cosines, tokenise, towers


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
