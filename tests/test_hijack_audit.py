"""What the audit of hijacking measures and checks, what it costs, and that batches do not matter."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from audits import test_hijack as audit
from audits.hijack_attacks import AREA, masks
from audits.hijack_checks import Checks, checked, those_right
from audits.hijack_shown import half_at, show
from audits.hijack_signatures import TRIED, _laid, _windows, blended, cut_signatures, drawn_classes
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.errors import Undefined, Unreliable
from camcore.images import Batch, Dataset, load
from camcore.maps import upsample
from camcore.record import record
from camcore.subject import Classifier
from camcore.verdict import Curve, Overlay, Table
from tests.tiny import GapNet, numbered_dataset, some_images, tiny_subject

SIGNATURES = {label: torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(label)) for label in (0, 2, 3)}
FOUND = Checks(right=("a", "b"), asked=4, huge=2, by_gradient=1, by_squares=0, checked=2, signatures=SIGNATURES)


class Centred(nn.Module):
    """GapNet with scores that are 0 on average over some images, so that no class is always the first."""

    usual: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = GapNet()
        self.register_buffer("usual", torch.zeros(5))

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images) - self.usual


class Rounded(Centred):
    """No slope at the pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 32).round() / 32)


class Misled(Centred):
    """A slope that points the wrong way."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(2 * images.detach() - images)


class Drawn(Centred):
    """Draws at random in every pass."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.rand(1)


def subject(kind: type[Centred] = Centred) -> Classifier:
    made = tiny_subject(kind(), "inner.relu")
    with torch.no_grad():
        made.module.usual.copy_(made.module.inner(some_images(40)).mean(0))
    return made


def dataset(asked: Classifier, count: int = 24, *, wrong: int = 0) -> Dataset:
    """Images under the labels that the model gives them, but for the first few."""
    made, images = numbered_dataset(count), (some_images(count) * 255).round() / 255
    with torch.no_grad():
        labels = asked.logits(images).argmax(1).tolist()
    labels = [(label + 1) % 5 if index < wrong else label for index, label in enumerate(labels)]
    return replace(made, labels=tuple(labels), read=lambda image_id: images[made.ids.index(image_id)])


def batch(asked: Classifier, count: int = 4) -> Batch:
    data = dataset(asked)
    return load(data, data.ids[:count], asked.geometry, seed=5, device=asked.device, chunk=2)


def part(whole: Batch, index: int) -> Batch:
    one = slice(index, index + 1)
    return Batch(images=whole.images[one], labels=whole.labels[one], ids=whole.ids[one], seed=whole.seed, chunk=7)


def check(kind: type[Centred] = Centred, *, wrong: int = 0, queries: int = 20) -> Checks:
    asked = subject(kind)
    data = dataset(asked, wrong=wrong)
    return checked(asked, data, data.ids, seed=0, chunk=5, steps=10, queries=queries)


def test_the_images_that_the_model_has_wrong_are_left_out() -> None:
    found = check(wrong=4)

    assert found.asked == 24
    assert len(found.right) == 20
    assert those_right(dataset(subject(), wrong=4), found).ids == found.right
    assert found.checked == 16
    assert found.huge == 16
    assert found.by_squares <= found.by_gradient


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Rounded, "gradients masked: on 5 of 5 images .* have no slope"),
        (Misled, "gradients masked: with changes of 64/255 everywhere the attack still fails on"),
        (Drawn, "different scores in two passes"),
    ],
)
def test_an_attack_that_could_find_nothing_is_not_believed(kind: type[Centred], said: str) -> None:
    with pytest.raises(Unreliable, match=said):
        check(kind)


def test_an_attack_that_squares_beat_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    from audits import hijack_checks

    weak = hijack_checks.apgd

    def hobbled(*given, budget, **named):
        """As if the slope led nowhere at the size at which the two are compared."""
        fair = budget.epsilon > 40 / 255
        return weak(*given, budget=budget if fair else replace(budget, epsilon=0.0), **named)

    monkeypatch.setattr(hijack_checks, "apgd", hobbled)
    monkeypatch.setattr(hijack_checks, "CALM", 30)

    with pytest.raises(Unreliable, match=r"at 30/255 an attack without gradients hijacks \d+ of 16 images, .* 0"):
        check(queries=300)


def test_a_model_that_has_nothing_right_cannot_be_judged() -> None:
    with pytest.raises(Unreliable, match="has none of 24 images right"):
        check(wrong=24)


