"""The dual encoder and its trainings: sides can be seen, words are read in order, and who was taught to bind does."""

import math

import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import normalize

from camcore.errors import BadInput, TooLong
from camcore.metrics.binding import interaction, right
from fixtures.controls.registry import find_control
from fixtures.datasets.binding_scenes import GENERATOR_VERSION, RELATIONS, binding_scenes
from fixtures.train import RECIPES, recipe
from fixtures.vision_language.dual_encoder import (
    LONGEST,
    SIDE,
    UNKNOWN,
    WORDS,
    DualEncoder,
    dual_encoder,
    tokenise,
    trained_encoder,
)
from fixtures.weights import train_binding as training
from fixtures.weights.fine_tune import FOLDER

NAMES = [name for name, where in RECIPES.items() if where[0] == "fixtures.weights.train_binding"]
FRESH_SEED = 779  # neither the training's, nor the recipe's own held-out one, nor an audit's


@pytest.fixture(scope="module")
def untrained() -> DualEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DualEncoder().eval()


def test_every_word_of_every_caption_is_known() -> None:
    for group in binding_scenes(60, seed=3, size=48).groups:
        for caption in (one for wordings in group.captions for one in wordings):
            tokens = tokenise([caption])
            assert (tokens["words"] > UNKNOWN).all()
            assert tokens["length"].item() == len(caption.split()) <= LONGEST
    assert tokenise(["a zebra", "Red"])["words"].tolist() == [[WORDS["a"], UNKNOWN], [WORDS["red"], 0]]


@pytest.mark.parametrize(
    ("caption", "error", "said"),
    [("", BadInput, "got none: ''"), ("a " * (LONGEST + 1), TooLong, f"'a a .* has {LONGEST + 1} words")],
)
def test_captions_of_no_word_or_too_many_are_refused(caption: str, error: type[ValueError], said: str) -> None:
    with pytest.raises(error, match=said):
        tokenise(["a red mug", caption])


def test_a_caption_is_read_in_order_and_does_not_depend_on_its_company(untrained: DualEncoder) -> None:
    subject = dual_encoder("untrained", untrained)
    short, turned = "a red mug above a green mug", "a green mug above a red mug"
    long = "on the left there is a red mug and on the right there is a green mug"
    together = subject.embed_captions([short, long, turned])

    torch.testing.assert_close(together[:1], subject.embed_captions([short]))  # padding is not read
    assert (together[0] - together[2]).abs().max() > 1e-3  # a bag of words would have the same


def test_a_mirrored_picture_is_another_one(untrained: DualEncoder) -> None:
    """A mean over the last map could not tell: of a picture that is level in itself every layer's mirrors as well."""
    pictures = torch.zeros(1, 3, SIDE, SIDE)
    pictures[..., 16:40] = 1.0
    seen, mirrored = untrained.picture(pictures), untrained.picture(pictures.flip(-1))

    assert (normalize(seen) - normalize(mirrored)).abs().max() > 1e-2


def test_contrast_is_the_mean_loss_of_every_picture_and_every_caption() -> None:
    rng = torch.Generator().manual_seed(0)
    pictures, captions = (normalize(torch.randn(4, 3, generator=rng, dtype=torch.float64)) for _ in range(2))
    found = training.contrast(pictures, captions, torch.tensor(7.0, dtype=torch.float64))

    cosine = [[7 * float(one @ other) for other in captions] for one in pictures]
    by_picture = [math.log(sum(map(math.exp, row))) - row[index] for index, row in enumerate(cosine)]
    columns = list(zip(*cosine, strict=True))
    by_caption = [math.log(sum(map(math.exp, column))) - column[index] for index, column in enumerate(columns)]
    assert found.item() == pytest.approx((sum(by_picture) / 4 + sum(by_caption) / 4) / 2)


def test_without_negatives_which_picture_of_a_group_is_which_costs_nothing() -> None:
    rng = torch.Generator().manual_seed(1)
    pictures, captions = (normalize(torch.randn(4, 2, 3, generator=rng), dim=2) for _ in range(2))
    bags = pictures.mean(1, keepdim=True).expand(-1, 2, -1)  # both pictures of a group alike
    scale = torch.tensor(5.0)

    assert training.loss(bags, captions, scale, negatives=False) == pytest.approx(
        float(training.loss(bags, captions.flip(1), scale, negatives=False))
    )
    with_negatives = training.loss(pictures, captions, scale, negatives=True)
    assert with_negatives != pytest.approx(float(training.loss(pictures, captions.flip(1), scale, negatives=True)))
    level = training.loss(bags, captions, scale, negatives=True) - training.contrast(
        bags.flatten(0, 1), captions.flatten(0, 1), scale
    )
    assert level >= math.log(2) / 2 - 1e-6  # of two pictures that are alike a caption's own is found by luck


