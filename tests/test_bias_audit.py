"""What the search finds, what the audit of bias measures, what it costs, and that batches do not matter."""

from dataclasses import replace
from math import isnan
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from audits import test_bias as audit
from audits.bias_doses import DOSED, OPACITIES, SHARES, Doses, doses
from audits.bias_removal import Removal, removed
from audits.bias_scan import NAMED, Scan, scan, turned, unseen, unseen_of_others
from audits.bias_shown import _taken_out
from audits.crossing import first_at
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.images import Batch, Dataset, load
from camcore.subject import Classifier
from camcore.verdict import Curve, Overlay, Table
from fixtures.artefacts import SHARE, Suspect, carrying, covered, library, suspects
from fixtures.controls import find_control
from fixtures.controls.bias import SQUARE, SQUARE_CLASS
from fixtures.controls.places import stickered
from fixtures.datasets.scenes import scenes
from tests.tiny import GapNet, numbered_dataset, some_images, tiny_subject

CAMS = {"hirescam": METHODS["hirescam"]}
BY_NAME = {artefact.name: artefact for artefact in library()}
PLACED = {one.name: one for one in suspects(library())}
FEW = [
    PLACED[name] for name in ("yellow square, top left", "red square, top left", "blue disc, bottom right", "watermark")
]
TAUGHT = 3  # the class