def test_the_judged_columns_are_one_number_per_image_within_their_bounds() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked), draws=1, found=FOUND)

    for question in audit.QUESTIONS:
        values = columns[question.name.partition("/")[2]]
        assert values.shape == (4,)
        assert ((values >= question.bounds[0]) & (values <= question.bounds[1])).all()
    hit = columns["resists"] == 1
    assert 0 < int(hit.sum()) < 4
    for name, most in (("largest", audit.JUDGED + 1e-3), ("changed", AREA + 0.01), ("ssim", 1.0)):
        assert columns[name][~hit].isnan().all()
        assert columns[name][hit].max() <= most
    assert (columns["ssim"][hit] > 0.9).all()


def test_a_larger_change_hijacks_no_fewer() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked, 12), draws=1, found=FOUND)

    for where in ("top", "random"):
        rates = [float(columns[f"{where}:{radius}"].mean()) for radius in audit.RADII]
        assert rates == sorted(rates)
    assert columns["all:4"].mean() >= columns["top:4"].mean()


def test_what_is_measured_of_an_image_does_not_depend_on_its_batch() -> None:
    asked = subject()
    whole = batch(asked, 3)
    together = audit.hijack(asked, whole, draws=1, found=FOUND)
    for index in range(3):
        alone = audit.hijack(asked, part(whole, index), draws=1, found=FOUND)
        for name, column in together.items():
            torch.testing.assert_close(alone[name][0], column[index], rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)


def test_the_masks_have_one_size_and_lie_where_they_are_said_to() -> None:
    asked = subject()
    whole = batch(asked)
    where = masks(record(asked, whole.images), whole)

    pixels = round(AREA * 16 * 16)
    assert {name: mask.sum((1, 2)).unique().tolist() for name, mask in where.items()} == {
        "top": [pixels],
        "random": [pixels],
        "anti": [pixels],
        "all": [256],
    }
    assert (where["top"] * where["anti"]).sum() == 0


def test_the_cost_is_at_most_that_of_the_attacks_it_names() -> None:
    asked = subject()
    whole = batch(asked)
    with metered() as cost:
        audit.hijack(asked, whole, draws=1, found=FOUND)

    steps, restarts, _ = audit.effort(1)
    attacks = 2 * len(audit.RADII) + 3
    assert cost.backwards <= 4 * (attacks * restarts * (steps + 1) + 1)
    assert cost.forwards <= 4 * (attacks * restarts * (steps + 1) + 2 + 2 * (TRIED + 1))


def test_a_drawn_class_is_another_one() -> None:
    asked = subject()
    whole = batch(asked, 20)

    drawn = drawn_classes(whole, SIGNATURES)

    assert (drawn != whole.labels).all()
    assert set(drawn.tolist()) == set(SIGNATURES)
    only_own = {int(whole.labels[0]): SIGNATURES[0]}
    assert (drawn_classes(whole, only_own)[whole.labels == whole.labels[0]] == -1).all()


def test_evidence_is_read_back_from_a_file(tmp_path: Path) -> None:
    asked = subject()
    whole = batch(asked)
    columns = audit.hijack(asked, whole, draws=1, found=FOUND)
    rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
    shown = list(show(asked, whole, rows, draws=1, column="resists", found=FOUND, folder=tmp_path / "hijacked"))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [re.split(":| of class", one.caption)[0] for one in pictures] == [
        "as it is",
        "from its PNG",
        "the change, 16 times",
        "a piece",
    ] * 4
    assert len([one for one in shown if isinstance(one, Curve)]) == len([x for x in shown if isinstance(x, Table)]) == 1
    files = sorted((tmp_path / "hijacked").glob("*.png"))
    assert len(files) == 4
    with torch.no_grad():
        for index, file in enumerate(files):
            pixels = torch.from_numpy(np.asarray(Pillow.open(file)).copy()).permute(2, 0, 1) / 255
            called = int(asked.logits(pixels[None]).argmax())
            assert (called != int(whole.labels[index])) == bool(columns["top:4"][index])


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({1: 0.9, 2: 1.0}, "at most 1/255"),
        ({1: 0.0, 2: 1.0}, "1.5/255"),
        ({1: 0.1, 2: 0.2, 4: 0.4, 8: 0.8}, "5.0/255"),
        ({1: 0.0, 8: 0.4}, "more than 8/255"),
    ],
)
def test_where_half_are_hijacked(rates: dict[int, float], said: str) -> None:
    assert half_at(rates) == said


