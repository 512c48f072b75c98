"""The audit of binding: what is measured of a group, what it costs, what is shown, and what the scorers leave out."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from audits import test_binding as audit
from audits.shares import share_so_far
from audits.test_captions import choice
from benchmarks import binding_controls as controls
from camcore.cost import metered
from camcore.errors import Undefined
from camcore.images import Batch, load
from camcore.metrics.binding import interaction
from camcore.statistics import clopper_pearson
from camcore.subject import ImageText
from camcore.verdict import Overlay, Table
from fixtures.controls import binding_scorers as scorers
from fixtures.datasets.binding_scenes import RELATIONS, Bindings, binding_scenes
from fixtures.datasets.captions import drawn_captions
from fixtures.subjects.spec import find_image_text
from fixtures.vision_language.tiny_clip import save_tiny_clip

COUNT = 10


@pytest.fixture(scope="module")
def bindings() -> Bindings:
    return binding_scenes(COUNT, seed=21, size=scorers.SIDE)


def batch(bindings: Bindings, *chosen: int) -> Batch:
    data = bindings.first
    ids = [data.ids[index] for index in chosen or range(COUNT)]
    return load(data, ids, scorers.scorer("x", scorers.constant).geometry, seed=0, device=torch.device("cpu"))


@pytest.mark.slow
def test_what_is_measured_of_a_group_does_not_depend_on_its_batch_and_costs_three_forwards(bindings: Bindings) -> None:
    subject = scorers.scorer("oracle", scorers.oracle)
    assert isinstance(subject, ImageText)
    with metered() as cost:
        together = audit.binding(subject, batch(bindings), captions=drawn_captions(bindings))

    assert (cost.forwards, cost.backwards) == (3 * COUNT, 0)  # a grey picture beside the two
    for index in range(0, COUNT, 3):
        alone = audit.binding(subject, batch(bindings, index), captions=drawn_captions(bindings))
        for name, column in alone.items():
            torch.testing.assert_close(column[0], together[name][index], msg=name)
    for column in ("interaction", "group", "by_caption", "by_picture"):
        assert ((together[column] == 0) | (together[column] == 1)).all()


@pytest.mark.slow
def test_the_oracle_is_right_and_the_others_are_as_their_defect_has_it(bindings: Bindings) -> None:
    turned = {relation: partial(scorers.turned_round, relation=relation) for relation in RELATIONS}
    alone = {"oracle": scorers.oracle, "bag_of_words": scorers.bag_of_words, "constant": scorers.constant}
    found = {
        name: audit.binding(scorers.scorer("x", score), batch(bindings), captions=drawn_captions(bindings))
        for name, score in (alone | turned).items()
    }

    assert found["oracle"]["interaction"].all()
    assert found["oracle"]["group"].all()
    for relation in RELATIONS:
        its_own = torch.tensor([group.relation == relation for group in bindings.groups])
        assert torch.equal(found[relation]["interaction"] == 0, its_own)
    for name in ("bag_of_words", "constant"):
        assert not found[name]["interaction"].any()  # and not everything, as an argmax would have it
        assert found[name]["level"].all()


@pytest.mark.slow
def test_who_reads_colours_or_places_alone_lands_at_half_of_the_interactions() -> None:
    """A caption's weights are its own, so groups of the same captions go together: of each pair of captions one."""
    scenes = binding_scenes(300, seed=0, size=48)
    pictures, chosen = controls.drawn(scenes), controls.first_of_each(scenes)
    assert len(chosen) > 120
    for score in (scorers.colour_only, scorers.position_only):
        above = (interaction(controls.measured(score, scenes, pictures)) > 0).double()
        alone = clopper_pearson(int(above[chosen].sum()), len(chosen), level=0.95)
        assert alone.low <= 0.5 <= alone.high, score.__name__
        assert abs(above.mean() - 0.5) < 0.15  # of all 300: nowhere near the margin of 0.75
    assert not interaction(controls.measured(scorers.constant, scenes, pictures)).any()  # nothing, and not everything


@pytest.mark.parametrize("measure", [audit.binding, choice])
def test_scores_in_half_precision_are_refused_before_they_are_raised(measure, bindings: Bindings) -> None:
    """Raised first, they look like any others, and what was level stays level."""
    subject = scorers.scorer("half", lambda images, captions: scorers.oracle(images, captions).half())
    with pytest.raises(ValueError, match="single precision at least, got torch"):
        measure(subject, batch(bindings, 0), captions=drawn_captions(bindings))


