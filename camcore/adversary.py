"""Attacks on the prediction: pixels of a part of the picture are changed, within a budget, so that the class changes.

For attacks on the map see `camcore.fragility`, for one without gradients `camcore.square_attack`. What an attack asks
the model, and what it returns, is on the 8-bit grid: an image that no file can hold is no attack.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil, floor
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from camcore.cost import count
from camcore.fragility import LEVELS, climbable, on_grid
from camcore.hooks import KeepGradients, as_written, bare, frozen
from camcore.images import Images
from camcore.subject import Classifier

Masks = Float[Tensor, "b h w"]  # 1 where pixels may be changed, 0 elsewhere
NEARLY_WHOLE = 1e-4  # of a step: what 4 / 255 * 255 may lack of 4 in floats
MOMENTUM, RISING = 0.75, 0.75  # of APGD: weight of the new step; share of steps that must have gone up


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an attack may do."""

    epsilon: float  # pixel units: the largest change of a value (linf), or the norm of the change of an image (l2)
    steps: int
    restarts: int = 1
    norm: Literal["linf", "l2"] = "linf"
    step: float | None = None  # of every step, in pixel units, as Madry et al. have it; None: adapted, as in APGD


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What an attack came to."""

    images: Images  # on the 8-bit grid and within the budget: the first that succeeds, or the one with the highest loss
    loss: Float[Tensor, " b"]  # its loss: `log_odds`, of `square` the `margin`
    success: Bool[Tensor, " b"]  # whether the class is another one now (the target, if there was one)
    no_slope: Bool[Tensor, " b"]  # the loss had no gradient, or none in numbers, where the attack began: what was not
    # found says nothing
    stuck: Bool[Tensor, " b"]  # it has not succeeded, and nothing that it tried has a higher loss than the image


@dataclass(frozen=True, kw_only=True)
class Climbed(Attacked):
    """What an attack that follows a slope came to."""

    steps: Int[Tensor, " b"]  # that it took, of all restarts together, until it succeeded; where it has not, all it had


def margin(
    logits: Float[Tensor, "n classes"], label: Int[Tensor, " n"], target: Int[Tensor, " n"] | None = None
) -> Float[Tensor, " n"]:
    """The best score among the other classes less the label's; with a target, the target's less the best other one's.

    Positive exactly where an attack has succeeded. Carlini and Wagner 2017 (arXiv:1608.04644), f6 without the clamp.
    """
    own, others = _own_and_others(logits, label if target is None else target)
    best = others.amax(1)
    return best - own if target is None else own - best


def log_odds(
    logits: Float[Tensor, "n classes"], label: Int[Tensor, " n"], target: Int[Tensor, " n"] | None = None
) -> Float[Tensor, " n"]:
    """log((1 - p) / p) of the label's softmax probability p; with a target, log(p / (1 - p)) of the target's.

    What the cross-entropy of the label is, and its slope, differ from this by a rising function only, so that an attack
    which looks at signs, directions and the order of losses, as APGD does, does the same with either; but the slope of
    the cross-entropy rounds to 0 where the model is sure, and this one's does not.
    """
    own, others = _own_and_others(logits, label if target is None else target)
    rest = others.logsumexp(1)
    return rest - own if target is None else own - rest


def _own_and_others(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The score of a class, and all scores with that one at -inf."""
    return logits.gather(1, wanted[:, None])[:, 0], logits.scatter(1, wanted[:, None], -torch.inf)


