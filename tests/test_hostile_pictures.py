"""Pictures that somebody else packed are read without harm: bombs, endless frames, odd formats."""

from pathlib import Path

import pytest
from PIL import ImageFile

from camcore.errors import BadInput
from fixtures.artefacts import read_artefact
from fixtures.datasets.files import MOST_PIXELS
from fixtures.datasets.folder import decode
from tests import bombs
from tests.packed_folders import BOMBS, picture, skipped


@pytest.mark.parametrize("kind", BOMBS)
def test_a_picture_too_large_is_skipped_before_its_pixels_are_decoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "cat" / "good.png")
    (tmp_path / "cat" / "bomb.png").write_bytes(BOMBS[kind])
    loaded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (loaded.append(self.size), load(self))[1])

    reason = skipped(tmp_path)["cat/bomb.png"]

    assert "pixels" in reason
    assert set(loaded) == {(12, 10)}
    assert len(reason.splitlines()) == 1
    assert MOST_PIXELS < 9_460**2


def test_of_thousands_of_frames_the_first_counts() -> None:
    image = decode(bombs.animated(1000))

    assert image.shape == (3, 8, 8)
    assert image.max() == 0


def test_a_picture_in_a_format_that_is_not_expected_is_not_handed_to_its_decoder(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "good.png")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "cat" / "page.jpg").write_bytes(program)

    assert "cannot identify image file" in skipped(tmp_path)["cat/page.jpg"]


def test_an_artefact_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "it.png").write_bytes(BOMBS["png"])

    with pytest.raises(BadInput, match="cannot be read as a picture"):
        read_artefact(tmp_path / "it.png")
