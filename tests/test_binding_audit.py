"""The audit of binding: what is measured of a group, what it costs, what is shown, and what the scorers leave out."""

from pathlib import Path

import pytest
import torch

from audits import test_binding as audit
from camcore.cost import metered
from camcore.images import Batch, load
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
def test_what_is_measured_of_a_group_does_not_depend_on_its_batch_and_costs_two_forwards(bindings: Bindings) -> None:
    subject = scorers.scorer("oracle", scorers.oracle)
    assert isinstance(subject, ImageText)
    with metered() as cost:
        together = audit.binding(subject, batch(bindings), captions=drawn_captions(bindings))

    assert (cost.forwards, cost.backwards) == (2 * COUNT, 0)
    for index in range(0, COUNT, 3):
        alone = audit.binding(subject, batch(bindings, index), captions=drawn_captions(bindings))
        for name, column in alone.items():
            torch.testing.assert_close(column[0], together[name][index], msg=name)
    for question in audit.QUESTIONS:
        values = together[question.name.partition("/")[2]]
        assert ((values == 0) | (values == 1)).all()


@pytest.mark.slow
def test_the_oracle_is_right_and_the_others_are_as_their_defect_has_it(bindings: Bindings) -> None:
    found = {
        score.__name__: audit.binding(scorers.scorer("x", score), batch(bindings), captions=drawn_captions(bindings))
        for score in (scorers.oracle, scorers.mirrored, scorers.bag_of_words, scorers.constant)
    }

    assert found["oracle"]["interaction"].all()
    assert found["oracle"]["group"].all()
    left = torch.tensor([group.relation == "left" for group in bindings.groups])
    assert torch.equal(found["mirrored"]["interaction"] == 0, left)
    for name in ("bag_of_words", "constant"):
        assert not found[name]["interaction"].any()  # and not everything, as an argmax would have it
        assert found[name]["level"].all()


@pytest.mark.slow
def test_the_mean_over_wordings_cancels_which_thing_is_named_first(bindings: Bindings) -> None:
    def first_named_and_larger(images: torch.Tensor, captions: list[str]) -> torch.Tensor:
        mass, names = scorers.look(images).mass, list(scorers.COLOURS)
        first = [min((caption.find(name), name) for name in names if name in caption)[1] for caption in captions]
        return torch.stack([mass[:, names.index(name)] for name in first], 1)

    found = audit.binding(
        scorers.scorer("x", first_named_and_larger), batch(bindings), captions=drawn_captions(bindings)
    )
    torch.testing.assert_close(found["margin"], torch.zeros(COUNT, dtype=torch.float64), atol=1e-7, rtol=0)


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
    shown = list(audit.show(subject, some, rows, column="interaction", captions=drawn_captions(bindings)))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert len(pictures) == 2 * COUNT
    group = bindings.groups[0]
    assert pictures[0].caption.startswith(f"{group.captions[0][0]}: ")
    assert pictures[1].caption.startswith(f"{group.captions[1][0]}: ")
    assert torch.equal(pictures[1].image, bindings.draw(group)[0][1])
    (table,) = (one for one in shown if isinstance(one, Table))
    assert [line[0] for line in table.rows] == ["all", *RELATIONS]
    assert table.rows[0][1:3] == (COUNT, "1.00 [0.69, 1.00]")


@pytest.mark.slow
def test_a_clip_from_a_folder_is_asked_like_any_other(bindings: Bindings, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    subject = find_image_text(f"hf:{save_tiny_clip(tmp_path / 'clip')}")
    drawn = binding_scenes(4, seed=2, size=max(subject.geometry.crop))
    data = drawn.first
    some = load(data, data.ids, subject.geometry, seed=0, device=subject.device)
    with metered() as cost:
        columns = audit.binding(subject, some, captions=drawn_captions(drawn))

    assert cost.forwards == 8
    assert columns["margin"].isfinite().all()
    assert columns["margin"].abs().min() > 0  # random weights tell captions apart, if not rightly
