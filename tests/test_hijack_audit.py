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
from audits.crossing import first_at
from audits.hijack_attacks import AREA, length, masks, swept
from audits.hijack_checks import Checks, checked, those_right
from audits.hijack_shown import show
from audits.hijack_signatures import TRIED, _laid, _windows, blended, cut_signatures, drawn_classes
from audits.policy import load_policy
from camcore.adversary import Attacked
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.errors import Undefined, Unreliable
from camcore.images import Batch, Dataset, load
from camcore.maps import upsample
from camcore.record import record
from camcore.subject import Classifier
from camcore.verdict import Curve, Overlay, Table
from tests.tiny import GapNet, numbered_dataset, some_images, tiny_subject

LEAST = load_policy(None, profile="smoke").attacks
SIGNATURES = {label: torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(label)) for label in (0, 2, 3)}
FOUND = Checks(
    right=("a", "b"),
    asked=4,
    unchanged=0,
    huge=2,
    by_gradient=1,
    by_squares=0,
    squares_alone=0,
    checked=2,
    signatures=SIGNATURES,
)


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


class Loud(Centred):
    """Scores so large that the softmax is 1 and the cross-entropy has no slope."""

    def forward(self, images: Tensor) -> Tensor:
        return 2.0**20 * super().forward(images)


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
    assert found.unchanged == found.squares_alone == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Rounded, "gradients masked: on 5 of 5 images .* have no slope"),
        (Misled, r"gradients mislead: on \d+ of 16 images a step of 1/255 along the slope does not raise the loss"),
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
        fair = round(budget.epsilon * 255) != 30
        return weak(*given, budget=budget if fair else replace(budget, epsilon=0.0), **named)

    monkeypatch.setattr(hijack_checks, "apgd", hobbled)
    monkeypatch.setattr(hijack_checks, "CALM", 30)

    with pytest.raises(
        Unreliable, match=r"at 30/255 an attack without gradients hijacks \d+ of 16 images that the one"
    ):
        check(queries=300)


def stand_in(monkeypatch: pytest.MonkeyPatch, by_gradient: list[int], by_squares: list[int]) -> None:
    """As if these of the images fell to each attack, and all of them climbed, and fell to a huge change."""
    rows = torch.zeros(5, 16, dtype=torch.bool)
    rows[1:3], rows[3, by_gradient], rows[4, by_squares] = True, True, True
    monkeypatch.setattr("audits.hijack_checks._fallen", lambda _, batch, *__: rows[:, : len(batch)])


def test_squares_are_compared_image_by_image_and_one_image_may_be_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    data = dataset(asked)

    def found() -> Checks:
        return checked(asked, data, data.ids, seed=0, chunk=16, steps=1, queries=1)

    stand_in(monkeypatch, [0, 1, 2], [2, 3])
    assert (found().by_gradient, found().by_squares, found().squares_alone) == (3, 2, 1)
    stand_in(monkeypatch, [0, 1, 2], [3, 4])
    with pytest.raises(
        Unreliable, match=r"hijacks 2 of 16 images that the one by gradient does not \(in all 2 and 3\)"
    ):
        found()


def test_an_attack_that_a_huge_change_does_not_help_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    data = dataset(asked)
    rows = torch.zeros(5, 16, dtype=torch.bool)
    rows[1], rows[2, :15] = True, True
    monkeypatch.setattr("audits.hijack_checks._fallen", lambda *_: rows)

    with pytest.raises(Unreliable, match="with changes of 64/255 everywhere the attack still fails on 1 of 16 images"):
        checked(asked, data, data.ids, seed=0, chunk=16, steps=1, queries=1)


def test_an_image_that_no_change_hijacks_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    data = dataset(asked)
    rows = torch.ones(5, 16, dtype=torch.bool)
    monkeypatch.setattr("audits.hijack_checks._fallen", lambda *_: rows)

    with pytest.raises(Unreliable, match="16 of 16 images are hijacked by an attack that may change nothing"):
        checked(asked, data, data.ids, seed=0, chunk=16, steps=1, queries=1)


def test_a_softmax_that_is_full_hides_nothing() -> None:
    """The attack climbs log-odds, which do not round to 0 and 1: such a model is no control, for it masks nothing."""
    plain, loud = subject(), subject(Loud)
    loud.module.usual.copy_(plain.module.usual)
    whole = batch(plain, 12)
    pixels = whole.images.clone().requires_grad_()
    torch.nn.functional.cross_entropy(loud.logits(pixels), whole.labels).backward()
    assert pixels.grad is not None
    assert (pixels.grad == 0).all()  # what an attack on the cross-entropy would follow
    one, other = (audit.hijack(asked, whole, effort=LEAST, found=FOUND) for asked in (plain, loud))

    for name in ("top:4", "top:8", "random:8", "all:4", "l2:4"):
        assert 0 < one[name].sum() <= other[name].sum(), name
    assert check(Loud).by_gradient == check().by_gradient == 16


def test_a_model_that_has_nothing_right_cannot_be_judged() -> None:
    with pytest.raises(Unreliable, match="has none of 24 images right"):
        check(wrong=24)