def apgd(
    subject: Classifier,
    images: Images,
    label: Int[Tensor, " b"],
    *,
    budget: Budget,
    mask: Masks | None = None,
    target: Int[Tensor, " b"] | None = None,
    generators: Sequence[Generator],
) -> Climbed:
    """Projected gradient ascent within a mask, whose step is halved when it stops paying.

    Croce and Hein 2020 (arXiv:2003.01690), algorithm 1, on the cross-entropy (`log_odds`); with `budget.step`, the
    plain PGD of Madry et al. 2018 (arXiv:1706.06083). Every image is attacked on its own: what becomes of one depends
    neither on the others nor on their number, and one whose class has changed is left in peace. The first restart
    begins at the image, the others at random within the budget.

    Args:
        subject: The model, in eval mode.
        images: In [0, 1]; rounded to 8 bits first.
        label: What they show.
        budget: How much may be changed, and how long it may take.
        mask: Where pixels may be changed; everywhere if not given.
        target: The class to be reached; any other than the label if not given.
        generators: One per image, for the restarts.

    Returns:
        The best found. For each restart as many forwards and backwards as steps, and one of each to begin with; fewer
        where the attack has succeeded before.
    """
    start = on_grid(images)
    allowed = torch.ones_like(start[:, 0]) if mask is None else mask.to(start)
    best, top = start.clone(), start.new_full((len(start),), -torch.inf)
    success = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    no_slope, first = torch.zeros_like(success), top.clone()
    steps = torch.full_like(label, budget.restarts * budget.steps)
    for restart in range(budget.restarts):
        rows = (~success).nonzero()[:, 0]
        if not len(rows):
            break
        change = torch.zeros_like(start[rows])
        if restart:
            drawn = torch.stack([torch.rand(start.shape[1:], generator=generators[row]) for row in rows.tolist()])
            change = (2 * drawn.to(start) - 1) * budget.epsilon
        climb = _begin(
            subject, start[rows], label[rows], None if target is None else target[rows], allowed[rows], change, budget
        )
        if not restart:
            no_slope, first = ~climbable(climb.slope), climb.loss
        for taken, one in _climbed(subject, climb, budget):
            higher = one.done | (one.top > top[rows[one.row]])
            chosen = rows[one.row[higher]]
            top[chosen], best[chosen] = one.top[higher], _shown(one.start, one.best, budget)[higher]
            success[chosen] = one.done[higher]
            steps[rows[one.row[one.done]]] = restart * budget.steps + taken
    return Climbed(
        images=best, loss=top, success=success, no_slope=no_slope, stuck=~success & ~(top > first), steps=steps
    )


@dataclass(frozen=True, kw_only=True)
class _Climb:
    """Where the ascent on each image is; one row per image that it goes on with."""

    row: Tensor  # of the images that the ascent began with
    start: Tensor
    label: Tensor
    target: Tensor | None
    mask: Tensor
    now: Tensor  # the change, not rounded
    before: Tensor
    loss: Tensor
    slope: Tensor
    done: Tensor  # whether the attack has succeeded
    best: Tensor  # the change with which it has, or the one with the highest loss so far
    top: Tensor
    slope_at_best: Tensor
    step: Tensor
    rises: Tensor  # steps that went up since the last checkpoint
    step_then: Tensor  # at the last checkpoint
    top_then: Tensor

    def part(self, keep: Bool[Tensor, " n"]) -> "_Climb":
        """Some of the rows."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = None if value is None else value[keep]
        return _Climb(**values)


def _begin(
    subject: Classifier,
    start: Images,
    label: Tensor,
    target: Tensor | None,
    mask: Masks,
    change: Tensor,
    budget: Budget,
) -> _Climb:
    now = _legal(change * mask[:, None], start, budget)
    loss, slope, done = _look(subject, _shown(start, now, budget), label, target, mask)
    step = torch.full_like(loss, 2 * budget.epsilon if budget.step is None else budget.step)
    return _Climb(
        row=torch.arange(len(start), device=start.device),
        start=start,
        label=label,
        target=target,
        mask=mask,
        now=now,
        before=now,
        loss=loss,
        slope=slope,
        done=done,
        best=now,
        top=loss,
        slope_at_best=slope,
        step=step,
        rises=torch.zeros_like(loss),
        step_then=step,
        top_then=loss,
    )


def _climbed(subject: Classifier, climb: _Climb, budget: Budget) -> Iterator[tuple[int, _Climb]]:
    """Climb, and hand out the images whose class has changed as soon as it has, the others at the end.

    Returns:
        Each time how many steps it took, and the images.
    """
    checkpoints = _checkpoints(budget.steps) if budget.step is None else []
    previous = 0
    for number in range(1, budget.steps + 1):
        if climb.done.any():
            yield number - 1, climb.part(climb.done)
            climb = climb.part(~climb.done)
        if not len(climb.row):
            return
        climb = _stepped(subject, climb, budget, first=number == 1)
        if number in checkpoints:
            climb = _checked(climb, number - previous)
            previous = number
    yield budget.steps, climb


def _stepped(subject: Classifier, climb: _Climb, budget: Budget, *, first: bool) -> _Climb:
    """One step uphill, with momentum."""
    ahead = _legal(climb.now + climb.step[:, None, None, None] * _direction(climb.slope, budget), climb.start, budget)
    share = 1.0 if first or budget.step is not None else MOMENTUM
    now = _legal(
        climb.now + share * (ahead - climb.now) + (1 - share) * (climb.now - climb.before), climb.start, budget
    )
    loss, slope, done = _look(subject, _shown(climb.start, now, budget), climb.label, climb.target, climb.mask)
    better = done | (loss > climb.top)
    return replace(
        climb,
        now=now,
        before=climb.now,
        loss=loss,
        slope=slope,
        done=done,
        best=torch.where(better[:, None, None, None], now, climb.best),
        top=torch.where(better, loss, climb.top),
        slope_at_best=torch.where(better[:, None, None, None], slope, climb.slope_at_best),
        rises=climb.rises + (loss > climb.loss).to(climb.rises),
    )


def _checked(climb: _Climb, steps: int) -> _Climb:
    """Halve the step where too few of the last steps went up, or nothing has been gained, and go back to the best."""
    halve = (climb.rises < RISING * steps) | ((climb.step == climb.step_then) & (climb.top == climb.top_then))
    back = halve[:, None, None, None]
    return replace(
        climb,
        now=torch.where(back, climb.best, climb.now),
        loss=torch.where(halve, climb.top, climb.loss),
        slope=torch.where(back, climb.slope_at_best, climb.slope),
        step=torch.where(halve, climb.step / 2, climb.step),
        rises=torch.zeros_like(climb.rises),
        step_then=climb.step,
        top_then=climb.top,
    )


def _checkpoints(steps: int) -> list[int]:
    """After how many steps the step size is looked at: 22 % of them, then ever more often."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [ceil(share * steps) for share in shares[1:]]


