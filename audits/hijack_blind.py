"""Attacks that need no gradient: noise, waves and squares, in the pixels and of the size of the attack by gradient."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audits.policy import JUDGED
from camcore.adversary import Attacked, Masks, margin
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Images
from camcore.perturbations import sign_noise
from camcore.square_attack import square
from camcore.subject import Classifier

NOISES = 4  # draws
LENGTHS = ((1, 1), (0, 1), (1, 0), (2, 2))  # half a wave down and across, in pixels; 0: none
COLOURS = ((1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, 1, 1))  # which way red, green and blue go


def noise(subject: Classifier, batch: Batch, mask: Masks, rows: Int[Tensor, " n"]) -> Attacked:
    """Up or down at random in every value of some of the images: what anybody finds who knows nothing."""
    start, chosen = on_grid(batch.images[rows]), rows.tolist()
    drawn = ([batch.generators(f"hijack noise {draw}")[row] for row in chosen] for draw in range(NOISES))
    draws = (sign_noise(start, radius=JUDGED / LEVELS, generators=generators) - start for generators in drawn)
    return _tried(subject, start, batch.labels[rows], mask[rows], draws)


def waves(subject: Classifier, batch: Batch, mask: Masks, rows: Int[Tensor, " n"]) -> Attacked:
    """The finest waves that a picture holds, one after the other, on some of the images.

    Tsuzuku and Sato 2019 (arXiv:1809.04098), the single Fourier attack, with the signs of a few waves: networks are
    weak against the same few, whatever the picture, so that a handful of tries goes a long way.
    """
    start = on_grid(batch.images[rows])
    changes = (
        JUDGED / LEVELS * wave(start, lengths, colours).expand_as(start) for lengths in LENGTHS for colours in COLOURS
    )
    return _tried(subject, start, batch.labels[rows], mask[rows], changes)


def squares(subject: Classifier, batch: Batch, mask: Masks, rows: Int[Tensor, " n"], *, queries: int) -> Attacked:
    """`camcore.square_attack` on some of the images."""
    generators = batch.generators("hijack squares")
    return square(
        subject,
        batch.images[rows],
        batch.labels[rows],
        epsilon=JUDGED / LEVELS,
        queries=queries,
        mask=mask[rows],
        generators=[generators[row] for row in rows.tolist()],
    )


def wave(like: Images, lengths: tuple[int, int], colours: tuple[int, int, int]) -> Float[Tensor, "3 h w"]:
    """+1 and -1 in turn, every so many pixels down and across."""
    down, across = (
        torch.ones(extent) if not length else 1.0 - 2 * (torch.arange(extent) // length % 2)
        for extent, length in zip(like.shape[2:], lengths, strict=True)
    )
    return (torch.tensor(colours)[:, None, None] * down[:, None] * across).to(like)


@torch.no_grad()
def _tried(
    subject: Classifier, start: Images, label: Int[Tensor, " n"], mask: Masks, changes: Iterable[Images]
) -> Attacked:
    """Of some changes, confined to the mask, the first that changes the class, or the one that comes nearest to it."""
    never = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    best = Attacked(
        images=start.clone(), loss=start.new_full((len(start),), -torch.inf), success=never, no_slope=never, stuck=never
    )
    for change in changes:
        rows = (~best.success).nonzero()[:, 0]
        if not len(rows):
            break
        tried = on_grid((start[rows] + change[rows] * mask[rows, None]).clamp(0, 1))
        now = margin(subject.logits(tried), label[rows])
        better = now > best.loss[rows]
        chosen = rows[better]
        best = replace(
            best,
            images=best.images.index_put((chosen,), tried[better]),
            loss=best.loss.index_put((chosen,), now[better]),
            success=best.success.index_put((chosen,), now[better] > 0),
        )
    return best