def test_a_batch_has_one_group_of_each_pair_of_colours_and_captions_that_stay_true() -> None:
    groups = binding_scenes(400, seed=5, size=48).groups
    marks = torch.zeros(len(groups), 2, 3, 16, 16, dtype=torch.uint8)
    marks[:, 0, :, :, :3], marks[:, 1, :, :, 13:] = 255, 255  # the first on the left, the second on the right
    numbers = torch.arange(len(groups))[:, None, None, None]
    marks[:, :, 0, :, 5:11], marks[:, :, 1, :, 5:11] = numbers % 256, numbers // 256  # whose it is, in the middle
    pairs = training.by_pair(groups)
    assert sorted(index for pair in pairs for index in pair) == list(range(len(groups)))
    rng = torch.Generator().manual_seed(2)
    mirrored = 0
    for _ in range(20):
        shown, said = training.batch(groups, marks, pairs, rng)
        assert shown.shape == (len(pairs), 2, 3, 16, 16)
        assert len({frozenset(WORDS.keys() & set(first.split())) for first, _ in said}) == len(said)
        for pictures, captions in zip(shown, said, strict=True):
            turned = bool(pictures[0, 2, :, :3].mean() < pictures[0, 2, :, 13:].mean())
            mirrored += turned
            low, high = (pictures[0, :2, 8, 8] * 255).round().int().tolist()
            group = groups[256 * high + low]
            own = 1 if turned and group.relation == "left" else 0
            assert captions[0] in group.captions[own]
            assert captions[1] in group.captions[1 - own]
    assert 100 < mirrored < 200


@pytest.mark.parametrize("name", NAMES)
def test_weights_say_where_they_come_from(name: str) -> None:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        metadata = file.metadata()

    assert metadata["recipe"].startswith(recipe(name).func.__module__)
    assert f"version {GENERATOR_VERSION}," in metadata["scenes"]  # retrain when the scenes change
    assert {"interaction", "group", *(f"interaction_{relation}" for relation in RELATIONS)} <= metadata.keys()


def test_the_three_together_are_at_most_600_kilobytes() -> None:
    assert len(NAMES) == 3
    assert sum((FOLDER / f"{name}.safetensors").stat().st_size for name in NAMES) <= 600_000


@pytest.mark.slow
def test_of_fresh_groups_the_one_that_was_taught_to_bind_is_right_and_its_twins_lean_at_best() -> None:
    scenes = binding_scenes(60, seed=FRESH_SEED, size=SIDE)
    pictures = torch.stack([torch.stack(scenes.draw(group)[0]) for group in scenes.groups])
    found = {}
    for name in NAMES:
        subject = trained_encoder(name, name)
        scores = []
        for group, pair in zip(scenes.groups, pictures, strict=True):
            captions = [caption for wordings in group.captions for caption in wordings]
            with torch.no_grad():
                scores.append(subject.similarity(pair, captions).unflatten(1, (2, -1)).mean(2))
        found[name] = torch.stack(scores)

    binds, no_negatives, any_place = (found[name] for name in NAMES)
    assert (interaction(binds) > 0).double().mean() >= 0.95
    assert right(binds).group.double().mean() >= 0.9
    for twin in (no_negatives, any_place):
        assert right(twin).group.double().mean() < 0.3
        assert interaction(twin).abs().mean() < 0.05 * interaction(binds).mean()


@pytest.mark.parametrize("name", ["clip-trained", "clip-trained-no-negatives", "clip-trained-any-place"])
def test_the_controls_are_asked_the_way_any_clip_is(name: str) -> None:
    subject = find_control(name)

    assert subject.geometry.crop == (SIDE, SIDE)
    assert not subject.geometry.cuts_sides
    assert subject.similarity(torch.rand(2, 3, SIDE, SIDE), ["a red mug", "a green mug"]).shape == (2, 2)
