from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from camcore.adversary import Attacked, Budget, Climbed, _legal, _shown, apgd, log_odds, margin
from camcore.cost import metered
from camcore.square_attack import square
from tests.climbed import EPSILON, Centred, Rounded, asked, draws
from tests.oracles import apgd as oracle
from tests.tiny import GapNet, some_images, tiny_subject


def test_the_margin_is_positive_exactly_where_the_class_is_another_one() -> None:
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    label = torch.arange(200) % 5
    target = (label + 1) % 5

    assert torch.equal(margin(logits, label) > 0, logits.argmax(1) != label)
    assert torch.equal(margin(logits, label, target) > 0, logits.argmax(1) == target)


def test_the_log_odds_are_those_of_the_probability() -> None:
    logits = 3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.arange(200) % 5
    target = (label + 1) % 5
    probability = logits.softmax(1)
    own, wanted = probability[torch.arange(200), label], probability[torch.arange(200), target]

    torch.testing.assert_close(log_odds(logits, label), ((1 - own) / own).log())
    torch.testing.assert_close(log_odds(logits, label, target), (wanted / (1 - wanted)).log())


def test_the_log_odds_still_slope_where_the_cross_entropy_is_flat() -> None:
    logits = torch.tensor([[200.0, 0.0, 1.0]], requires_grad=True)
    label = torch.tensor([0])
    (flat,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, label), logits)
    (slope,) = torch.autograd.grad(log_odds(logits, label).sum(), logits)

    assert flat.abs().max() == 0
    torch.testing.assert_close(slope, torch.tensor([[-1.0, 0.2689414, 0.7310586]]))


@pytest.mark.parametrize("steps", [1, 2, 7, 25])
def test_apgd_does_what_the_paper_says(steps: int) -> None:
    one, images, label = asked()
    mask = (torch.rand(6, 16, 16, generator=draws(1)[0]) < 0.5).float()
    budget = Budget(epsilon=2.3 / 255, steps=steps)  # no whole number of steps: nothing lies half way between two

    found = apgd(one, images, label, budget=budget, mask=mask, generators=draws(6))

    for index in range(6):
        image, loss, fallen = oracle.apgd(
            one.logits, images[index], int(label[index]), budget.epsilon, steps, mask[index]
        )
        assert bool(found.success[index]) == fallen
        # the cross-entropy is a function of the log-odds: log(1 + e^x)
        assert torch.nn.functional.softplus(found.loss[index]).item() == pytest.approx(loss, abs=1e-5)
        torch.testing.assert_close(found.images[index], image, atol=1e-6, rtol=0)


def test_the_oracle_is_asked_about_images_that_fall_and_about_images_that_do_not() -> None:
    one, images, label = asked()
    found = apgd(one, images, label, budget=Budget(epsilon=EPSILON / 4, steps=25), generators=draws(6))

    assert 0 < int(found.success.sum()) < 6


@given(
    epsilon=st.floats(0, 64), norm=st.sampled_from(["linf", "l2"]), share=st.floats(0, 1), restarts=st.integers(1, 3)
)
def test_what_comes_out_is_a_file_within_the_budget_and_the_mask(
    epsilon: int, norm: str, share: float, restarts: int
) -> None:
    one, images, label = asked(2)
    mask = (torch.rand(2, 16, 16, generator=draws(1)[0]) < share).float()
    budget = Budget(epsilon=epsilon / 255, steps=4, restarts=restarts, norm=norm)

    found = apgd(one, images, label, budget=budget, mask=mask, generators=draws(2)).images

    start = (images * 255).round() / 255
    torch.testing.assert_close((found * 255).round() / 255, found, atol=1e-6, rtol=0)
    assert 0 <= found.min() <= found.max() <= 1
    change = (found - start) * mask[:, None]
    torch.testing.assert_close(start + change, found, atol=1e-6, rtol=0)
    size = change.abs().amax() if norm == "linf" else change.flatten(1).norm(dim=1).amax()
    assert size <= budget.epsilon + 1e-5  # a step is 4e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_budget_of_less_than_a_step_buys_nothing(norm: str) -> None:
    one, images, label = asked()
    for epsilon in (0.3, 0.6, 0.99):
        found = apgd(
            one, images, label, budget=Budget(epsilon=epsilon / 255, steps=5, norm=norm), generators=draws(6)
        ).images
        assert torch.equal(found, (images * 255).round() / 255), epsilon
    squares = square(one, images, label, epsilon=0.6 / 255, queries=5, generators=draws(6)).images
    assert torch.equal(squares, (images * 255).round() / 255)