def _look(
    subject: Classifier, shown: Images, label: Tensor, target: Tensor | None, mask: Masks
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3 h w"], Bool[Tensor, " n"]]:
    """The loss of the images, which way it rises within the mask, and whether the attack has succeeded."""
    inner = bare(subject)
    with torch.inference_mode(False), torch.enable_grad(), as_written(), KeepGradients(), frozen(inner.module):
        pixels = shown.detach().clone().requires_grad_()
        logits = inner.logits(pixels)
        loss = log_odds(logits, label, target)
        count(backwards=len(shown))
        found = torch.autograd.grad(loss.sum(), pixels, allow_unused=True)[0] if loss.requires_grad else None
    slope = torch.zeros_like(shown) if found is None else found.detach()
    return loss.detach(), slope * mask[:, None], margin(logits.detach(), label, target) > 0


def _legal(change: Tensor, start: Images, budget: Budget) -> Tensor:
    """The nearest change within the budget, and then the nearest that keeps the pixels in [0, 1]: it is smaller."""
    if budget.norm == "linf":
        within = change.clamp(-budget.epsilon, budget.epsilon)
    else:
        norm = change.flatten(1).norm(dim=1)[:, None, None, None]
        within = change * (budget.epsilon / norm.clamp_min(budget.epsilon))
    return (start + within).clamp(0, 1) - start


def _shown(start: Images, change: Tensor, budget: Budget) -> Images:
    """What a file holds of the changed images: rounded, but never out of the budget."""
    steps = change * LEVELS
    if budget.norm == "linf":
        most = whole_steps(budget.epsilon)
        return on_grid(start + steps.round().clamp(-most, most) / LEVELS)
    return on_grid(start + _as_long(steps) / LEVELS)


def whole_steps(epsilon: float) -> int:
    """Of 1/255, that a value may change by at most: a budget between two steps allows the lower one."""
    return floor(epsilon * LEVELS + NEARLY_WHOLE)


def _as_long(steps: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Whole steps that are together no longer than those given, in l2, and hardly shorter.

    All towards 0 would leave much of a budget unspent, where most values change by less than a step, and all to the
    nearest may spend more than there is. So those that are furthest on the way to their next step take it first, for
    as long as the length lasts.
    """
    flat = steps.flatten(1).double()
    least = flat.trunc()
    order = (flat - least).abs().argsort(dim=1, descending=True, stable=True)
    cost = (2 * least.abs() + 1).gather(1, order)  # of one step more: (n + 1)^2 - n^2
    room = (flat.square().sum(1) - least.square().sum(1))[:, None] + NEARLY_WHOLE
    taken = (cost.cumsum(1) <= room) & (flat != least).gather(1, order)
    more = torch.zeros_like(flat).scatter(1, order, taken.to(flat)) * flat.sign()
    return (least + more).to(steps).view_as(steps)


def _direction(slope: Tensor, budget: Budget) -> Tensor:
    """Uphill, of length 1 in the budget's norm; none where there is no slope."""
    if budget.norm == "linf":
        return slope.sign()
    norm = slope.flatten(1).norm(dim=1)[:, None, None, None]
    return slope / norm.clamp_min(torch.finfo(slope.dtype).tiny)
