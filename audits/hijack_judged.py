"""The attacks that count: in the pixels that Grad-CAM marks, of the judged size; the best of them all on each image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audits.hijack_attacks import attack, swept
from audits.hijack_blind import noise, squares, waves
from audits.hijack_checks import Checks
from audits.hijack_signatures import blended, drawn_classes
from audits.policy import JUDGED, Attacks
from camcore.adversary import Attacked, Masks
from camcore.images import Batch, Images
from camcore.subject import Classifier

BLIND = ("noise", "waves", "squares")  # those that need no gradient


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the attacks came to on each image."""

    by_gradient: Mapping[int, Attacked]  # size -> the best found with it, or with a smaller
    tried: Mapping[str, Float[Tensor, " b"]]  # attack -> whether it succeeded; NaN where it was not tried
    piece: Attacked  # by a piece of another picture; where there is none to be had, the image as it was
    images: Images  # the first of them all that succeeded, or what the attack by gradient came to
    success: Bool[Tensor, " b"]  # whether any did


def judged(subject: Classifier, batch: Batch, mask: Masks, effort: Attacks, found: Checks) -> Judged:
    """Try them all.

    By gradient and with noise on every image; with waves where the gradient has failed. And of the images in
    `found.beside` alone: with squares where the gradient has failed, by gradient to a class that was drawn, and with a
    piece of one of its pictures.
    """
    by_gradient = swept(subject, batch, mask, effort)
    best = by_gradient[JUDGED]
    images, success = best.images.clone(), best.success.clone()
    tried: dict[str, Tensor] = {}

    def put(name: str, rows: Tensor, run: Callable[[Tensor], Attacked]) -> None:
        tried[name] = torch.full((len(batch),), torch.nan, dtype=torch.double, device=images.device)
        if len(rows):
            one = run(rows)
            tried[name][rows] = one.success.double()
            new = one.success & ~success[rows]
            images[rows[new]], success[rows[new]] = one.images[new], True

    beside = torch.tensor([image_id in found.beside for image_id in batch.ids], device=images.device)
    drawn = drawn_classes(batch, found.signatures)
    every = torch.arange(len(batch), device=images.device)
    standing, aimed = ~best.success, beside & (drawn >= 0)
    put("noise", every, lambda _: noise(subject, batch, mask))
    put("waves", every[standing], lambda rows: waves(subject, batch, mask, rows))
    put("squares", every[standing & beside], partial(squares, subject, batch, mask, queries=effort.queries))
    put("target", every[aimed], lambda rows: attack(subject, batch, mask, JUDGED, effort, rows=rows, target=drawn))
    piece = blended(subject, batch, mask, drawn.masked_fill(~aimed, -1), found.signatures, radius=JUDGED)
    put("signature", every[aimed], partial(_part, piece))
    return Judged(by_gradient=by_gradient, tried=tried, piece=piece, images=images, success=success)


def _part(whole: Attacked, rows: Int[Tensor, " n"]) -> Attacked:
    return Attacked(**{field.name: getattr(whole, field.name)[rows] for field in fields(whole)})