@given(epsilon=st.floats(0.02, 4.0), seed=st.integers(0, 1000), spread=st.sampled_from([0.0, 1.0, 3.0]))
def test_an_l2_budget_is_spent_and_not_exceeded(epsilon: float, seed: int, spread: float) -> None:
    """Values that all change alike, by less than half a step, and values of which a few change a lot."""
    generator = torch.Generator().manual_seed(seed)
    change = torch.randn(2, 3, 16, 16, generator=generator)
    change = change.sign() * change.abs().pow(spread)
    change = epsilon * change / change.flatten(1).norm(dim=1)[:, None, None, None]
    start = torch.full_like(change, 128 / 255)
    budget = Budget(epsilon=epsilon, steps=1, norm="l2")

    change = _legal(change, start, budget)  # shorter, where black and white are in the way
    moved = _shown(start, change, budget) - start

    length = moved.flatten(1).norm(dim=1)
    assert (length <= epsilon * (1 + 1e-5)).all()
    assert (length >= 0.95 * change.flatten(1).norm(dim=1)).all()
    torch.testing.assert_close((moved * 255).round() / 255, moved, atol=1e-6, rtol=0)
    assert (moved * change >= 0).all()
    assert ((moved - change).abs() < 1 / 255 + 1e-6).all()  # to one of the two steps beside it


def test_the_loss_is_that_of_the_image_that_comes_out() -> None:
    one, images, label = asked()
    for norm in ("linf", "l2"):
        found = apgd(
            one, images, label, budget=Budget(epsilon=EPSILON, steps=5, restarts=2, norm=norm), generators=draws(6)
        )
        with torch.no_grad():
            logits = one.logits(found.images)
        torch.testing.assert_close(log_odds(logits, label), found.loss)
        assert torch.equal(logits.argmax(1) != label, found.success)


def test_nothing_changes_without_a_budget_and_everything_falls_with_a_large_one() -> None:
    one, images, label = asked()

    none = apgd(one, images, label, budget=Budget(epsilon=0.0, steps=5), generators=draws(6))
    large = apgd(one, images, label, budget=Budget(epsilon=1.0, steps=50, restarts=3), generators=draws(6))

    assert not none.success.any()
    assert large.success.all()