@pytest.mark.slow
def test_the_mean_over_wordings_cancels_which_thing_is_named_first(bindings: Bindings) -> None:
    def first_named_and_larger(images: torch.Tensor, captions: list[str]) -> torch.Tensor:
        mass, names = scorers.look(images).mass, list(scorers.COLOURS)
        said = [[word for word in caption.split() if word in names] for caption in captions]
        return torch.stack([mass[:, names.index(words[0])] if words else mass[:, 0] for words in said], 1)

    found = audit.binding(
        scorers.scorer("x", first_named_and_larger), batch(bindings), captions=drawn_captions(bindings)
    )
    torch.testing.assert_close(found["margin"], torch.zeros(COUNT, dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.slow
def test_half_are_right_by_the_caption_or_the_picture_alone_however_much_that_decides(bindings: Bindings) -> None:
    def captions(images: torch.Tensor, said: list[str]) -> torch.Tensor:
        return torch.tensor([float(sum(map(ord, one))) for one in said]).expand(len(images), -1)

    def pictures(images: torch.Tensor, said: list[str]) -> torch.Tensor:
        columns = torch.arange(images.shape[3], dtype=images.dtype)
        return (images[:, 0] * columns).sum((1, 2))[:, None].expand(-1, len(said))

    found = audit.binding(scorers.scorer("captions", captions), batch(bindings), captions=drawn_captions(bindings))
    told = torch.tensor([sum(map(ord, "".join(a))) != sum(map(ord, "".join(b))) for a, b in said_of(bindings)])
    assert torch.equal(found["text_only"], told.double() / 2)
    assert torch.equal(found["by_caption"], told.double())
    assert not (found["by_picture"] + found["picture_only"] + found["interaction"]).any()

    found = audit.binding(scorers.scorer("pictures", pictures), batch(bindings), captions=drawn_captions(bindings))
    assert (found["picture_only"] == 0.5).all()
    assert (found["by_picture"] == 1).all()
    assert not (found["by_caption"] + found["text_only"] + found["interaction"]).any()


def said_of(bindings: Bindings) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [group.captions for group in bindings.groups]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip-oracle", "clip-colour-only", "clip-trained"])
def test_a_caption_scores_the_same_wherever_it_is_offered(name: str, bindings: Bindings) -> None:
    subject = find_image_text(f"control:{name}")
    drawn = binding_scenes(1, seed=21, size=subject.geometry.crop[0])
    pictures = torch.stack(drawn.draw(drawn.groups[0])[0])
    captions = [one for wordings in bindings.groups[0].captions for one in wordings]
    offered = subject.similarity(pictures, captions)

    torch.testing.assert_close(subject.similarity(pictures, captions[::-1]).flip(1), offered)
    torch.testing.assert_close(subject.similarity(pictures.flip(0), captions).flip(0), offered)


@pytest.mark.slow
def test_captions_of_two_groups_that_the_model_cannot_tell_apart_are_never_compared(bindings: Bindings) -> None:
    """A text tower to which apples are mugs, though their tokens differ."""
    trained = find_image_text("control:clip-trained")
    apple, mug = (trained.tokenise([word])["words"][0, 0] for word in ("apple", "mug"))

    def blurred(tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        words = tokens["words"]
        return trained.embed_text({**tokens, "words": torch.where(words == apple, mug, words)})

    subject = replace(trained, embed_text=blurred)
    renamed = [
        replace(
            group,
            captions=tuple(tuple(one.replace(group.thing, thing) for one in said) for said in group.captions),
        )
        for group, thing in zip((bindings.groups[0], bindings.groups[0]), ("apple", "mug"), strict=True)
    ]
    drawn = binding_scenes(1, seed=21, size=subject.geometry.crop[0])
    pictures = torch.stack([torch.stack(drawn.draw(drawn.groups[0])[0] * 2)[:3]] * 2)
    with pytest.raises(ValueError, match="the same embedding"):
        subject.similarity(pictures[0], [group.captions[0][0] for group in renamed])
    with metered() as cost:
        together = audit.averaged(audit.worded(subject, renamed, pictures))

    assert cost.forwards == 6
    torch.testing.assert_close(together[:1], audit.averaged(audit.worded(subject, renamed[:1], pictures[:1])))
    torch.testing.assert_close(together[0], together[1])
    blind = replace(renamed[0], captions=(("a red apple",), ("a red mug",)))
    with pytest.raises(ValueError, match="the same embedding"):  # these two would be
        audit.worded(subject, [blind], pictures[:1])


@pytest.mark.slow
def test_captions_that_are_the_same_to_the_tokeniser_are_level_and_so_wrong(bindings: Bindings) -> None:
    """Words that it does not know are all the same to it, as upper case is to others."""
    subject = find_image_text("control:clip-trained")
    drawn = binding_scenes(3, seed=21, size=subject.geometry.crop[0])
    asked = load(drawn.first, drawn.first.ids, subject.geometry, seed=0, device=torch.device("cpu"))
    said = (("a vizsla to the left of a mug",) * 4, ("a weasel to the left of a mug",) * 4)
    unknown = replace(drawn, groups=(replace(drawn.groups[0], captions=said), *drawn.groups[1:]))
    captions = drawn_captions(unknown)
    found, chosen = audit.binding(subject, asked, captions=captions), choice(subject, asked, captions=captions)

    assert found["level"].tolist() == [1, 0, 0]
    assert [found[name][0].item() for name in ("interaction", "text", "group")] == [0, 0, 0]
    assert (chosen["choice"][0], chosen["level"][0]) == (-1, 2)
    assert torch.equal(found["margin"][1:], audit.binding(subject, asked, captions=drawn_captions(drawn))["margin"][1:])


@pytest.mark.slow
def test_two_towers_whose_text_is_a_bag_of_words_are_judged_and_level_where_words_change_places(
    bindings: Bindings,
) -> None:
    subject = find_image_text("control:clip-trained")
    read = subject.embed_text
    bag = replace(
        subject, embed_text=lambda tokens: read({**tokens, "words": tokens["words"].sort(1, descending=True).values})
    )
    drawn = binding_scenes(COUNT, seed=21, size=subject.geometry.crop[0])
    asked = load(drawn.first, drawn.first.ids, subject.geometry, seed=0, device=torch.device("cpu"))
    found = audit.binding(bag, asked, captions=drawn_captions(drawn))

    assert (found["level"] == 1).all()
    for never in ("interaction", "text", "image", "group"):
        assert (found[never] == 0).all()
    assert (audit.binding(subject, asked, captions=drawn_captions(drawn))["level"] == 0).all()


def test_a_claim_of_a_relation_is_about_its_groups_alone(bindings: Bindings) -> None:
    for relation, question in audit.RELATED.items():
        held = audit.about(drawn_captions(bindings), question)
        assert held.ids == tuple(group.id for group in bindings.groups if group.relation == relation)
    assert audit.about(drawn_captions(bindings), audit.GROUP).ids == bindings.first.ids
    one = binding_scenes(2, seed=1, size=48, relations=("on",))
    with pytest.raises(Undefined, match="none of the groups is about left and right"):
        audit.about(drawn_captions(one), audit.RELATED["left"])


def test_captions_are_read_and_others_are_not() -> None:
    for group in binding_scenes(40, seed=1, size=48).groups:
        for said, (first, second) in zip(group.captions, (group.colours, group.colours[::-1]), strict=True):
            for caption in said:
                assert scorers.read(caption) == scorers.Said(group.relation, first, second)
    assert scorers.read("a photo of a cat") is None
    assert scorers.read("a tall mug to the left of a green mug") is None


@pytest.mark.slow
def test_what_is_shown_has_both_pictures_with_their_own_caption_first(bindings: Bindings) -> None:
    subject, some = scorers.scorer("oracle", scorers.oracle), batch(bindings)
    columns = audit.binding(subject, some, captions=drawn_captions(bindings))
    rows = {one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(some.ids)}
    shown = list(audit.show(subject, some, rows, column="interaction", tables=True, captions=drawn_captions(bindings)))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert len(pictures) == 2 * COUNT
    group = bindings.groups[0]
    assert pictures[0].caption.startswith(f"true: {group.captions[0][0]} ")
    assert pictures[1].caption.startswith(f"true: {group.captions[1][0]} ")
    assert pictures[1].caption.endswith("preferred: the true one")
    assert torch.equal(pictures[1].image, bindings.draw(group)[0][1])
    rates, preferred, colours, *_swaps = (one for one in shown if isinstance(one, Table))
    assert sum(line[1] for line in colours.rows) == COUNT
    assert {line[0] for line in colours.rows} == {" and ".join(sorted(group.colours)) for group in bindings.groups}
    assert [line[0] for line in rates.rows] == [line[0] for line in preferred.rows] == ["all", *RELATIONS]
    assert rates.rows[0][1:3] == (COUNT, share_so_far(torch.ones(COUNT)))
    assert preferred.rows[0][1] == pytest.approx(columns["margin"].mean().item() / 2, abs=1e-4)
    assert preferred.rows[0][4:] == ("0.00",) * 4  # level: a grey picture and "a picture" say nothing
    alone = audit.show(subject, some, rows, column="interaction", tables=False, captions=drawn_captions(bindings))
    assert not any(isinstance(one, Table) for one in alone)


@pytest.mark.slow
def test_a_clip_from_a_folder_is_asked_like_any_other(bindings: Bindings, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    subject = find_image_text(f"hf:{save_tiny_clip(tmp_path / 'clip')}")
    drawn = binding_scenes(4, seed=2, size=max(subject.geometry.crop))
    data = drawn.first
    some = load(data, data.ids, subject.geometry, seed=0, device=subject.device)
    with metered() as cost:
        columns = audit.binding(subject, some, captions=drawn_captions(drawn))

    assert cost.forwards == 12
    assert columns["margin"].isfinite().all()
    assert columns["margin"].abs().min() > 0  # random weights tell captions apart, if not rightly
