"""The attacks of the hijack audit: where each may change pixels, how hard it tries, and from small changes to large."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from audits.policy import Attacks
from camcore import chance
from camcore.adversary import Budget, Climbed, apgd
from camcore.cam import METHODS
from camcore.fragility import LEVELS
from camcore.images import Batch
from camcore.maps import upsample
from camcore.perturbations import rank_pixels
from camcore.recording import Recording
from camcore.subject import Classifier

WHERE = {"top": "where Grad-CAM looks", "random": "at random", "anti": "where it looks least", "all": "everywhere"}


def masks(rec: Recording, batch: Batch, *, area: float) -> dict[str, Tensor]:
    """Where each attack may change pixels, `area` of them but for "all"; ties in the map are broken at random."""
    size = rec.images.shape[2:]
    marked = upsample(METHODS["gradcam"](rec), size, rec.placement)  # with its sign: what is least is least
    random = upsample(chance.random(rec, generators=batch.generators("hijack random map")), size, rec.placement)
    pixels = max(1, round(area * marked[0].numel()))

    def highest(saliency: Tensor, purpose: str) -> Tensor:
        return (rank_pixels(saliency, generators=batch.generators(purpose)) < pixels).to(rec.images)

    return {
        "top": highest(marked, "hijack ties"),
        "random": highest(random, "hijack random ties"),
        "anti": highest(-marked, "hijack ties below"),
        "all": torch.ones_like(marked),
    }


def swept(
    subject: Classifier, batch: Batch, mask: Tensor, effort: Attacks, rows: Int[Tensor, " n"]
) -> dict[int, Climbed]:
    """For every size of change the best found on some images: by an attack of that size, or before it of a smaller.

    The smallest change comes first. What falls to it falls to a larger, which allows the same change; what withstands
    is attacked again with every size, so that no failure of one attack stands for that of another.
    """
    least, *larger = effort.sizes
    best = attack(subject, batch, mask, least, effort, rows=rows)
    found = {least: best}
    for radius in larger:
        left = (~best.success).nonzero()[:, 0]
        if len(left):
            more = attack(subject, batch, mask, radius, effort, rows=rows[left])
            best = replace(
                best,
                images=best.images.index_put((left,), more.images),
                loss=best.loss.index_put((left,), more.loss),
                success=best.success.index_put((left,), more.success),
                stuck=best.stuck.index_put((left,), more.stuck),  # the slope at the image is that of every size
                steps=best.steps.index_put((left,), more.steps),
            )
        found[radius] = best
    return found


def length(mask: Tensor, radius: int) -> float:
    """Of a change of every value in the mask by the radius: what an attack that is limited in l2 may spend on a few."""
    return radius / LEVELS * float(3 * mask[0].sum()) ** 0.5


def attack(
    subject: Classifier,
    batch: Batch,
    mask: Tensor,
    radius: int,
    effort: Attacks,
    *,
    rows: Tensor | None = None,
    target: Tensor | None = None,
    norm: Literal["linf", "l2"] = "linf",
) -> Climbed:
    """One attack on some of the images (all, if not given); with the l2 norm, of the same `length`."""
    chosen = torch.arange(len(batch), device=batch.images.device) if rows is None else rows
    generators = batch.generators(f"hijack {radius}")
    return apgd(
        subject,
        batch.images[chosen],
        batch.labels[chosen],
        budget=Budget(
            epsilon=radius / LEVELS if norm == "linf" else length(mask, radius),
            steps=effort.steps,
            restarts=effort.restarts,
            norm=norm,
        ),
        mask=mask[chosen],
        target=None if target is None else target[chosen],
        generators=[generators[row] for row in chosen.tolist()],
    )
