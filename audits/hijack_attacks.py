"""The attacks of the hijack audit: where each may change pixels, how hard it tries, and from large changes to small."""

import torch
from torch import Tensor

from camcore import chance
from camcore.adversary import Attacked, Budget, apgd
from camcore.cam import METHODS
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Images
from camcore.maps import upsample
from camcore.perturbations import rank_pixels
from camcore.record import Recording
from camcore.subject import Classifier

RADII = (1, 2, 4, 8)  # in steps of 1/255
JUDGED = 4
AREA = 0.2  # of the pixels
# chance draws of the profile -> steps, restarts, and queries of the attack without gradients
EFFORT = {1: (6, 1, 50), 2: (20, 1, 100), 4: (100, 5, 1000)}
WHERE = {"top": "where Grad-CAM looks", "random": "at random", "anti": "where it looks least", "all": "everywhere"}


def effort(draws: int) -> tuple[int, int, int]:
    """Steps and restarts of every attack, and queries of the one that needs no gradient."""
    return EFFORT.get(draws, (25 * draws, draws, 250 * draws))


def masks(rec: Recording, batch: Batch) -> dict[str, Tensor]:
    """Where each attack may change pixels; ties in the map are broken at random."""
    size = rec.images.shape[2:]
    marked = upsample(METHODS["gradcam"](rec), size, rec.placement)  # with its sign: what is least is least
    random = upsample(chance.random(rec, generators=batch.generators("hijack random map")), size, rec.placement)
    pixels = round(AREA * marked[0].numel())

    def highest(saliency: Tensor, purpose: str) -> Tensor:
        return (rank_pixels(saliency, generators=batch.generators(purpose)) < pixels).to(rec.images)

    return {
        "top": highest(marked, "hijack ties"),
        "random": highest(random, "hijack random ties"),
        "anti": highest(-marked, "hijack ties below"),
        "all": torch.ones_like(marked),
    }


def swept(subject: Classifier, batch: Batch, mask: Tensor, draws: int) -> dict[int, tuple[Tensor, Images]]:
    """For every radius which images are hijacked, and what they look like then; the others are left as they were.

    The largest change comes first, and what withstands it is not attacked with less: a smaller change lies within it.
    """
    fallen = torch.ones(len(batch), dtype=torch.bool, device=batch.images.device)
    found = {}
    for radius in sorted(RADII, reverse=True):
        rows, shown = fallen.nonzero()[:, 0], on_grid(batch.images)
        if len(rows):
            attacked = attack(subject, batch, mask, radius, draws, rows=rows)
            fallen = fallen.index_put((rows,), attacked.success)
            hit = attacked.success
            shown = shown.index_put((rows[hit],), attacked.images[hit])
        found[radius] = (fallen, shown)
    return found


def attack(
    subject: Classifier,
    batch: Batch,
    mask: Tensor,
    radius: int,
    draws: int,
    *,
    rows: Tensor | None = None,
    target: Tensor | None = None,
) -> Attacked:
    """One attack on some of the images (all, if not given)."""
    chosen = torch.arange(len(batch), device=batch.images.device) if rows is None else rows
    steps, restarts, _ = effort(draws)
    generators = batch.generators(f"hijack {radius}")
    return apgd(
        subject,
        batch.images[chosen],
        batch.labels[chosen],
        budget=Budget(epsilon=radius / LEVELS, steps=steps, restarts=restarts),
        mask=mask[chosen],
        target=None if target is None else target[chosen],
        generators=[generators[row] for row in chosen.tolist()],
    )
