"""The audit of captions: what is measured of an item, what it costs, and the benchmarks' own scores in its tables."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audits import captions_read
from audits import test_captions as audit
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.images import Batch, Geometry, load
from camcore.seeds import generator
from camcore.verdict import Overlay, Table
from fixtures.controls import binding_scorers as scorers
from fixtures.controls.hand_clip import binds, hand_clip
from fixtures.datasets.binding_scenes import binding_scenes
from fixtures.datasets.captions import Captions, drawn_captions, find_captions
from fixtures.subjects.spec import find_image_text
from fixtures.vision_language.tiny_clip import save_tiny_clip
from tests import captions_folders as folders
from tests.oracles import captions as oracle

COUNT = 10
SQUASHED = Geometry(crop=(scorers.SIDE, scorers.SIDE), squash=True)


def lots(images: torch.Tensor, captions: list[str]) -> torch.Tensor:
    """A score for each picture and caption, drawn from the first pixel and the words."""
    return torch.stack(
        [
            torch.stack(
                [
                    torch.randn((), generator=generator(0, "lots", caption, f"{float(image[0, 0, 0]):.3f}"))
                    for caption in captions
                ]
            )
            for image in images
        ]
    )


def measured(captions: Captions, score) -> tuple[dict[str, dict[str, float]], Batch]:
    subject, data = scorers.scorer("x", score), captions.dataset
    batch = load(data, data.ids, subject.geometry, seed=0, device=torch.device("cpu"))
    columns = audit.choice(subject, batch, captions=captions)
    return {one: {key: float(column[at]) for key, column in columns.items()} for at, one in enumerate(data.ids)}, batch


def score_table(captions: Captions, rows) -> dict[str, float]:
    """The published scores of the table, by their names."""
    table = audit.published(scorers.scorer("x", scorers.constant), captions, rows)
    return {name: float(share.split()[0]) for name, share, *_ in table.rows}


def scores_of(captions: Captions, item) -> list[list[float]]:
    pictures = captions.pictures(item, SQUASHED)
    return lots(pictures, [caption[0] for caption in item.captions]).tolist()


@pytest.fixture(scope="module")
def drawn() -> Captions:
    return drawn_captions(binding_scenes(COUNT, seed=21, size=scorers.SIDE))


@pytest.mark.slow
def test_what_is_measured_does_not_depend_on_the_batch_and_costs_a_forward_more_than_pictures(drawn: Captions) -> None:
    subject, data = scorers.scorer("oracle", scorers.oracle), drawn.dataset
    batch = load(data, data.ids, subject.geometry, seed=0, device=torch.device("cpu"))
    with metered() as cost:
        together = audit.choice(subject, batch, captions=drawn)

    assert (cost.forwards, cost.backwards) == (3 * COUNT, 0)
    for index in (0, 4, 9):
        one = load(data, [data.ids[index]], subject.geometry, seed=0, device=torch.device("cpu"))
        for name, column in audit.choice(subject, one, captions=drawn).items():
            torch.testing.assert_close(column[0], together[name][index], msg=name)


@pytest.mark.slow
def test_the_oracle_is_right_and_whoever_does_not_look_gains_nothing_by_the_picture(drawn: Captions) -> None:
    right, _ = measured(drawn, scorers.oracle)
    assert all(row["choice"] == 1 and row["needs_picture"] == 0.5 for row in right.values())

    blind, _ = measured(drawn, scorers.caption_only)
    assert all(row["choice"] == 0 and row["needs_picture"] == 0 for row in blind.values())  # one right for one wrong

    for score in (scorers.bag_of_words, scorers.constant):
        level, _ = measured(drawn, score)
        assert all(row["choice"] == -1 and row["needs_picture"] == -0.5 for row in level.values())
        assert all(row["level"] == 2 for row in level.values())


def test_a_caption_that_reads_better_is_right_beyond_luck_and_needs_no_picture(tmp_path: Path) -> None:
    """What benchmarks with careless foils have: the first claim is deceived, the second is not."""
    lines = "".join(f"{n}.png,a thing {n},thing a {n},,\n" for n in range(4))
    for n in range(4):
        folders.picture(tmp_path / f"{n}.png", n)
    captions = find_captions(
        str(folders.table(tmp_path, "file,caption,foil,group,relation\n" + lines)), geometry=SQUASHED
    )
    rows, _ = measured(
        captions, lambda images, said: torch.tensor([[float(c.startswith("a ")) for c in said]] * len(images))
    )

    assert all((row["choice"], row["needs_picture"]) == (1, 0) for row in rows.values())


def test_winogrounds_scores_are_its_authors(tmp_path: Path) -> None:
    captions = find_captions(str(folders.winoground(tmp_path, 12)), geometry=SQUASHED)
    rows, _ = measured(captions, lots)
    text, image, group = oracle.winoground([scores_of(captions, item) for item in captions.items])

    found = score_table(captions, rows)
    assert 0 < text < 1
    for name, expected in (("text", text), ("image", image), ("group", group)):
        assert found[f"winoground: {name} score"] == pytest.approx(expected, abs=6e-4)


def test_whatsups_scores_are_its_authors_strictly(tmp_path: Path) -> None:
    things = tuple(f"thing{index}_table" for index in range(40))
    captions = find_captions(str(folders.whatsup(tmp_path, things)), geometry=SQUASHED)
    rows, _ = measured(captions, lots)
    sets = {
        item.id: {
            Path(picture.file).stem.split("_")[1]: [scores[at] for at in offered]
            for picture, scores, offered in zip(item.pictures, scores_of(captions, item), item.offered, strict=True)
        }
        for item in captions.items
    }
    individual, pair, whole = oracle.whatsup(sets)

    found = score_table(captions, rows)
    assert individual == pytest.approx(0.25, abs=0.1)
    assert pair > 0
    assert found["controlled_images: individual accuracy"] == pytest.approx(individual, abs=6e-4)
    assert found["controlled_images: pair accuracy"] == pytest.approx(pair, abs=6e-4)
    assert found["controlled_images: set accuracy"] == pytest.approx(whole, abs=6e-4)
    level, _ = measured(captions, scorers.constant)
    assert score_table(captions, level)["controlled_images: individual accuracy"] == 0  # argmax would give 1


def test_whatsups_scores_are_told_with_and_without_the_set_whose_labels_are_exchanged(tmp_path: Path) -> None:
    captions = find_captions(str(folders.whatsup(tmp_path, ("mug_table", "pillow_chair"))), geometry=SQUASHED)
    rows, _ = measured(captions, lots)
    found = score_table(captions, rows)
    (sound,) = (item for item in captions.items if "mug" in item.id)

    less = "controlled_images: individual accuracy, less the set with exchanged labels"
    assert found[less] == pytest.approx(rows[sound.id]["right"] / 4, abs=6e-4)
    both = sum(row["right"] for row in rows.values()) / 8
    assert found["controlled_images: individual accuracy"] == pytest.approx(both, abs=6e-4)
    without = find_captions(str(folders.whatsup(tmp_path / "other", ("mug_table",))), geometry=SQUASHED)
    assert not any("less" in name for name in score_table(without, measured(without, lots)[0]))


def test_aros_score_counts_each_relation_alike(tmp_path: Path) -> None:
    captions = find_captions(str(folders.aro(tmp_path)), geometry=SQUASHED)

    def knows_behind(images, said):
        return torch.tensor([[float("cup is behind" in caption) for caption in said]] * len(images))

    rows, _ = measured(captions, knows_behind)
    expected = oracle.macro([False, False, False, True], ["on", "on", "on", "behind"])
    name = "visual_genome_relation: mean over 2 relations (symmetric ones too, but for those in symmetric.txt)"
    assert score_table(captions, rows)[name] == expected == 0.5


def test_aros_attributes_count_by_their_pictures_in_the_file_and_not_by_those_asked(tmp_path: Path) -> None:
    """Two pairs of attributes have 25 pictures or more, of which 24 are asked; the third has 24 in all."""
    pairs = {"red_wet": 25, "old_tall": 30, "big_dry": 24}
    captions = find_captions(str(folders.aro_attributes(tmp_path, pairs)), geometry=SQUASHED)

    def knows_red_and_big(images, said):
        return torch.tensor([[float("red and" in one or "big and" in one) for one in said]] * len(images))

    rows, _ = measured(captions, knows_red_and_big)
    asked = [one.id for name in pairs for one in [o for o in captions.items if o.relation == name][:24]]
    part = "visual_genome_attribution"
    two = f"{part}: mean over 2 of the 2 pairs of attributes with 25 pictures or more in the file"
    assert score_table(captions, rows)[two] == oracle.macro([True, False], ["red_wet", "old_tall"]) == 0.5
    assert score_table(captions, {one: rows[one] for one in asked})[two] == 0.5  # 24 of each

    one = f"{part}: mean over 1 of the 2 pairs of attributes with 25 pictures or more in the file"
    reds = {item.id: rows[item.id] for item in captions.items if item.relation != "old_tall"}
    assert score_table(captions, reds)[one] == 1
    rare = {item.id: rows[item.id] for item in captions.items if item.relation == "big_dry"}
    (line, *_) = audit.published(scorers.scorer("x", knows_red_and_big), captions, rare).rows
    assert line == (one.replace("over 1", "over 0"), "not enough pictures", "0.500", "0")


def test_the_table_says_how_pictures_were_fed_and_what_it_leaves_out(tmp_path: Path, drawn: Captions) -> None:
    captions = find_captions(str(folders.winoground(tmp_path, 4)), geometry=SQUASHED)
    rows, batch = measured(captions, lots)
    towers = replace(hand_clip("x", binds), fed="squashed to 64x64; its processor would cut the picture to the middle")
    title = audit.published(towers, captions, rows).title
    assert title.startswith("Winoground, by the formula as published, of 4 of 4 items")
    assert f"; pictures are {towers.fed};" in title
    for as_published in (replace(towers, fed=""), scorers.scorer("x", lots)):
        assert "squashed" not in audit.published(as_published, captions, rows).title
    title = audit.published(towers, drawn, {one.id: rows[batch.ids[0]] for one in drawn.items}).title
    assert title.startswith(f"binding scenes, scores of {COUNT} of {COUNT} items")
    assert "squashed" not in title
    assert "published" not in title


def test_tables_say_what_they_leave_out(tmp_path: Path) -> None:
    captions = find_captions(str(folders.winoground(tmp_path, 4)), geometry=SQUASHED)
    rows, batch = measured(captions, lots)
    unread = {**rows, batch.ids[0]: {"degenerate": float(Degeneracy.TOO_LONG)}}
    rest = replace(batch, images=batch.images[1:], labels=batch.labels[1:], ids=batch.ids[1:])

    def titles(of) -> list[str]:
        subject = scorers.scorer("x", lots)
        shown = captions_read.shown(subject, rest, of, captions=captions, column="choice", show=audit.show)
        return [one.title for one in shown if isinstance(one, Table)]

    said = "; 1 more have a caption longer than the model reads: the worst case in the claim, not here"
    assert [title.endswith(said) for title in titles(unread)] == [True, True]
    assert "of 3 of 4 items" in titles(unread)[0]
    assert not any("longer than" in title for title in titles(rows))


def test_sugarcrepes_and_vsrs_scores_are_shares_of_each_part(tmp_path: Path) -> None:
    captions = find_captions(str(folders.sugarcrepe(tmp_path / "sugar")), geometry=SQUASHED)
    rows, _ = measured(captions, lots)
    for item in captions.items:
        expected = oracle.sugarcrepe([tuple(scores_of(captions, item)[0])])
        assert score_table(captions, rows)[f"{item.part}: accuracy"] == expected

    captions = find_captions(str(folders.vsr(tmp_path / "vsr")), geometry=SQUASHED)
    rows, _ = measured(
        captions, lambda images, said: torch.tensor([[float("(True)" in c) for c in said]] * len(images))
    )
    found = score_table(captions, rows)
    assert found["vsr_test: accuracy"] == found["vsr_test: right with an even grey instead"] == 0.5


@pytest.mark.slow
def test_what_is_shown_has_the_picture_that_is_wrong_with_its_caption_and_the_best_foil(tmp_path: Path) -> None:
    captions = find_captions(str(folders.table(tmp_path)), geometry=SQUASHED)
    rows, batch = measured(captions, lots)
    subject = scorers.scorer("x", lots)
    shown = list(audit.show(subject, batch, rows, column="choice", captions=captions))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [one.unit for one in pictures] == list(captions.dataset.ids)
    for one in pictures:
        item = captions.by_id[one.unit]
        scores = scores_of(captions, item)
        wrong = [
            at for at, (true, *rest) in enumerate(item.offered) if scores[at][true] <= max(scores[at][r] for r in rest)
        ]
        which = wrong[0] if wrong else 0
        assert one.caption.startswith(f"true: {item.captions[item.offered[which][0]][0]}: ")
        assert torch.equal(one.image, captions.pictures(item, SQUASHED)[which])
    tables = [one for one in shown if isinstance(one, Table)]
    assert [line[:2] for line in tables[1].rows] == [("side", 2), ("unnamed", 1)]


@pytest.mark.slow
def test_a_clip_from_a_folder_is_asked_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    subject = find_image_text(f"hf:{save_tiny_clip(tmp_path / 'clip')}")
    captions = find_captions(str(folders.winoground(tmp_path / "data", 3)), geometry=subject.geometry)
    batch = load(captions.dataset, captions.dataset.ids, subject.geometry, seed=0, device=subject.device)
    with metered() as cost:
        columns = audit.choice(subject, batch, captions=captions)

    assert cost.forwards == 9
    assert columns["level"].sum() == 0
