"""An attack on the map: change the pixels a little, so that the prediction stays and the saliency goes elsewhere.

Ghorbani et al. 2019, arXiv:1710.10547, algorithm 1 with the top-k objective: iterated steps of the gradient's sign,
which push the saliency out of the places that were the most salient ones, and of all iterates that keep the prediction
the one that moved it most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from camcore.ask import differentiable, subject_of
from camcore.cost import count
from camcore.hooks import bare, hooked, replace_first
from camcore.images import Images
from camcore.metrics.fragility import top_cells
from camcore.recording import Recording, grid_of
from camcore.subject import at_least_fp32, first_tensor

LEVELS = 255  # steps between black and white in a file: the attack moves by whole ones
KEPT = 0.1  # a prediction is kept if the class stays the first and its probability within this of what it was
TOP = 0.1  # share of the cells that count as the most salient
PULL = 4.0  # weight of the probability that has gone too far, against the saliency, both of which lie in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What an attack found. Every image is on the 8-bit grid and within its radius."""

    images: tuple[Images, ...]  # one for each radius; the original where nothing better keeps the prediction
    share: Float[Tensor, "b radii"]  # of the map's magnitude that is left where the map was most salient
    before: Float[Tensor, " b"]  # the same, before
    masked: Bool[Tensor, " b"]  # the gradient of the attack is zero at the image: it cannot be attacked this way


@dataclass(kw_only=True)
class _Found:
    share: Tensor
    kept: Tensor
    slope: Tensor | None


def on_grid(images: Images) -> Images:
    """Rounded to the values that an 8-bit file can hold."""
    return (images * LEVELS).round() / LEVELS


def attack(rec: Recording, *, radii: Sequence[int], steps: int) -> Attack:
    """Move the map of gradient times activation (HiResCAM), before it is rectified, away from its most salient cells.

    The gradient in the map is taken anew at each step and held fixed while the step is found: where the network behind
    the layer is piecewise linear (ReLU, pooling, linear layers) its derivative is zero almost everywhere, and the step
    is the full one; behind others it leaves the second order out. The map is attacked before ReLU, where a cell that
    shows nothing still has a slope.

    Args:
        rec: Of images on the 8-bit grid (`on_grid`), by the target layer.
        radii: Of the L∞ ball in steps of 1/255, increasing; each starts from where the smaller one ended.
        steps: For each radius. One forward and two backwards each, and one forward more in all.
    """
    start = rec.images
    probability = rec.logits.softmax(1).gather(1, rec.target[:, None])[:, 0]
    top = top_cells(_map(rec.activations, rec.gradients), TOP)
    found = _look(rec, start, top, probability)
    assert found.slope is not None
    before, masked = found.share, ~climbable(found.slope)
    best, least = start, before
    current, images, shares = start, [], []
    for number, radius in enumerate(radii):
        for step in range(steps):
            assert found.slope is not None
            moved = ((current * LEVELS).round() - found.slope.sign()) / LEVELS
            current = on_grid(moved.clamp(start - radius / LEVELS, start + radius / LEVELS).clamp(0, 1))
            last = number == len(radii) - 1 and step == steps - 1
            found = _look(rec, current, top, probability, slope=not last)
            better = found.kept & (found.share < least)
            best = torch.where(better[:, None, None, None], current, best)
            least = torch.where(better, found.share, least)
        images.append(best)
        shares.append(least)
    return Attack(images=tuple(images), share=torch.stack(shares, 1), before=before, masked=masked)


def climbable(slope: Tensor) -> Bool[Tensor, " b"]:
    """Whether a slope says which way to go: it is a number everywhere, and not zero everywhere."""
    return slope.isfinite().flatten(1).all(1) & slope.flatten(1).any(1)


def _look(
    rec: Recording, images: Images, top: Bool[Tensor, "b i j"], probability: Float[Tensor, " b"], *, slope: bool = True
) -> _Found:
    """What the attack has reached, whether the prediction is kept, and which way to go on."""
    subject = bare(subject_of(rec))
    kept: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        raw = first_tensor(output)
        # a model that cuts its layers off from its input has no slope to follow; the map is found all the same
        kept.append(raw if raw.requires_grad else raw.detach().requires_grad_())
        return replace_first(output, kept[0].clone())

    with differentiable(rec):
        pixels = images.detach().clone().requires_grad_(slope)
        with hooked(subject.module, {rec.layer: hook}):
            logits = subject.logits(pixels)
        score = logits.gather(1, rec.target[:, None])
        (gradient,) = torch.autograd.grad(score.sum(), kept, retain_graph=slope)
        count(backwards=len(images))
        grid = grid_of(subject, rec.layer, kept[0])
        saliency = _map(at_least_fp32(grid.fold(kept[0])), at_least_fp32(grid.fold(gradient)))
        magnitude = saliency.abs().sum((1, 2)).clamp(min=torch.finfo(saliency.dtype).tiny)
        share = (saliency * top).sum((1, 2)) / magnitude
        now = logits.softmax(1).gather(1, rec.target[:, None])[:, 0]
        gone = (now - probability).abs()
        found = None
        if slope:
            # half of what is allowed: a step of the sign cannot be made smaller
            loss = share + PULL * (gone - KEPT / 2).relu()
            count(backwards=len(images))
            found = torch.autograd.grad(loss.sum(), pixels, allow_unused=True)[0]
            found = torch.zeros_like(images) if found is None else found.detach()
    same = (logits.argmax(1) == rec.target) & (gone <= KEPT)
    return _Found(share=share.detach(), kept=same.detach(), slope=found)


def _map(activations: Float[Tensor, "b k i j"], gradients: Float[Tensor, "b k i j"]) -> Float[Tensor, "b i j"]:
    return (activations * gradients.detach()).sum(1)
