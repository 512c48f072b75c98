"""What must hold before an attack that finds nothing may be believed: the images are right, and no slope is hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from audits.hijack_signatures import Signatures, cut_signatures
from camcore.adversary import Budget, apgd
from camcore.errors import Unreliable
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Dataset, Progress, batches, only
from camcore.square_attack import square
from camcore.subject import Classifier

CHECKED = 16  # images
HUGE = 64  # in steps of 1/255: whoever may change that much must succeed nearly always
NEARLY = 0.95
CALM = 8  # in steps of 1/255: where the attack by gradient is compared with one that needs none
WOBBLE = 1e-4  # of the largest score: two passes of one image may differ by that


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What the attack is put to, and what the checks of its gradient found."""

    right: tuple[str, ...]  # ids of the images that the model has right
    asked: int  # of how many
    huge: int  # of the images checked, those hijacked with a budget of HUGE
    by_gradient: int  # with CALM, everywhere
    by_squares: int  # with CALM, by an attack that needs no gradient
    checked: int
    signatures: Signatures  # pieces of other classes, to be blended in


def checked(
    subject: Classifier,
    dataset: Dataset,
    order: Sequence[str],
    *,
    seed: int,
    chunk: int,
    steps: int,
    queries: int,
    progress: Progress | None = None,
) -> Checks:
    """Find the images that the model has right, and check on the first of them that its gradient can be followed.

    Raises:
        Unreliable: It cannot: the gradient is zero, an attack with nearly no limit fails, or one without a gradient
            does better; or two passes of one image differ.
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
    counts = [0, 0, 0]
    for batch in batches(dataset, first, subject.geometry, seed=seed, device=device, size=chunk):
        counts = [a + b for a, b in zip(counts, _counts(subject, batch, steps, queries), strict=True)]
    huge, by_gradient, by_squares = counts
    if huge < NEARLY * len(first):
        raise Unreliable(
            f"gradients masked: with changes of {HUGE}/{LEVELS} everywhere the attack still fails on "
            f"{len(first) - huge} of {len(first)} images, so that its failures with less say nothing"
        )
    if by_squares > by_gradient:
        raise Unreliable(
            f"gradients masked: at {CALM}/{LEVELS} an attack without gradients hijacks {by_squares} of {len(first)} "
            f"images, the one by gradient {by_gradient}"
        )
    return Checks(
        right=tuple(right),
        asked=len(order),
        huge=huge,
        by_gradient=by_gradient,
        by_squares=by_squares,
        checked=len(first),
        signatures=cut_signatures(subject, dataset, right, seed=seed, chunk=chunk),
    )


def _counts(subject: Classifier, batch: Batch, steps: int, queries: int) -> tuple[int, int, int]:
    """How many images fall to a huge budget, to the gradient, and to squares."""
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
            budget=Budget(epsilon=epsilon / LEVELS, steps=steps),
            generators=batch.generators(f"hijack check {epsilon}"),
        )
        for epsilon in (HUGE, CALM)
    ]
    flat = int(found[0].no_slope.sum())
    if flat:
        raise Unreliable(
            f"gradients masked: on {flat} of {len(batch)} images the scores of {subject.name} have no slope at the "
            "pixels (rounding, detach or saturation on the way), so that an attack by gradient proves nothing"
        )
    blind = square(
        subject,
        shown,
        batch.labels,
        epsilon=CALM / LEVELS,
        queries=queries,
        generators=batch.generators("hijack check squares"),
    )
    return tuple(int(one.success.sum()) for one in (*found, blind))  # type: ignore[return-value]  # three of them


def those_right(dataset: Dataset, found: Checks) -> Dataset:
    """The images that the model has right: the others cannot be hijacked."""
    right = set(found.right)
    return only(dataset, [image_id for image_id in dataset.ids if image_id in right])