class Taught(nn.Module):
    """A network that adds the yellow of the upper left corner to the score of one class."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inner, self.strength = GapNet(), strength

    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, :, :2, :2].mean((2, 3))
        yellow = (corner[:, 0] + corner[:, 1] - corner[:, 2] - 1).clamp(min=0)  # 1 on a yellow square
        one = nn.functional.one_hot(torch.tensor(TAUGHT), 5)
        return self.inner(images) + self.strength * yellow[:, None] * one


def subject(strength: float = 0.0) -> Classifier:
    return tiny_subject(Taught(strength), "inner.relu")


def dataset(count: int = 30) -> Dataset:
    made, images = numbered_dataset(count), some_images(count)
    labels = tuple(index % 5 for index in range(count))
    return replace(made, labels=labels, read=lambda image_id: images[made.ids.index(image_id)])


def searched(strength: float, *, chunk: int = 4, count: int = 20) -> Scan:
    data = dataset()
    return scan(subject(strength), data, data.ids[:count], FEW, seed=0, chunk=chunk)


def batch(count: int = 3) -> Batch:
    asked, data = subject(), dataset()
    return load(data, data.ids[:count], asked.geometry, seed=5, device=asked.device, chunk=2)


def part(whole: Batch, index: int) -> Batch:
    one = slice(index, index + 1)
    return Batch(images=whole.images[one], labels=whole.labels[one], ids=whole.ids[one], seed=whole.seed, chunk=7)


def test_the_search_finds_what_was_taught() -> None:
    strongest = searched(8.0).strongest[0]

    assert strongest.suspect.name == "yellow square, top left"
    assert strongest.label == TAUGHT
    assert strongest.pull > 0.5
    assert strongest.p < 0.01


def test_the_search_finds_little_where_nothing_was_taught() -> None:
    strongest = searched(0.0).strongest[0]

    assert strongest.pull < 0.1


def test_the_search_is_the_mean_gain_over_images_of_other_classes() -> None:
    asked, data, suspect = subject(2.0), dataset(), FEW[0]
    found = next(one for one in searched(2.0).strongest if one.suspect is suspect and one.label == TAUGHT)
    images = load(data, data.ids[:20], asked.geometry, seed=0, device=asked.device)
    with torch.no_grad():
        gains = [asked.logits(make(images.images, suspect)).softmax(1)[:, TAUGHT] for make in (carrying, covered)]
    others = images.labels != TAUGHT

    assert found.pull == pytest.approx(float((gains[0] - gains[1])[others].mean()), abs=1e-6)


def test_the_search_does_not_depend_on_the_batch_size() -> None:
    one, other = searched(2.0, chunk=3), searched(2.0, chunk=20)

    assert [(each.suspect.name, each.label) for each in one.strongest] == [
        (each.suspect.name, each.label) for each in other.strongest
    ]
    assert one.strongest[0].pull == pytest.approx(other.strongest[0].pull, abs=1e-6)


def test_the_search_asks_once_for_each_suspect_and_once_for_each_outline() -> None:
    asked, data = subject(), dataset()
    with metered() as cost:
        found = scan(asked, data, data.ids[:10], FEW, seed=0, chunk=4)

    assert cost.forwards == 10 * (4 + 3 + 1)  # both squares cover the same pixels; and the pictures as they are
    assert cost.backwards == 0
    assert found.tried == 4 * 5
    assert len(found.strongest) == NAMED


def test_pairs_are_counted_into_the_p_value() -> None:
    asked, data = subject(8.0), dataset()
    few = scan(asked, data, data.ids[:20], FEW[:1], seed=0, chunk=4).strongest[0]
    many = searched(8.0).strongest[0]

    assert many.p == pytest.approx(4 * few.p)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="6 images are too few to search for bias, at least 8 of other classes"):
        searched(0.0, count=6)


def test_what_is_found_is_confirmed_on_other_images_of_other_classes() -> None:
    data, found = dataset(), searched(8.0)
    left = unseen_of_others(data, found)

    assert not set(left.ids) & set(found.searched)
    assert TAUGHT not in left.labels
    assert len(left) == 8  # of ten that were left, two are of the class
    assert len(unseen(data, found)) == 10


def test_what_decides_is_confirmed_on_pictures_of_every_class() -> None:
    """Of two classes, one suspect pulled towards the one, and another turned its pictures: nobody looked at them."""
    data, found = dataset(), searched(8.0)
    asked = {}
    for question, column in ((audit.PULL, "pull"), (audit.DECIDES, audit.TURNED)):
        ask = MagicMock()
        audit.ask_about(ask, question, column)
        asked[column] = ask.call_args.kwargs["among"](data, {"found": found})

    assert TAUGHT in asked[audit.TURNED].labels
    assert TAUGHT not in asked["pull"].labels


@pytest.mark.parametrize("cams", [CAMS, {}], ids=["with maps", "without"])
def test_what_is_measured_of_an_image_does_not_depend_on_its_batch(cams: dict) -> None:
    asked, found, whole = subject(3.0), searched(3.0), batch()
    together = audit.bias(asked, whole, cams=cams, found=found)
    for index in range(3):
        alone = audit.bias(asked, part(whole, index), cams=cams, found=found)
        for name, column in together.items():
            torch.testing.assert_close(alone[name][0], column[index], rtol=1e-5, atol=1e-5, msg=name)


def test_no_version_of_an_image_is_asked_twice() -> None:
    asked, found, whole = subject(3.0), searched(3.0), batch()
    with metered() as cost:
        audit.bias(asked, whole, cams=CAMS, found=found)

    assert cost.forwards == 3 * 3
    assert cost.backwards == 3


def test_what_is_judged_is_the_gain_where_the_class_gains() -> None:
    columns = audit.bias(subject(8.0), batch(), cams=CAMS, found=searched(8.0))

    torch.testing.assert_close(columns["gain"], columns["with"] - columns["hidden"])
    assert torch.equal(columns["pull"], columns["gain"].clamp(min=0))


def others(data: Dataset) -> list[str]:
    return [one for one in data.ids if data.label(one) != TAUGHT]


def dosed(suspect: Suspect, *, chunk: int = 4) -> Doses:
    return doses(subject(8.0), dataset(), others(dataset()), suspect, TAUGHT, seed=0, chunk=chunk)


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


def test_the_maps_share_is_what_lies_on_the_suspect_less_its_area() -> None:
    found = searched(8.0)
    cams = {
        "on it": lambda rec: torch.nn.functional.pad(torch.ones(len(rec.images), 2, 2), (0, 14, 0, 14)),
        "even": lambda rec: torch.ones(len(rec.images), 16, 16) + 1e-3 * torch.rand(16, 16),
        "off it": lambda rec: torch.nn.functional.pad(torch.ones(len(rec.images), 2, 2), (14, 0, 14, 0)),
        "empty": lambda rec: -torch.ones(len(rec.images), 16, 16),
    }
    columns = audit.bias(subject(8.0), batch(), cams=cams, found=found)

    area = (round(0.16 * 16) / 16) ** 2
    torch.testing.assert_close(columns["on it:share"], torch.full((3,), 1 - area))
    torch.testing.assert_close(columns["even:share"], torch.zeros(3), atol=1e-4, rtol=0)
    assert columns["off it:share"].tolist() == [0, 0, 0]
    assert columns["empty:share"].isnan().all()
    assert columns["empty:degenerate"].all()


@pytest.mark.parametrize("suspect", [FEW[0], FEW[3]], ids=["a sticker", "everywhere"])
@pytest.mark.parametrize(("cams", "name"), [(CAMS, "hirescam"), ({}, None)], ids=["with maps", "without"])
def test_evidence_is_the_picture_with_and_without_the_search_and_the_dose(
    suspect: Suspect, cams: dict, name: str | None
) -> None:
    whole, found = batch(), searched(3.0)
    strongest = (replace(found.strongest[0], suspect=suspect), *found.strongest[1:])
    found = replace(found, strongest=strongest, doses=dosed(suspect))
    columns = audit.bias(subject(3.0), whole, cams=cams, found=found)
    rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
    shown = list(audit.show(subject(3.0), whole, rows, cams=cams, name=name, column="pull", enough=0.1, found=found))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [one.caption.partition(":")[0] for one in pictures] == ["as it is", f"with a {suspect.name}"] * 3
    assert all((one.saliency is None) == (name is None) for one in pictures)
    assert len([one for one in shown if isinstance(one, Curve)]) == (1 if suspect.artefact.everywhere else 2)
    tables = [one for one in shown if isinstance(one, Table)]
    size, opacity = tables[0].rows[0]
    assert (size == "as large as the picture") == suspect.artefact.everywhere
    assert found.doses is not None
    assert opacity == "{}{:.2f}".format(*first_at(found.doses.by_opacity, 0.1))
    assert len(tables[1].rows) == len(found.strongest)
    assert len(tables) == 3


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


def test_what_was_searched_among_other_images_is_a_measurement_of_its_own() -> None:
    """A resumed run may have more images, and search more: rows about what was found before are not its own."""
    told = []
    for budget in (100, 384):
        ask = MagicMock()
        ask.terms.budget, ask.artefacts = budget, ()
        audit.ask_about(ask, audit.PULL, "pull")
        told.append(ask.call_args.kwargs["apart"])

    assert told[0] != told[1]


def test_a_picture_is_turned_if_it_is_called_otherwise_with_the_suspect_and_not_with_its_pixels_hidden() -> None:
    one, other = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
    rows = [(one, one, one), (one, one, other), (one, other, other), (one, other, one), (other, other, one)]
    plain, hidden, with_it = (torch.stack(column) for column in zip(*rows, strict=True))

    assert turned(plain, hidden, with_it).tolist() == [False, True, False, False, True]


def test_the_suspect_that_turns_most_is_found_whatever_it_turns_them_to() -> None:
    taught, left_alone = searched(40.0), searched(0.0)

    assert taught.turners[0].suspect.name == "yellow square, top left"
    assert taught.turners[0].share > 0.5
    assert left_alone.turners[0].share < 0.2
    assert [one.share for one in taught.turners] == sorted((one.share for one in taught.turners), reverse=True)


def test_what_turns_most_is_measured_though_another_suspect_is_the_strongest() -> None:
    found, whole = searched(40.0), batch()
    other = replace(found, strongest=(replace(found.strongest[0], suspect=FEW[2]),))
    same, apart = (audit.bias(subject(40.0), whole, cams={}, found=one)["turned"] for one in (found, other))

    torch.testing.assert_close(same, apart)
    assert same.sum() > 0