def never_worse(found: list[Attacked]) -> None:
    """On no image: what succeeded does so still, and what did not has climbed as high."""
    for less, more in pairwise(found):
        assert (more.success >= less.success).all()
        assert (more.success | (more.loss >= less.loss)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_restarts_never_hurt_any_image(norm: str) -> None:
    one, images, label = asked(20)

    def found(restarts: int) -> Attacked:
        budget = Budget(epsilon=EPSILON / 4, steps=10, restarts=restarts, norm=norm)
        return apgd(one, images, label, budget=budget, generators=draws(20))

    never_worse([found(restarts) for restarts in (1, 2, 5)])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_steps_of_one_size_never_hurt_any_image(norm: str) -> None:
    """A longer run begins with the shorter one. Not so with APGD, whose steps shrink by how many there are in all."""
    one, images, label = asked(20)

    def found(steps: int) -> Attacked:
        budget = Budget(epsilon=EPSILON / 4, steps=steps, norm=norm, step=EPSILON / 16)
        return apgd(one, images, label, budget=budget, generators=draws(20))

    never_worse([found(steps) for steps in (1, 2, 5, 9, 30)])


def test_the_steps_that_an_attack_took_are_those_that_it_takes_with_no_more() -> None:
    """Of one size: a shorter run is the beginning of a longer one, and succeeds where that had by then."""
    one, images, label = asked(20)

    def found(steps: int) -> Climbed:
        budget = Budget(epsilon=EPSILON / 4, steps=steps, step=EPSILON / 16)
        return apgd(one, images, label, budget=budget, generators=draws(20))

    long = found(30)
    assert long.steps[long.success].unique().numel() > 2
    assert (long.steps[~long.success] == 30).all()
    for steps in (1, 2, 3, 5, 8):
        assert torch.equal(found(steps).success, long.success & (long.steps <= steps)), steps


def test_the_steps_of_the_restarts_before_count_too() -> None:
    """Its steps are too small to get anywhere: what succeeds is a beginning at random, of the second restart on."""
    one, images, label = asked(20)
    budget = Budget(epsilon=64 / 255, steps=2, restarts=4, step=1e-6)
    found = apgd(one, images, label, budget=budget, generators=draws(20))

    assert set(found.steps[found.success].tolist()) == {2, 4, 6}
    assert set(found.steps[~found.success].tolist()) == {8}


def test_an_image_that_has_fallen_to_begin_with_takes_no_step() -> None:
    one, images, label = asked()
    found = apgd(one, images, (label + 1) % 5, budget=Budget(epsilon=EPSILON, steps=3), generators=draws(6))
    assert found.steps.tolist() == [0] * 6


def test_an_attack_that_gets_no_higher_than_it_began_is_told() -> None:
    """Not on every image: the slope of one is turned about, that of the other is not."""
    one, images, label = asked(6)

    def turned(pixels: Tensor) -> Tensor:
        return torch.cat([2 * pixels[:1].detach() - pixels[:1], pixels[1:]])

    budget = Budget(epsilon=1 / 255, steps=5)
    misled = apgd(replace(one, preprocess=turned), images[:2], label[:2], budget=budget, generators=draws(2))
    plain = apgd(replace(one, preprocess=lambda pixels: pixels), images, label, budget=budget, generators=draws(6))

    assert misled.stuck.tolist() == [True, False]
    assert not misled.no_slope.any()
    assert not plain.stuck.any()


def test_the_target_is_reached_where_it_succeeds() -> None:
    one, images, label = asked()
    target = (label + 2) % 5
    found = apgd(one, images, label, target=target, budget=Budget(epsilon=0.5, steps=40), generators=draws(6))

    with torch.no_grad():
        assert torch.equal(one.logits(found.images).argmax(1) == target, found.success)
    assert found.success.any()


def test_what_becomes_of_an_image_does_not_depend_on_the_others() -> None:
    one, images, label = asked()
    budget = Budget(epsilon=EPSILON / 4, steps=10, restarts=2)
    together = apgd(one, images, label, budget=budget, generators=draws(6))
    for index in range(6):
        part = slice(index, index + 1)
        alone = apgd(one, images[part], label[part], budget=budget, generators=draws(1, index))
        torch.testing.assert_close(alone.loss, together.loss[part], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.images, together.images[part], atol=1e-6, rtol=0)


def test_it_costs_a_forward_and_a_backward_per_step_and_image_that_still_stands() -> None:
    one, images, label = asked()
    with metered() as cost:
        apgd(one, images, label, budget=Budget(epsilon=0.0, steps=7, restarts=3), generators=draws(6))
    assert (cost.forwards, cost.backwards) == (6 * 3 * 8, 6 * 3 * 8)

    wrong = (label + 1) % 5
    with metered() as cost:
        apgd(one, images, wrong, budget=Budget(epsilon=EPSILON, steps=7, restarts=3), generators=draws(6))
    assert (cost.forwards, cost.backwards) == (6, 6)  # they are called something else to begin with


def test_a_fixed_step_is_plain_pgd() -> None:
    one, images, label = asked()
    budget = Budget(epsilon=EPSILON, steps=3, step=2 / 255)
    found = apgd(one, images, label, budget=budget, generators=draws(6))

    start = (images * 255).round() / 255
    change = torch.zeros_like(start)
    for index in range(6):  # best of the iterates, until one succeeds
        x, best, top = start[index : index + 1], start[index : index + 1], -torch.inf
        for _ in range(4):
            shown = x.clone().requires_grad_()
            logits = one.logits(shown)
            loss = torch.nn.functional.cross_entropy(logits, label[index : index + 1])
            fallen = int(logits.argmax()) != int(label[index])
            if fallen or loss.item() > top:
                best, top = x, loss.item()
            if fallen:
                break
            (slope,) = torch.autograd.grad(loss.sum(), shown)
            x = torch.clamp(x + budget.step * slope.sign(), start[index] - EPSILON, start[index] + EPSILON).clamp(0, 1)
            x = (x * 255).round() / 255
        change[index] = (best - start[index])[0]
        assert torch.nn.functional.softplus(found.loss[index]).item() == pytest.approx(top, abs=1e-5)
    torch.testing.assert_close(found.images, start + change, atol=1e-6, rtol=0)


def test_a_hidden_gradient_is_told() -> None:
    one, images = tiny_subject(Rounded(), "inner.inner.relu"), some_images(3)
    with torch.no_grad():
        label = one.logits(images).argmax(1)

    found = apgd(one, images, label, budget=Budget(epsilon=EPSILON, steps=2), generators=draws(3))
    assert found.no_slope.all()

    nowhere = tiny_subject(GapNet(), "relu", preprocess=lambda x: x + (x - x).sqrt())  # its slope is NaN
    found = apgd(nowhere, images, label, budget=Budget(epsilon=EPSILON, steps=2), generators=draws(3))
    assert found.no_slope.all()

    plain, images, label = asked(3)
    assert not apgd(plain, images, label, budget=Budget(epsilon=EPSILON, steps=2), generators=draws(3)).no_slope.any()


class Sure(Centred):
    """So sure of every class that its probability rounds to 1: the cross-entropy has no slope."""

    def forward(self, images: Tensor) -> Tensor:
        return 1e4 * super().forward(images)


def test_a_model_that_is_too_sure_hides_no_slope() -> None:
    one, images = tiny_subject(Sure(), "inner.relu"), some_images(12)
    with torch.no_grad():
        label = one.logits((images * 255).round() / 255).argmax(1)
    pixels = ((images * 255).round() / 255).requires_grad_()
    loss = torch.nn.functional.cross_entropy(one.logits(pixels), label, reduction="sum")
    (flat,) = torch.autograd.grad(loss, pixels)
    assert int((flat.flatten(1).abs().amax(1) == 0).sum()) >= 8  # as the attack would be left without a slope

    found = apgd(one, images, label, budget=Budget(epsilon=64 / 255, steps=30), generators=draws(12))
    assert not found.no_slope.any()
    assert found.success.all()


def test_the_model_and_the_images_are_left_as_they_came() -> None:
    one, images, label = asked()
    before, state = images.clone(), {name: value.clone() for name, value in one.module.state_dict().items()}
    apgd(one, images, label, budget=Budget(epsilon=EPSILON, steps=3, restarts=2), generators=draws(6))
    square(one, images, label, epsilon=EPSILON, queries=5, generators=draws(6))

    assert torch.equal(images, before)
    assert all(torch.equal(value, state[name]) for name, value in one.module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in one.module.parameters())
