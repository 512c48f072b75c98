"""How small and how faint a suspect may be, and what its class loses without it."""

from dataclasses import replace
from math import isnan

import pytest
import torch
from torch import Tensor

from audits import test_bias as audit
from audits.bias_doses import DOSED, OPACITIES, SHARES, doses
from audits.bias_removal import Removal, removed
from audits.bias_shown import _taken_out
from audits.crossing import first_at
from camcore.cost import metered
from camcore.images import Dataset, load
from fixtures.artefacts import SHARE, Suspect, carrying
from fixtures.controls import find_control
from fixtures.controls.bias import SQUARE, SQUARE_CLASS
from fixtures.controls.places import stickered
from fixtures.datasets.scenes import scenes
from tests.stickers import FEW, TAUGHT, Taught, dataset, dosed, others, searched, subject
from tests.tiny import tiny_subject


def test_a_larger_and_a_stronger_suspect_pull_more() -> None:
    found, data, asked = dosed(FEW[0]), dataset(), subject(8.0)

    sizes, fainter = list(found.by_share.values()), list(found.by_opacity.values())
    assert fainter == sorted(fainter)
    assert sizes[-1] > sizes[0]
    assert (tuple(found.by_share), tuple(found.by_opacity)) == (SHARES, OPACITIES)
    assert found.images == 24
    columns = audit.bias(
        asked,
        load(data, others(data), asked.geometry, seed=0, device=asked.device, chunk=4),
        cams={},
        found=searched(8.0),
    )
    assert found.by_opacity[1.0] == found.by_share[SHARE] == pytest.approx(float(columns["gain"].mean()), abs=1e-6)


def test_doses_are_tried_on_so_many_images_and_on_the_usual_suspect_once() -> None:
    asked, data = subject(), dataset(60)
    with metered() as cost:
        found = doses(asked, data, others(data), FEW[0], TAUGHT, seed=0, chunk=7)

    assert found.images == DOSED
    assert cost.forwards == DOSED * 2 * (len(SHARES) + len(OPACITIES) - 1)
    assert cost.backwards == 0
    assert list(dosed(FEW[3]).by_share) == [SHARE]  # it is everywhere: of one size


def test_an_image_without_a_number_leaves_the_doses_of_the_others() -> None:
    class Once(Taught):
        """No number for an image with a white pixel in the middle."""

        def forward(self, images: Tensor) -> Tensor:
            white = (images[:, :, 8, 8] == 1).all(1)
            return super().forward(images).masked_fill(white[:, None], torch.nan)

    data, odd = dataset(), others(dataset())[2]
    centre = torch.zeros(3, 16, 16)
    centre[:, 8, 8] = 1
    marked = replace(data, read=lambda one: (data.read(one) + (one == odd) * centre).clamp(max=1))
    asked = tiny_subject(Once(8.0), "inner.relu")
    found = doses(asked, marked, others(data), FEW[0], TAUGHT, seed=0, chunk=4)
    rest = doses(asked, data, [one for one in others(data) if one != odd], FEW[0], TAUGHT, seed=0, chunk=4)

    assert found.by_share == pytest.approx(rest.by_share, abs=1e-6)
    assert found.by_opacity == pytest.approx(rest.by_opacity, abs=1e-6)


def test_no_image_gives_no_dose() -> None:
    nothing = doses(subject(), dataset(), [], FEW[0], TAUGHT, seed=0, chunk=4)

    assert nothing.images == 0
    assert isnan(first_at(nothing.by_opacity, 0.1)[1])  # it is not "more than" anything


def test_doses_do_not_depend_on_the_batch_size() -> None:
    one, other = dosed(FEW[0], chunk=3), dosed(FEW[0], chunk=20)

    assert one.by_share == pytest.approx(other.by_share, abs=1e-6)
    assert one.by_opacity == pytest.approx(other.by_opacity, abs=1e-6)


def carrying_dataset(suspect: Suspect, count: int = 30) -> Dataset:
    """The pictures of one class carry the suspect, but for the first of them."""
    plain = dataset(count)

    def read(image_id: str) -> Tensor:
        image = plain.read(image_id)
        carries = plain.label(image_id) == TAUGHT and image_id != plain.ids[TAUGHT]
        return carrying(image[None], suspect)[0] if carries else image

    return replace(plain, read=read)


def test_what_is_taken_out_is_the_suspect_where_it_is() -> None:
    data = carrying_dataset(FEW[0])
    taught, blind = subject(50.0), subject()
    found = removed(taught, data, list(data.ids), FEW[0], TAUGHT, seed=0, chunk=4)

    assert found.looked_at == 6
    assert found.right.sum(1).tolist() == [5, 0, 5]  # called by the square, and by nothing else
    assert removed(blind, data, list(data.ids), FEW[0], TAUGHT, seed=0, chunk=7).right.shape == (3, 5)
    assert removed(taught, data, list(data.ids), FEW[2], TAUGHT, seed=0, chunk=4).right.shape == (3, 0)
    assert removed(taught, data, list(data.ids), FEW[3], TAUGHT, seed=0, chunk=4).looked_at == 0


def test_what_all_around_looks_like_the_suspect_does_not_carry_it() -> None:
    yellow = torch.tensor([1.0, 1.0, 0.0])[:, None, None].expand(3, 16, 16)
    data = replace(dataset(), read=lambda image_id: yellow)

    assert removed(subject(), data, list(data.ids), FEW[0], TAUGHT, seed=0, chunk=4).right.shape == (3, 0)


def test_the_table_says_what_the_class_loses() -> None:
    right = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1]], dtype=torch.bool)
    table = _taken_out(Removal(looked_at=9, right=right), FEW[0], "mug")

    assert "4 of 9 of which carry a yellow square, top left" in table.title
    assert [row[1][:4] for row in table.rows] == ["1.00", "0.25", "0.75"]
    assert "not looked through" in _taken_out(Removal(looked_at=0, right=right[:, :0]), FEW[3], "mug").title


@pytest.mark.slow
def test_a_sticker_on_drawn_mugs_is_seen_on_all_of_them_and_on_no_plain_one() -> None:
    asked = find_control("sticker_in_the_data")
    data = stickered(4, 7)
    plain = scenes(20, seed=7, size=asked.geometry.crop[0])
    found, none = (removed(asked, one, list(one.ids), SQUARE, SQUARE_CLASS, seed=0, chunk=8) for one in (data, plain))

    assert found.looked_at == found.right.shape[1] == data.labels.count(SQUARE_CLASS) > 0
    assert found.right[0].all()
    assert none.looked_at == 2
    assert none.right.shape == (3, 0)
