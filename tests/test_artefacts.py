import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from camcore.errors import BadInput
from camcore.perturbations import laid_over
from fixtures.artefacts import (
    EVERYWHERE,
    PLACES,
    SHARE,
    Artefact,
    Suspect,
    carrying,
    covered,
    fingerprint,
    library,
    read_artefact,
    suspects,
)
from tests.tiny import some_images

BY_NAME = {artefact.name: artefact for artefact in library()}


def square(place: str) -> Suspect:
    return Suspect(artefact=BY_NAME["yellow square"], place=place)


def test_names_are_unique_and_pictures_lie_in_range() -> None:
    assert len(BY_NAME) == len(library()) >= 15
    for artefact in library():
        assert artefact.rgba.shape[0] == 4
        assert 0 <= artefact.rgba.min() <= artefact.rgba.max() <= 1
        assert artefact.rgba[3].any()


def test_every_artefact_is_tried_in_every_place_it_can_be_in() -> None:
    tried = [(one.artefact.name, one.place) for one in suspects(library())]

    everywhere = [artefact for artefact in library() if artefact.everywhere]
    assert len(tried) == len(set(tried)) == len(PLACES) * (len(library()) - len(everywhere)) + len(everywhere)
    assert ("black border", EVERYWHERE) in tried
    assert {name for name, place in tried if place == "middle"} == {one.name for one in library() if not one.everywhere}


@pytest.mark.parametrize(
    ("place", "top", "left"),
    [("top left", 0, 0), ("top right", 0, 27), ("bottom left", 27, 0), ("bottom right", 27, 27), ("middle", 14, 14)],
)
def test_a_square_is_as_large_as_asked_and_where_it_is_said_to_be(place: str, top: int, left: int) -> None:
    colour, alpha = square(place).layer((32, 32))

    expected = torch.zeros(32, 32)
    expected[top : top + 5, left : left + 5] = 1
    assert round(SHARE * 32) == 5
    torch.testing.assert_close(alpha, expected)
    torch.testing.assert_close(colour, torch.tensor([1.0, 1.0, 0.0])[:, None, None] * expected)


@given(height=st.integers(4, 60), width=st.integers(4, 60), share=st.floats(0.01, 1), index=st.integers(0, 17))
def test_layers_have_the_pictures_size_and_lie_in_range(height: int, width: int, share: float, index: int) -> None:
    for place in (EVERYWHERE,) if library()[index].everywhere else PLACES:
        colour, alpha = Suspect(artefact=library()[index], place=place).layer((height, width), share=share)

        assert colour.shape == (3, height, width)
        assert alpha.shape == (height, width)
        assert 0 <= alpha.min() <= alpha.max() <= 1
        assert 0 <= colour.min() <= colour.max() <= 1
        assert alpha.any()


def test_artefacts_with_one_outline_cover_the_same_pixels() -> None:
    covered: dict[str, torch.Tensor] = {}
    for artefact in library():
        place = EVERYWHERE if artefact.everywhere else "middle"
        _, alpha = Suspect(artefact=artefact, place=place).layer((48, 48))
        torch.testing.assert_close(covered.setdefault(artefact.outline, alpha), alpha)
    assert len(covered) < len(library())


def test_what_is_laid_over_replaces_what_it_covers_and_nothing_else() -> None:
    images = some_images(2)
    colour, alpha = square("top left").layer((16, 16))
    changed = laid_over(images, colour[None], alpha)

    torch.testing.assert_close(changed[:, :, :3, :3], colour[:, :3, :3].expand(2, 3, 3, 3))
    assert torch.equal(changed[:, :, 3:], images[:, :, 3:])
    torch.testing.assert_close(laid_over(images, colour[None], alpha, opacity=0.5), (images + changed) / 2)
    assert torch.equal(laid_over(images, colour[None], alpha, opacity=0), images)


def test_the_users_own_is_read_with_its_transparency(tmp_path: Path) -> None:
    pixels = np.zeros((10, 20, 4), dtype=np.uint8)
    pixels[:, 10:] = (255, 0, 0, 255)
    Pillow.fromarray(pixels).save(tmp_path / "logo.png")

    read = read_artefact(tmp_path / "logo.png")

    assert read.name == "logo"
    assert read.rgba.shape == (4, 10, 20)
    assert read.rgba[3, :, 10:].eq(1).all()
    assert read.rgba[3].sum() == 100
    assert read.rgba[0, :, 10:].eq(1).all()


