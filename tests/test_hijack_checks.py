"""What an attack must show of itself before the audit of hijacking believes it."""

import pytest
import torch

from audits import test_hijack as audit
from audits.hijack_checks import Checks, checked, those_right
from audits.hijack_signatures import drawn_classes
from camcore.errors import BadInput, Unreliable
from tests.hijacked import FOUND, LEAST, Centred, Drawn, Loud, Misled, Rounded, batch, dataset, subject


def check(kind: type[Centred] = Centred, *, wrong: int = 0) -> Checks:
    asked = subject(kind)
    data = dataset(asked, wrong=wrong)
    return checked(asked, data, data.ids, seed=0, chunk=5, steps=10)


def test_the_images_that_the_model_has_wrong_are_left_out() -> None:
    found = check(wrong=4)

    assert found.asked == 24
    assert len(found.right) == 20
    assert those_right(dataset(subject(), wrong=4), found).ids == found.right
    assert found.checked == 16
    assert found.huge == 16
    assert found.unchanged == 0


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


def test_an_attack_that_a_huge_change_does_not_help_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    data = dataset(asked)
    rows = torch.zeros(4, 16, dtype=torch.bool)
    rows[1], rows[2, :15] = True, True
    monkeypatch.setattr("audits.hijack_checks._fallen", lambda *_: rows)

    with pytest.raises(Unreliable, match="with changes of 64/255 everywhere the attack still fails on 1 of 16 images"):
        checked(asked, data, data.ids, seed=0, chunk=16, steps=1)


def test_an_image_that_no_change_hijacks_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()
    data = dataset(asked)
    rows = torch.ones(4, 16, dtype=torch.bool)
    monkeypatch.setattr("audits.hijack_checks._fallen", lambda *_: rows)

    with pytest.raises(Unreliable, match="16 of 16 images are hijacked by an attack that may change nothing"):
        checked(asked, data, data.ids, seed=0, chunk=16, steps=1)


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
        assert 0 < one[name].sum() / 2 < other[name].sum(), name  # its log-odds are margins, and climbed otherwise
    assert other["stuck:top"].sum() == other["stuck:random"].sum() == 0
    assert check(Loud).by_gradient == check().by_gradient == 16


def test_a_model_that_has_nothing_right_cannot_be_judged() -> None:
    with pytest.raises(Unreliable, match="has none of 24 images right"):
        check(wrong=24)


def test_a_class_to_hijack_to_can_be_named() -> None:
    asked = subject()
    made = dataset(asked)
    wanted = made.label(made.ids[5])
    name = asked.classes[wanted]
    found = checked(asked, made, made.ids, seed=0, chunk=8, steps=LEAST.steps, source=name)

    assert list(found.signatures) == [wanted]
    whole = batch(asked)
    to = drawn_classes(whole, found.signatures)
    assert torch.equal(to, torch.where(whole.labels == wanted, -1, wanted))


def test_a_class_that_the_model_does_not_have_is_an_error() -> None:
    asked = subject()
    made = dataset(asked)
    with pytest.raises(BadInput, match=r"attacks\.source: tiny has no class 'tabby'; known: "):
        checked(asked, made, made.ids, seed=0, chunk=8, steps=LEAST.steps, source="tabby")


def test_a_class_of_which_nothing_is_right_cannot_be_hijacked_to() -> None:
    asked = subject()
    made = dataset(asked)
    label = made.label(made.ids[0])
    missing, others = asked.classes[label], [one for one in made.ids if made.label(one) != label]
    with pytest.raises(Unreliable, match=f"none of the pictures of {missing!r} right"):
        checked(asked, made, others, seed=0, chunk=8, steps=LEAST.steps, source=missing)
