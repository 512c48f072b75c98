"""What must hold before an attack that finds nothing may be believed: the images are right, and no slope is hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from audits.hijack_signatures import Signatures, cut_signatures
from camcore.adversary import Budget, apgd
from camcore.errors import Unreliable
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Dataset, Progress, batches, only
from camcore.subject import Classifier

CHECKED = 16  # images
HUGE = 64  # in steps of 1/255: whoever may change that much must succeed nearly always
NEARLY = 0.95
CALM = 8  # in steps of 1/255: where nothing falls to it everywhere, nothing is there for a map to guide
WOBBLE = 1e-4  # of the largest score: two passes of one image may differ by that


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What the attack is put to, and what the checks of its gradient found."""

    right: tuple[str, ...]  # ids of the images that the model has right
    asked: int  # of how many
    unchanged: int  # of the images checked, those hijacked by an attack that may change nothing
    huge: int  # with a budget of HUGE
    by_gradient: int  # with CALM, everywhere
    checked: int
    signatures: Signatures  # pieces of other classes, to be blended in
    beside: frozenset[str] = frozenset()  # ids of the images that the attacks beside the judged ones are tried on
    lpips: str | None = None  # the network by which pictures are compared, if its weights are at hand


def checked(
    subject: Classifier,
    dataset: Dataset,
    order: Sequence[str],
    *,
    seed: int,
    chunk: int,
    steps: int,
    source: str | None = None,
    progress: Progress | None = None,
) -> Checks:
    """Find the images that the model has right, and check on the first of them that its gradient can be followed.

    Raises:
        BadInput: The model has no class of the name of `source`.
        Unreliable: It cannot: the gradient is zero or leads nowhere, or an attack with nearly no limit fails; or an
            image has other scores in another pass.
    """
    right: list[str] = []
    device = subject.device
    for part in batches(dataset, order, subject.geometry, seed=seed, device=device, size=chunk, progress=progress):
        with torch.no_grad():
            hits = subject.logits(on_grid(part.images)).argmax(1) == part.labels
        right += [image_id for image_id, hit in zip(part.ids, hits.tolist(), strict=True) if hit]
    first = right[:CHECKED]
    if not first:
        raise Unreliable(f"{subject.name} has none of {len(order)} images right, so that none can be hijacked")
    parts = [
        _fallen(subject, batch, steps)
        for batch in batches(dataset, first, subject.geometry, seed=seed, device=device, size=chunk)
    ]
    unchanged, raised, huge, by_gradient = torch.cat(parts, 1)
    n = len(first)
    if unchanged.any():
        raise Unreliable(
            f"{int(unchanged.sum())} of {n} images are hijacked by an attack that may change nothing: {subject.name} "
            "answers otherwise when the same image is in another batch"
        )
    if raised.sum() < NEARLY * n:
        raise Unreliable(
            f"gradients mislead: on {n - int(raised.sum())} of {n} images a step of 1/{LEVELS} along the slope does "
            "not raise the loss, so that an attack that follows it proves nothing"
        )
    if huge.sum() < NEARLY * n:
        raise Unreliable(
            f"gradients masked: with changes of {HUGE}/{LEVELS} everywhere the attack still fails on "
            f"{n - int(huge.sum())} of {n} images, so that its failures with less say nothing"
        )
    return Checks(
        right=tuple(right),
        asked=len(order),
        unchanged=int(unchanged.sum()),
        huge=int(huge.sum()),
        by_gradient=int(by_gradient.sum()),
        checked=n,
        signatures=cut_signatures(subject, dataset, right, seed=seed, chunk=chunk, source=source),
    )


def _fallen(subject: Classifier, batch: Batch, steps: int) -> Bool[Tensor, "4 b"]:
    """Which images fall to no change, climb in one small step, and fall to a huge change and to a small one."""
    shown = on_grid(batch.images)
    with torch.no_grad():
        once, again = subject.logits(shown), subject.logits(shown)
    if (once - again).abs().max() > WOBBLE * once.abs().max():
        raise Unreliable(
            f"{subject.name} gives one image different scores in two passes; an attack has to be averaged over draws, "
            "which this audit does not do"
        )
    found = [
        apgd(
            subject,
            shown,
            batch.labels,
            budget=Budget(epsilon=epsilon / LEVELS, steps=steps if epsilon > 1 else 1),
            generators=batch.generators(f"hijack check {epsilon}"),
        )
        for epsilon in (0, 1, HUGE, CALM)
    ]
    still, stepped, huge, calm = found
    flat = int(still.no_slope.sum())
    if flat:
        raise Unreliable(
            f"gradients masked: on {flat} of {len(batch)} images the scores of {subject.name} have no slope at the "
            "pixels (rounding, detach or saturation on the way), so that an attack by gradient proves nothing"
        )
    # the best of the start and one step: no higher than the start where the step went down
    raised = stepped.loss > still.loss
    return torch.stack([still.success, raised, huge.success, calm.success])


def those_right(dataset: Dataset, found: Checks) -> Dataset:
    """The images that the model has right: the others cannot be hijacked."""
    right = set(found.right)
    return only(dataset, [image_id for image_id in dataset.ids if image_id in right])