def test_the_judged_columns_are_one_number_per_image_within_their_bounds() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked), effort=LEAST, found=FOUND)

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


def test_every_size_is_tried_on_all_that_has_withstood_and_what_fell_stays_fallen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attack that is good at small changes alone: what it finds counts for the larger ones, and they are tried."""
    from audits import hijack_attacks

    asked = subject()
    whole = batch(asked, 12)
    tried: dict[int, int] = {}

    def only_small(_, images, label, *, budget, **__):
        radius = round(budget.epsilon * 255)
        tried[radius] = len(images)
        success = (torch.arange(len(images)) < 3) if radius < 4 else torch.zeros(len(images), dtype=torch.bool)
        return Attacked(images=images, loss=success.float(), success=success, no_slope=~success)

    monkeypatch.setattr(hijack_attacks, "apgd", only_small)
    found = swept(asked, whole, torch.ones(12, 16, 16), load_policy(None, profile="pr").attacks)

    assert tried == {1: 12, 2: 9, 4: 6, 8: 6}
    assert {radius: int(one.success.sum()) for radius, one in found.items()} == {1: 3, 2: 6, 4: 6, 8: 6}
    assert torch.equal(found[8].loss, found[8].success.float())


def test_more_may_be_changed_everywhere_than_in_a_part() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked, 12), effort=LEAST, found=FOUND)

    assert columns["all:4"].mean() >= columns["top:4"].mean()
    assert (columns["loss"] > 0)[columns["top:4"] == 1].any()
    assert columns["loss"].isfinite().all()


def test_the_length_is_that_of_a_change_of_every_value_in_the_mask() -> None:
    mask = torch.zeros(2, 16, 16)
    mask[:, :4, :5] = 1
    change = 4 / 255 * mask[0].expand(3, 16, 16)

    assert length(mask, 4) == pytest.approx(float(change.norm()))


def test_what_is_measured_of_an_image_does_not_depend_on_its_batch() -> None:
    asked = subject()
    whole = batch(asked, 3)
    together = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    for index in range(3):
        alone = audit.hijack(asked, part(whole, index), effort=LEAST, found=FOUND)
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
        audit.hijack(asked, whole, effort=LEAST, found=FOUND)

    attacks = 2 * len(LEAST.sizes) + 4
    of_attacks = attacks * LEAST.restarts * (LEAST.steps + 1)
    assert cost.backwards <= 4 * (of_attacks + 1)
    assert cost.forwards <= 4 * (of_attacks + 2 + 2 * (TRIED + 1))


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
    columns = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
    shown = list(show(asked, whole, rows, effort=LEAST, column="resists", found=FOUND, folder=tmp_path / "hijacked"))

    hit = columns["top:4"].bool().tolist()
    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [re.split(":| of class", one.caption)[0] for one in pictures] == [
        what
        for fallen in hit
        for what in ("as it is", "from its PNG" if fallen else "attacked in vain", "the change, 16 times", "a piece")
    ]
    curves, tables = ([one for one in shown if isinstance(one, kind)] for kind in (Curve, Table))
    assert len(curves) == len(tables) == 1
    assert [series[0] for series in curves[0].series.values()] == [0.0, 0.0]  # what the checks measured
    told = dict(tables[0].rows)
    assert (
        told["pictures shown that were hijacked, read back from their files: hijacked still"]
        == f"{sum(hit)} of {sum(hit)}"
    )
    files = sorted((tmp_path / "hijacked").glob("*.png"))
    assert [file.name for file in files] == [
        f"tiny-{index}-{whole.ids[index]}.png" for index, fallen in enumerate(hit) if fallen
    ]
    assert 0 < len(files) < 4
    with torch.no_grad():
        for file in files:
            pixels = torch.from_numpy(np.asarray(Pillow.open(file)).copy()).permute(2, 0, 1) / 255
            index = whole.ids.index(file.stem.split("-")[-1])
            assert int(asked.logits(pixels[None]).argmax()) != int(whole.labels[index])


@pytest.mark.parametrize(
    ("curve", "at"),
    [
        ({1: 0.9, 2: 1.0}, ("at most ", 1)),
        ({1: 0.0, 2: 1.0}, ("", 1.5)),
        ({1: 0.1, 2: 0.2, 4: 0.4, 8: 0.8}, ("", 5.0)),
        ({1: 0.0, 8: 0.4}, ("more than ", 8)),
        ({0.1: 0.0, 0.2: 0.6, 0.3: 0.1}, ("", pytest.approx(0.1 + 0.5 / 6))),
    ],
)
def test_where_a_curve_first_reaches_one_half(curve: dict[float, float], at: tuple[str, float]) -> None:
    assert first_at(curve, 0.5) == at


def test_the_release_profile_has_a_hundred_steps_and_five_restarts() -> None:
    most = load_policy(None, profile="release").attacks

    assert (most.steps, most.restarts) >= (100, 5)
    assert most.sizes == [1, 2, 4, 8]


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
    columns = audit.hijack(asked, whole, effort=LEAST, found=alone)

    own = whole.labels == whole.labels[0]
    for name in ("target:4", "signature:4", "signature:64"):
        assert torch.equal(columns[name].isnan(), own)