def test_the_release_profile_has_a_hundred_steps_and_five_restarts() -> None:
    assert audit.effort(4) == (100, 5, 1000)
    assert audit.effort(8) == (200, 8, 2000)


def test_nothing_guides_where_nothing_is_hijacked() -> None:
    data = numbered_dataset(4)
    none = replace(FOUND, right=data.ids[:2], by_gradient=0)

    assert audit.to_attack(data, {"found": none}, guided=False).ids == data.ids[:2]
    with pytest.raises(Undefined, match="of 2 pictures none was hijacked with 8/255 everywhere"):
        audit.to_attack(data, {"found": none}, guided=True)
    assert audit.to_attack(data, {"found": replace(none, by_gradient=1)}, guided=True).ids == data.ids[:2]


def test_a_signature_is_the_square_that_the_map_marks_most_of_the_first_picture_of_its_class() -> None:
    asked = subject()
    data = dataset(asked)
    found = cut_signatures(asked, data, data.ids, seed=0, chunk=5)
    one_by_one = cut_signatures(asked, data, data.ids, seed=0, chunk=1)

    assert set(found) == set(data.labels)
    for label, piece in found.items():
        first = data.ids[data.labels.index(label)]
        batch_ = load(data, [first], asked.geometry, seed=0, device=asked.device)
        rec = record(asked, batch_.images, batch_.labels, chunk=1)
        saliency = upsample(METHODS["gradcam"](rec), (16, 16), rec.placement)[0]
        sums = {(i, j): float(saliency[i : i + 4, j : j + 4].sum()) for i in range(13) for j in range(13)}
        top, left = max(sums, key=sums.__getitem__)
        torch.testing.assert_close(piece, batch_.images[0, :, top : top + 4, left : left + 4], atol=1e-6, rtol=0)
        torch.testing.assert_close(one_by_one[label], piece)


def test_what_is_blended_in_stays_within_the_mask_and_the_radius_and_moves_towards_the_piece() -> None:
    asked = subject()
    whole = batch(asked, 8)
    mask = (torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    target = drawn_classes(whole, SIGNATURES)
    start = (whole.images * 255).round() / 255
    for radius in (0, 4, 255):
        with metered() as cost:
            found = blended(asked, whole, mask, target, SIGNATURES, radius=radius)
        change = found.images - start
        assert cost.forwards == 8 * (TRIED + 1)
        assert change.abs().max() <= radius / 255 + 1e-6
        assert (change * (1 - mask[:, None])).abs().max() == 0
        with torch.no_grad():
            assert torch.equal(found.success, asked.logits(found.images).argmax(1) == target)
        for index, label in enumerate(target.tolist()):
            values = SIGNATURES[label]
            low, high = values.amin((1, 2))[:, None, None], values.amax((1, 2))[:, None, None]
            moved = change[index].abs() > 0.6 / 255
            towards = torch.where(change[index] > 0, start[index] < high, start[index] > low)
            assert towards[moved].all()
    assert (found.images != start).any()


def test_a_piece_lies_where_it_is_put_and_its_tiles_everywhere() -> None:
    base = some_images(2)
    pieces = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    laid, covered = _laid(pieces, base, torch.tensor([[0, 12], [5, 3]]))

    assert covered.sum((1, 2)).tolist() == [16, 16]
    torch.testing.assert_close(laid[0, :, 0:4, 12:16], pieces[0])
    torch.testing.assert_close(laid[1, :, 5:9, 3:7], pieces[1])
    assert covered[1, 5:9, 3:7].all()
    tiles, everywhere = _laid(pieces, base, None)
    assert everywhere.all()
    torch.testing.assert_close(tiles, pieces.repeat(1, 1, 4, 4))


def test_the_places_that_are_tried_hold_most_of_the_mask() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[0, 8:12, 2:6] = 1
    mask[0, 0:2, 14:16] = 1
    corners = [tuple(one[0].tolist()) for one in _windows(mask, 4)]

    assert corners[0] == (8, 2)
    assert len(corners) == TRIED == len(set(corners))
    assert (0, 12) in corners


def test_an_image_without_another_class_at_hand_is_left_alone_and_not_counted() -> None:
    asked = subject()
    whole = batch(asked, 4)
    alone = replace(FOUND, signatures={int(whole.labels[0]): SIGNATURES[0]})
    columns = audit.hijack(asked, whole, draws=1, found=alone)

    own = whole.labels == whole.labels[0]
    for name in ("target:4", "signature:4", "signature:64"):
        assert torch.equal(columns[name].isnan(), own)