@pytest.mark.parametrize(
    ("size", "share", "name", "box"),
    [
        ("", SHARE, "bar", (37, 40, 0, 6)),
        ("@0.5", 0.5, "bar@0.5", (30, 40, 0, 20)),
        ("@1", 1.0, "bar@1.0", (20, 40, 0, 40)),
        ("@whole", None, "bar@whole", (0, 40, 0, 60)),
    ],
)
def test_the_users_own_keeps_its_proportions_and_is_as_large_as_it_is_said_to_be(
    tmp_path: Path, size: str, share: float | None, name: str, box: tuple[int, int, int, int]
) -> None:
    Pillow.new("RGB", (20, 10)).save(tmp_path / "bar.png")

    read = read_artefact(tmp_path / f"bar.png{size}")

    assert (read.name, read.share) == (name, share)
    place = EVERYWHERE if share is None else "bottom left"
    covers = Suspect(artefact=read, place=place).coverage(torch.zeros(1, 3, 40, 60)).nonzero()
    top, bottom, left, right = box
    wanted = torch.zeros(40, 60)
    wanted[top:bottom, left:right] = 1
    assert torch.equal(covers, wanted.nonzero())


def test_a_file_whose_name_has_an_at_is_that_file(tmp_path: Path) -> None:
    for name in ("me@0.5", "x@home.png"):
        Pillow.new("RGB", (4, 4)).save(tmp_path / name, format="png")
        assert read_artefact(tmp_path / name).share == SHARE


@pytest.mark.parametrize("size", ["@0", "@1.5", "@nan", "@-0.1", "@inf", "@big", "@"])
def test_a_size_that_is_none_is_refused_in_one_line(tmp_path: Path, size: str) -> None:
    Pillow.new("RGB", (4, 4)).save(tmp_path / "it.png")

    with pytest.raises(BadInput, match=r"expected FILE, FILE@whole or FILE@ and a share .* got '") as caught:
        read_artefact(tmp_path / f"it.png{size}")
    assert "\n" not in str(caught.value)


def test_two_sizes_of_one_picture_are_two_suspects(tmp_path: Path) -> None:
    Pillow.new("RGB", (4, 4)).save(tmp_path / "it.png")
    small, large = (read_artefact(tmp_path / f"it.png{size}") for size in ("", "@0.4"))

    assert small.outline != large.outline
    assert fingerprint([small]) != fingerprint([large])


def test_a_picture_without_transparency_covers_all_of_it(tmp_path: Path) -> None:
    Pillow.new("RGB", (8, 8), (0, 255, 0)).save(tmp_path / "green.jpg")

    assert read_artefact(tmp_path / "green.jpg").rgba[3].eq(1).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read as a picture"),
        (b"no picture", "cannot be read as a picture"),
        ("clear", "is transparent"),
    ],
)
def test_what_is_no_artefact_is_refused_in_one_line(tmp_path: Path, content: bytes | str | None, said: str) -> None:
    path = tmp_path / "it.png"
    if content == "clear":
        Pillow.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)

    with pytest.raises(BadInput, match=f"--audit-artefact {re.escape(repr(str(path)))} {said}") as caught:
        read_artefact(path)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_changes_with_a_pixel_and_with_a_name() -> None:
    one = library()[0]
    other_pixel = Artefact(name=one.name, rgba=one.rgba * 0.9, outline=one.outline)
    other_name = Artefact(name="x", rgba=one.rgba, outline=one.outline)

    assert len({fingerprint([each]) for each in (one, other_pixel, other_name)}) == 3
    assert fingerprint([one]) == fingerprint([Artefact(name=one.name, rgba=one.rgba.clone(), outline="else")])


def test_what_hides_a_suspect_is_a_piece_of_the_picture_without_an_edge_or_one_colour() -> None:
    images = some_images(2, size=48)
    ramp = torch.linspace(0, 1, 48).expand(1, 3, 48, 48)
    for suspect in suspects(library()):
        hidden, coverage = covered(images, suspect), suspect.coverage(images)
        outside = (coverage == 0).expand_as(images)
        assert torch.equal(hidden[outside], images[outside])
        taken = images.roll((16, 16), dims=(2, 3))
        between = (hidden - images) * (hidden - taken) <= 1e-6  # of both pictures, wherever it is hidden
        assert between.all()
        if suspect.artefact.name == "yellow square":
            solid = coverage > 0.5
            assert hidden[0][:, solid].std(1).min() > 0.5 * images[0].std()  # no one colour
            steps = [covered(ramp, suspect).diff(dim=3).abs().max(), carrying(ramp, suspect).diff(dim=3).abs().max()]
            assert steps[0] < 0.6 * steps[1]  # and no outline
