"""The attacks that count, of the judged size and in as many pixels each; the first of them that succeeds on each image.

First those in the pixels that Grad-CAM marks: of them the audit is. But where a map misleads they fall short, and
whoever attacks is not bound to a map: so the attack by gradient counts in as many random pixels, too, and in those that
the map marks least.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audits.hijack_attacks import attack, swept
from audits.hijack_blind import noise, squares, waves
from audits.hijack_checks import Checks
from audits.hijack_signatures import blended, drawn_classes
from audits.policy import JUDGED, Attacks
from camcore.adversary import Attacked, Climbed, Masks
from camcore.images import Batch, Images
from camcore.subject import Classifier

BLIND = ("noise", "waves", "squares")  # those that need no gradient
PLACES = {"top": "where Grad-CAM looks", "random": "in random pixels", "anti": "where Grad-CAM looks least"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the attacks came to on each image."""

    by_gradient: Mapping[str, Mapping[int, Climbed]]  # "top", "random" -> size -> the best found with it or a smaller
    tried: Mapping[str, Float[Tensor, " b"]]  # attack -> whether it succeeded; NaN where it was not tried
    piece: Attacked  # by a piece of another picture; where there is none to be had, the image as it was
    images: Images  # the first of them all that succeeded, or what the attack by gradient in the marked pixels came to
    success: Bool[Tensor, " b"]  # whether any did
    place: tuple[str, ...]  # where `images` are changed: of `PLACES`

    @property
    def marked(self) -> Bool[Tensor, " b"]:
        """Whether one in the marked pixels did: they come first."""
        return self.success & torch.tensor([place == "top" for place in self.place], device=self.success.device)


def judged(
    subject: Classifier,
    batch: Batch,
    masks: Mapping[str, Masks],
    effort: Attacks,
    found: Checks,
    *,
    again: Bool[Tensor, " b"] | None = None,
) -> Judged:
    """Try them all.

    In the marked pixels by gradient and with noise on every image, with waves where the gradient has failed; and of the
    images in `found.beside` with squares where the gradient has failed, by gradient to a class that was drawn, and with
    a piece of one of its pictures. In random pixels by gradient on every image, and in those that are marked least on
    the images in `found.beside`.

    Args:
        subject: The model.
        batch: The images.
        masks: As `audits.hijack_attacks.masks`.
        effort: How hard to try.
        found: What the checks gave.
        again: Which images fell when all was tried, where that alone is wanted again: on them nothing is tried after
            what succeeds, and on the others nothing but the gradient in the marked pixels. `images`, `success` and
            `place` are what they were; nothing else is whole.
    """
    every = torch.ones(len(batch), dtype=torch.bool, device=batch.images.device)
    top = masks["top"]
    by_gradient: dict[str, Mapping[int, Climbed]] = {"top": swept(subject, batch, top, effort, every.nonzero()[:, 0])}
    best = by_gradient["top"][JUDGED]
    images, success, place = best.images.clone(), best.success.clone(), ["top"] * len(batch)
    tried: dict[str, Tensor] = {}

    def wanted(chosen: Bool[Tensor, " b"]) -> Bool[Tensor, " b"]:
        return chosen if again is None else chosen & again & ~success

    def put(name: str, chosen: Bool[Tensor, " b"], run: Callable[[Tensor], Attacked], where: str = "top") -> None:
        tried[name] = torch.full((len(batch),), torch.nan, dtype=torch.double, device=images.device)
        rows = wanted(chosen).nonzero()[:, 0]
        if len(rows):
            one = run(rows)
            tried[name][rows] = one.success.double()
            new = one.success & ~success[rows]
            images[rows[new]], success[rows[new]] = one.images[new], True
            for row in rows[new].tolist():
                place[row] = where

    def at_random(rows: Int[Tensor, " n"]) -> Attacked:
        by_gradient["random"] = swept(subject, batch, masks["random"], effort, rows)
        return by_gradient["random"][JUDGED]

    beside = torch.tensor([image_id in found.beside for image_id in batch.ids], device=images.device)
    drawn = drawn_classes(batch, found.signatures)
    standing, aimed = ~best.success, beside & (drawn >= 0)
    put("noise", every, partial(noise, subject, batch, top))
    put("waves", standing, partial(waves, subject, batch, top))
    put("squares", standing & beside, partial(squares, subject, batch, top, queries=effort.queries))
    put("target", aimed, lambda rows: attack(subject, batch, top, JUDGED, effort, rows=rows, target=drawn))
    to = drawn.masked_fill(~wanted(aimed), -1)
    piece = blended(subject, batch, top, to, found.signatures, radius=JUDGED)
    put("signature", aimed, partial(_part, piece))
    put("random", every, at_random, "random")
    put("anti", beside, lambda rows: attack(subject, batch, masks["anti"], JUDGED, effort, rows=rows), "anti")
    return Judged(by_gradient=by_gradient, tried=tried, piece=piece, images=images, success=success, place=tuple(place))


def _part(whole: Attacked, rows: Int[Tensor, " n"]) -> Attacked:
    return replace(whole, **{field.name: getattr(whole, field.name)[rows] for field in fields(whole)})
