"""How small and how faint the suspect may be, and still pull."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from camcore.images import Dataset, Progress, batches
from camcore.subject import Classifier
from fixtures.artefacts import SHARE, Suspect, carrying, covered

DOSED = 32  # images: a mean for a curve, where a verdict needs more
SHARES = (0.02, 0.04, 0.08, 0.12, SHARE, 0.24)  # of the shorter side
OPACITIES = (0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Doses:
    """What the class gains in probability over the same pixels hidden, mean over the images."""

    images: int
    by_share: Mapping[float, float]  # by the suspect's side
    by_opacity: Mapping[float, float]


@torch.no_grad()
def doses(
    subject: Classifier,
    dataset: Dataset,
    ids: list[str],
    suspect: Suspect,
    label: int,
    *,
    seed: int,
    chunk: int,
    progress: Progress | None = None,
) -> Doses:
    """Try the suspect in other sizes, and fainter.

    Args:
        subject: The model.
        dataset: Where the pictures are.
        ids: Of pictures of other classes, in the order in which they are taken: DOSED, if there are as many.
        suspect: Of the usual size, if it is not everywhere.
        label: Of the class that it pulls towards.
        seed: Of the run.
        chunk: Pictures per forward.
        progress: Called after every batch.
    """
    shares = (SHARE,) if suspect.artefact.everywhere else SHARES
    tried = [*((share, 1.0) for share in shares), *((SHARE, opacity) for opacity in OPACITIES if opacity < 1)]
    chosen = [one for one in ids if dataset.label(one) != label][:DOSED]
    sums = dict.fromkeys(tried, 0.0)
    device = subject.device
    for batch in batches(dataset, chosen, subject.geometry, seed=seed, device=device, size=chunk, progress=progress):
        for share, opacity in tried:
            with_it, hidden = (
                subject.logits(make(batch.images, suspect, share=share, opacity=opacity)).softmax(1)[:, label].double()
                for make in (carrying, covered)
            )
            sums[share, opacity] += float((with_it - hidden).sum())
    mean = {one: total / max(1, len(chosen)) for one, total in sums.items()}
    return Doses(
        images=len(chosen),
        by_share={share: mean[share, 1.0] for share in shares},
        by_opacity={opacity: mean[SHARE, opacity] for opacity in OPACITIES},
    )
