"""What the audit of hijacking measures and checks, what it costs, and that batches do not matter."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from audits import test_hijack as audit
from audits.hijack_checks import Checks, checked, those_right
from camcore.cost import metered
from camcore.errors import Undefined, Unreliable
from camcore.images import Batch, Dataset, load
from camcore.subject import Classifier
from camcore.verdict import Curve, Overlay, Table
from tests.tiny import GapNet, numbered_dataset, some_images, tiny_subject

FOUND = Checks(right=("a", "b"), asked=4, huge=2, by_gradient=1, by_squares=0, checked=2)


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
    for name, most in (("largest", audit.JUDGED + 1e-3), ("changed", audit.AREA + 0.01), ("ssim", 1.0)):
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
    from camcore.record import record

    where = audit.masks(record(asked, whole.images), whole)

    pixels = round(audit.AREA * 16 * 16)
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
    assert cost.forwards <= 4 * (attacks * restarts * (steps + 1) + 2)


def test_a_drawn_class_is_another_one() -> None:
    asked = subject()
    whole = batch(asked, 20)

    drawn = audit.drawn_classes(asked, whole)

    assert (drawn != whole.labels).all()
    assert len(drawn.unique()) > 1
    assert drawn.max() < 5


def test_evidence_is_read_back_from_a_file(tmp_path: Path) -> None:
    asked = subject()
    whole = batch(asked)
    columns = audit.hijack(asked, whole, draws=1, found=FOUND)
    rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
    shown = list(audit.show(asked, whole, rows, draws=1, column="resists", found=FOUND, folder=tmp_path / "hijacked"))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [one.caption.partition(":")[0] for one in pictures] == [
        "as it is",
        "from its PNG",
        "the change, 16 times",
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
    assert audit.half_at(rates) == said


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
