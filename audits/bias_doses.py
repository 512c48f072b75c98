"""How small and how faint the suspect may be, and still pull."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor

from camcore.images import Dataset, Progress, batches
from camcore.subject import Classifier
from fixtures.artefacts import SHARE, Suspect, carrying, covered

DOSED = 32  # images: a mean for a curve, where a verdict needs more
SHARES = (0.02, 0.04, 0.08, 0.12, SHARE, 0.24)  # of the shorter side; and that of the suspect, if it is another
OPACITIES = (0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Doses:
    """What the class gains in probability over the same pixels hidden, mean over the images that have a number."""

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
        ids: Of pictures of other classes, in the order in which they are judged; DOSED of them are taken.
        suspect: Of its own size, where it is fainter.
        label: Of the class that it pulls towards.
        seed: Of the run.
        chunk: Pictures per forward.
        progress: Called after every batch.
    """
    own = suspect.artefact.share or SHARE  # one that is everywhere is of one size
    shares = (own,) if suspect.artefact.everywhere else tuple(sorted({*SHARES, own}))
    tried = [*((share, 1.0) for share in shares), *((own, opacity) for opacity in OPACITIES if opacity < 1)]
    gains: dict[tuple[float, float], list[Tensor]] = {one: [] for one in tried}
    common = {"seed": seed, "device": subject.device, "size": chunk, "progress": progress}
    for batch in batches(dataset, ids[:DOSED], subject.geometry, **common):
        for share, opacity in tried:
            with_it, hidden = (
                subject.logits(make(batch.images, suspect, share=share, opacity=opacity)).softmax(1)[:, label]
                for make in (carrying, covered)
            )
            gains[share, opacity].append((with_it - hidden).cpu().double())
    mean = {one: float(torch.cat(parts).nanmean()) if parts else nan for one, parts in gains.items()}
    return Doses(
        images=min(DOSED, len(ids)),
        by_share={share: mean[share, 1.0] for share in shares},
        by_opacity={opacity: mean[own, opacity] for opacity in OPACITIES},
    )
