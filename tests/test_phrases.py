"""`phrases.csv`: what is read of it, and what is refused in one line."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow

from camcore.images import Geometry
from fixtures.datasets.phrases import find_phrases, has_phrases
from tests import phrases_folders as folders
from tests.phrases_folders import found, refused
from tests.refusals import refusal

ONE, OTHER = "0.png,the red block,the red block,4,10,20,30", "0.png,a block,a block,28,10,44,30"


def test_the_lines_of_a_picture_are_a_group_for_each_claim(tmp_path: Path) -> None:
    phrases = found(folders.blocks(tmp_path, 3))

    assert [group.id for group in phrases.groups[:3]] == [
        "finds/picture/0.png",
        "sides/picture/0.png",
        "relations/picture/0.png",
    ]
    assert [len(group.sought) for group in phrases.groups] == [2, 2, 4] * 3
    assert phrases.dataset.ids == ("0.png", "1.png", "2.png")
    assert phrases.of("sides").ids == tuple(f"sides/picture/{number}.png" for number in range(3))
    assert phrases.of("sides").read("sides/picture/1.png").shape == (3, folders.HEIGHT, folders.WIDTH)
    first = phrases.groups[0].sought[0]
    assert (first.line, first.file, first.caption, first.phrase) == (2, "0.png", "the green block", "the green block")
    assert (first.box, first.foil, first.relation) == ((28, 10, 44, 30), "", "unnamed")
    assert phrases.things["0.png"] == ((28, 10, 44, 30), (52, 10, 68, 30), (4, 10, 20, 30), (76, 10, 92, 30))
    assert phrases.meant(phrases.by_id["relations/picture/0.png"].sought[3]) == 3
    assert has_phrases(str(tmp_path))
    assert not has_phrases(str(tmp_path / "0.png"))
    assert found(tmp_path / "phrases.csv").sha256 == phrases.sha256


def test_pictures_of_one_group_are_one_value_and_a_foil_and_a_relation_are_kept(tmp_path: Path) -> None:
    lines = (f"{line.replace('0.png', file)},series,{foil},on" for file in ("0.png", "./1.png") for line, foil in PAIR)
    phrases = found(folders.written(tmp_path, *lines, head=f"{folders.HEAD},group,foil,relation"))

    (group,) = phrases.groups
    assert group.id == "finds/group/series"
    assert [sought.file for sought in group.sought] == ["0.png", "0.png", "1.png", "1.png"]
    assert [sought.foil for sought in group.sought[:2]] == ["the red block of two", ""]
    assert {sought.relation for sought in group.sought} == {"on"}


PAIR = ((ONE, "the red block of two"), (OTHER, ""))


def test_whatever_the_verdict_depends_on_moves_the_hash(tmp_path: Path) -> None:
    before = found(folders.written(tmp_path, ONE, OTHER))
    words = found(folders.written(tmp_path, ONE, OTHER.replace("a block", "block")))
    box = found(folders.written(tmp_path, ONE, OTHER.replace("28", "27")))
    folders.written(tmp_path, ONE, OTHER)
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())

    assert len({one.sha256 for one in (before, words, box, found(tmp_path))}) == 4
    assert before.of("finds").sha256 != before.of("sides").sha256 != before.dataset.sha256


def test_boxes_are_squashed_with_their_picture(tmp_path: Path) -> None:
    phrases = found(folders.blocks(tmp_path, 1))
    picture, things = phrases.view("0.png", folders.SQUASHED)

    assert picture.shape == (3, 40, 60)
    across, down = 60 / folders.WIDTH, 40 / folders.HEIGHT
    torch.testing.assert_close(things[0], torch.tensor([28 * across, 10 * down, 44 * across, 30 * down]))
    for x0, y0, x1, y1 in things.round().int().tolist():  # on the block, and not beside it
        assert (picture[:, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].std((1, 2)) < 0.05).all()
        assert (picture[:, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].mean((1, 2)) - 128 / 255).abs().max() > 0.2


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```\n(file,caption,phrase,.*?)```", text, re.DOTALL)
    folders.blocks(tmp_path)
    (tmp_path / "phrases.csv").write_text(example, encoding="utf-8")
    Pillow.new("RGB", (483, 320)).save(tmp_path / "1.jpg")
    assert [group.claim for group in found(tmp_path).groups] == ["finds", "sides"]


SIDES = f"{folders.HEAD},claim"
LEFT, RIGHT = "0.png,the red block on the left,the red block,4,10,20,30", "the red block,76,10,92,30"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "lists no phrases"),
        ((ONE.replace("0.png", "gone.png"), OTHER), "line 2 of .* names 'gone.png': the file is missing"),
        ((ONE.replace("0.png", "../0.png"), OTHER), r"names '\.\./0.png'; expected a path inside the folder"),
        ((ONE.replace("0.png", "/etc/hostname"), OTHER), "names '/etc/hostname'; expected a path inside"),
        ((ONE.replace("0.png", "."), OTHER), r"line 2 of .* names '\.': is no regular file"),
        ((ONE.replace("0.png", "phrases.csv"), OTHER), "names 'phrases.csv': cannot be decoded"),
        (
            (ONE.replace("30", "50"), OTHER),
            "line 2 of .* gives '0.png' the box 4, 10, 20, 50, but the image is 96 wide",
        ),
        ((ONE.replace("20,30", "2,30"), OTHER), "the box 4, 10, 2, 30, but .* expected x0 < x1"),
        ((ONE.replace("4,10", "nan,10"), OTHER), "the box nan, 10, 20, 30, but the image"),
        ((ONE.replace("4,10", "left,10"), OTHER), "gives '0.png' the box 'left, 10, 20, 30'; expected four numbers"),
        ((ONE.replace("4,10", ",10"), OTHER), "the box ', 10, 20, 30'; expected four numbers"),
        (
            (ONE.replace("the red block,4", "the blue block,4"), OTHER),
            "line 2 of .*: expected 'the blue block' in 'the",
        ),
        (
            (ONE.replace("the red block,4", "red blo,4"), OTHER),
            "expected 'red blo' in 'the red block', it is not there",
        ),
        ((ONE.replace("the red block,4", ",4"), OTHER), "line 2 of .*: expected '' in 'the red block'"),
        ((ONE.replace("the red block,the", ",the"), OTHER), "expected 'the red block' in '', it is not there"),
        (("0.png,a block by a block,a block,4,10,20,30", OTHER), "expected 'a block' once in .*, it is there 2 times"),
        (("0.png,A block by a block,A block,4,10,20,30", OTHER), "expected 'a block' once in 'a block by a block'"),
        (("0.png," + "a" * 1001 + ",a,4,10,20,30", OTHER), "has a caption of 1,001 characters, expected 1000 at most"),
        ((ONE, ONE, OTHER), "lines 2 and 3 of .* ask for 'the red block' of 'the red block' in '0.png' twice"),
        (
            (ONE, OTHER.replace("28,10", "5,10").replace("44", "21")),
            "lines 2 and 3 of .* overlap by 0.88, and from 0.5",
        ),
        ((ONE,), "whoever reads no word can be right in 1 of the 1 lines of 'finds/picture/0.png'"),
        ((ONE, "0.png,red,red,4,10,20,30", OTHER), "whoever reads no word can be right in 2 of the 3 lines"),
        ((ONE, OTHER, ONE.replace("0.png", "1.png")), "in 1 of the 1 lines of 'finds/picture/1.png'"),
    ],
)
def test_a_line_that_cannot_be_asked_is_refused(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    message = refused(folders.written(tmp_path, *lines))
    assert re.search(words, message), message


def test_missing_columns_are_named(tmp_path: Path) -> None:
    message = refused(folders.written(tmp_path, "0.png,a,a", head="file,caption,phrase"))
    assert message.endswith(
        "needs the columns file, caption, phrase, x0, y0, x1, y1, [claim], [group], [foil], [relation]; it has file, "
        "caption, phrase"
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((f"{LEFT},side",), "line 2 of .* has the claim 'side'; expected finds, sides, relations"),
        ((f"{LEFT},sides",), "whoever reads no left and no right can be right in 1 of the 1 lines of 'sides/picture"),
        # the other words tell them apart
        ((f"{LEFT},sides", "0.png,a blue thing on the right,a blue thing,28,10,44,30,sides"), "in 2 of the 2 lines"),
        # no side is named
        ((f"{ONE},sides", f"{OTHER},sides"), "whoever reads no left and no right can be right in 2 of the 2 lines"),
        # one thing alone to be beside: left and right will do
        (
            tuple(
                f"0.png,the block {side} of the green block,the block,{box},relations"
                for side, box in (("left", "4,10,20,30"), ("right", "52,10,68,30"))
            ),
            "whoever reads left and right alone can be right in 2 of the 2 lines .*; let each picture be asked for "
            "what is left and right of two things at least",
        ),
    ],
)
def test_a_group_that_is_answered_without_what_its_claim_takes_is_refused(
    tmp_path: Path, lines: tuple[str, ...], words: str
) -> None:
    message = refused(folders.written(tmp_path, *lines, head=SIDES))
    assert re.search(words, message), message


def test_a_foil_is_another_caption_with_the_phrase(tmp_path: Path) -> None:
    for foil, words in (
        ("the red block", "a foil other than the caption"),
        ("a red block", "'the red block' in 'a red"),
    ):
        folders.written(tmp_path, f"{ONE},{foil}", f"{OTHER},", head=f"{folders.HEAD},foil")
        assert words in refused(tmp_path)


def test_a_picture_in_two_groups_of_a_claim_is_refused(tmp_path: Path) -> None:
    folders.written(tmp_path, f"{ONE},a", f"{OTHER},b", head=f"{folders.HEAD},group")
    assert "has '0.png' under 'group/a' and under 'group/b' for finds" in refused(tmp_path)


def test_too_many_lines_and_boxes_are_refused(tmp_path: Path) -> None:
    many = [f"0.png,thing {n},thing {n},{n},10,{n + 1},30" for n in range(65)]
    assert "gives '0.png' 65 boxes; expected 64 at most" in refused(folders.written(tmp_path, *many))
    few = [f"0.png,thing {n},thing {n},{n % 2},10,{n % 2 + 1},30" for n in range(66)]
    assert "has 66 lines; expected 64 at most" in refused(folders.written(tmp_path, *few))


def test_links_out_of_the_folder_are_refused_and_links_inside_it_are_not(tmp_path: Path) -> None:
    data = folders.written(tmp_path / "data", ONE, OTHER)
    (data / "0.png").rename(tmp_path / "out.png")
    (data / "0.png").symlink_to(tmp_path / "out.png")
    assert "line 2 of" in refused(data)
    assert "names '0.png': is a link out of the folder" in refused(data)
    (data / "0.png").unlink()
    (data / "0.png").symlink_to(data / "1.png")
    assert found(data).dataset.ids == ("0.png",)
    (data / "phrases.csv").rename(tmp_path / "out.csv")
    (data / "phrases.csv").symlink_to(tmp_path / "out.csv")
    assert "is a link out of the folder" in refused(data)


def test_a_model_that_would_be_shown_a_part_is_refused(tmp_path: Path) -> None:
    data = folders.written(tmp_path, ONE, OTHER)
    for geometry in (Geometry(crop=(40, 40)), Geometry(crop=(40, 40), resize=40)):
        message = refusal(find_phrases, str(data), geometry=geometry)
        assert "of '0.png', 96 x 48 pixels, the model would see" in message
        assert "give it a Geometry with squash=True" in message
