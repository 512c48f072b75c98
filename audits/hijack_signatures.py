"""Texture signatures: a piece of another class, from where its Grad-CAM peaks, blended in where the model looks."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from camcore.adversary import Attacked, Masks, log_odds, margin
from camcore.cam import METHODS
from camcore.errors import BadInput, Unreliable
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Dataset, Images, batches
from camcore.maps import upsample
from camcore.recording import record
from camcore.subject import Classifier
from fixtures.subjects.registry import nearest

SOURCES = 16  # classes at most that a piece is cut from
SIDE = 0.25  # of the picture's shorter side
TRIED = 16  # places; and laid over the whole mask in tiles

Signatures = Mapping[int, Float[Tensor, "3 s s"]]  # class -> a piece of one of its pictures


def cut_signatures(
    subject: Classifier,
    dataset: Dataset,
    right: Sequence[str],
    *,
    seed: int,
    chunk: int,
    source: str | None = None,
) -> Signatures:
    """The square that Grad-CAM marks most, of the first picture of each of the first classes.

    Args:
        subject: The model, which has a target layer.
        dataset: Where the pictures are.
        right: Those that the model has right, in the order in which they are taken.
        seed: Of the run.
        chunk: Pictures per forward.
        source: The one class that pieces are cut from, if it is given.

    Raises:
        BadInput: The model has no class of that name.
        Unreliable: It has no picture of that class right.
    """
    first: dict[int, str] = {}
    for image_id in right:
        first.setdefault(dataset.label(image_id), image_id)
    if source is not None:
        if source not in subject.classes:
            raise BadInput(
                f"attacks.source: {subject.name} has no class {source!r}; {nearest(source, subject.classes)}"
            )
        label = subject.classes.index(source)
        if label not in first:
            raise Unreliable(
                f"{subject.name} has none of the pictures of {source!r} right, to which others are to be hijacked "
                "(attacks.source)"
            )
        first = {label: first[label]}
    chosen = list(first.values())[:SOURCES]
    found: dict[int, Tensor] = {}
    for batch in batches(dataset, chosen, subject.geometry, seed=seed, device=subject.device, size=chunk):
        rec = record(subject, on_grid(batch.images), batch.labels, chunk=batch.chunk)
        saliency = upsample(METHODS["gradcam"](rec), rec.images.shape[2:], rec.placement)
        side = side_of(rec.images)
        sums = functional.avg_pool2d(saliency[:, None], side, stride=1)[:, 0]
        for index, label in enumerate(batch.labels.tolist()):
            top, left = divmod(int(sums[index].argmax()), sums.shape[2])
            found[label] = rec.images[index, :, top : top + side, left : left + side]
    return found


def side_of(images: Images) -> int:
    """Of a piece, in pixels."""
    return max(1, round(SIDE * min(images.shape[2:])))


def drawn_classes(batch: Batch, signatures: Signatures) -> Int[Tensor, " b"]:
    """For every image another class than its own, of those that there is a piece of; -1 if there is none."""
    drawn = []
    for label, one in zip(batch.labels.tolist(), batch.generators("hijack target"), strict=True):
        others = sorted(set(signatures) - {label})
        drawn.append(others[int(torch.randint(len(others), (1,), generator=one))] if others else -1)
    return torch.tensor(drawn, device=batch.labels.device)


@torch.no_grad()
def blended(
    subject: Classifier,
    batch: Batch,
    mask: Masks,
    target: Int[Tensor, " b"],
    signatures: Signatures,
    *,
    radius: int,
) -> Attacked:
    """Each image with the target's piece where it raises the target's score most, no value changed by more than radius.

    A pixel within the mask moves as far towards the piece as the radius (in steps of 1/255) lets it. Tried are the
    places that hold most of the mask, and the whole mask under tiles of the piece. Images without a target stay.

    Returns:
        As `camcore.adversary.apgd`; TRIED + 1 forwards for every image with a target.
    """
    start = on_grid(batch.images)
    best, rows = start.clone(), (target >= 0).nonzero()[:, 0]
    loss = start.new_full((len(start),), -torch.inf)
    success = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    if len(rows):
        pieces = torch.stack([signatures[int(label)] for label in target[rows]])
        base, own, wanted = start[rows], batch.labels[rows], target[rows]
        for window in (*_windows(mask[rows], pieces.shape[2]), None):
            laid, covered = _laid(pieces, base, window)
            change = (laid - base).clamp(-radius / LEVELS, radius / LEVELS) * (covered * mask[rows])[:, None]
            tried = on_grid(base + change)
            logits = subject.logits(tried)
            now = log_odds(logits, own, wanted)
            better = now > loss[rows]
            chosen = rows[better]
            best[chosen], loss[chosen] = tried[better], now[better]
            success[chosen] = margin(logits, own, wanted)[better] > 0
    never = torch.zeros_like(success)
    return Attacked(images=best, loss=loss, success=success, no_slope=never, stuck=never)


def _windows(mask: Masks, side: int) -> list[Int[Tensor, "n 2"]]:
    """Corners of the places that hold most of each mask, on a grid of half a piece."""
    step = max(1, side // 2)
    held = functional.avg_pool2d(mask[:, None], side, stride=step)[:, 0]
    across = held.shape[2]
    order = held.flatten(1).argsort(dim=1, descending=True, stable=True)
    order = order[:, torch.arange(TRIED, device=mask.device) % order.shape[1]]
    return [torch.stack((order[:, turn] // across, order[:, turn] % across), 1) * step for turn in range(TRIED)]


def _laid(
    pieces: Float[Tensor, "n 3 s s"], base: Images, corners: Int[Tensor, "n 2"] | None
) -> tuple[Images, Bool[Tensor, "n h w"]]:
    """The piece of each image in its place, or in tiles all over, and where it lies."""
    side, (height, width) = pieces.shape[2], base.shape[2:]
    rows, columns = torch.arange(height, device=base.device), torch.arange(width, device=base.device)
    if corners is None:
        tiled = pieces[:, :, rows % side][..., columns % side]
        return tiled, torch.ones_like(tiled[:, 0], dtype=torch.bool)
    down, right = rows[None] - corners[:, :1], columns[None] - corners[:, 1:]
    within = ((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None]
    index = torch.arange(len(base), device=base.device)[:, None, None]
    picked = pieces[index, :, (down % side)[:, :, None], (right % side)[:, None]]
    return picked.permute(0, 3, 1, 2), within
