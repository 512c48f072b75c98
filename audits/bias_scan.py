"""The search for what pulls pictures towards a class: every suspect, in every place, against every class."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from audits.bias_doses import Doses
from audits.bias_removal import Removal
from camcore import statistics
from camcore.images import Dataset, Images, Progress, batches, only
from camcore.subject import Classifier
from fixtures.artefacts import Suspect, carrying, covered

NAMED = 10  # of the strongest
LEAST = 8  # images of other classes that a class must have been tried on


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A suspect and the class that it pulls pictures of other classes towards, on the images that were searched."""

    suspect: Suspect
    label: int
    pull: float  # what the class gains in probability, mean over images
    p: float  # one-sided, of "it gains nothing", times the number of pairs that were tried


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What the search came to."""

    strongest: tuple[Found, ...]  # the strongest first
    searched: tuple[str, ...]  # ids: what is found here has to be confirmed on others
    tried: int  # pairs of a suspect in its place and a class
    doses: Doses | None = None  # of the strongest, on pictures of other classes that were not searched
    removal: Removal | None = None  # of the strongest, from the pictures of its class that were not searched


def scan(
    subject: Classifier,
    dataset: Dataset,
    ids: Sequence[str],
    suspects: Sequence[Suspect],
    *,
    seed: int,
    chunk: int,
    progress: Progress | None = None,
) -> Scan:
    """Try everything on the named images.

    Args:
        subject: The model.
        dataset: Where the images are.
        ids: Of those to be searched.
        suspects: What to try.
        seed: Of the run.
        chunk: Images per forward.
        progress: Called after every batch.

    Raises:
        ValueError: So few images that no class was tried on `LEAST` images of other classes.
    """
    parts, labels = [], []
    device = subject.device
    for batch in batches(dataset, ids, subject.geometry, seed=seed, device=device, size=chunk, progress=progress):
        parts.append(_pulls(subject, batch.images, suspects).cpu())
        labels.append(batch.labels.cpu())
    pulls, label = torch.cat(parts), torch.cat(labels)
    others = label[:, None] != torch.arange(pulls.shape[2])  # images x classes
    if int(others.sum(0).max()) < LEAST:
        raise ValueError(
            f"{len(ids)} images are too few to search for bias, at least {LEAST} of other classes are needed; "
            "give more with --data"
        )
    mean = (pulls * others[:, None]).sum(0) / others.sum(0)
    mean[:, others.sum(0) < LEAST] = -torch.inf
    # rounded, so that the last bit of a float does not choose; ties stay in the order of the suspects
    order = mean.flatten().double().mul(1e4).round().argsort(descending=True, stable=True)[:NAMED].tolist()
    strongest = []
    for suspect, column in (divmod(index, mean.shape[1]) for index in order):
        values = pulls[others[:, column], suspect, column].double().clamp(-1, 1).tolist()
        p = statistics.p_value(values, 0.0, bounds=(-1.0, 1.0))
        strongest.append(
            Found(
                suspect=suspects[suspect],
                label=column,
                pull=float(mean[suspect, column]),
                p=min(1.0, p * mean.numel()),
            )
        )
    return Scan(strongest=tuple(strongest), searched=tuple(ids), tried=mean.numel())


@torch.no_grad()
def _pulls(subject: Classifier, images: Images, suspects: Sequence[Suspect]) -> Float[Tensor, "b suspects classes"]:
    """What every suspect does to the probability of every class."""
    plain: dict[tuple[str, str], Tensor] = {}
    pulls = []
    for suspect in suspects:
        covers = (suspect.artefact.outline, suspect.place)
        if covers not in plain:
            plain[covers] = subject.logits(covered(images, suspect)).softmax(1)
        pulls.append(subject.logits(carrying(images, suspect)).softmax(1) - plain[covers])
    return torch.stack(pulls, 1)


def area(images: Images, suspect: Suspect) -> Float[Tensor, "h w"]:
    """1 on the pixels that the suspect changes."""
    return (suspect.coverage(images) > 0).to(images)


def unseen(dataset: Dataset, found: Scan) -> Dataset:
    """The images that were not searched and are not of the class that the strongest suspect pulls towards."""
    taken, label = set(found.searched), found.strongest[0].label
    labels: dict[str, int] = dict(zip(dataset.ids, dataset.labels, strict=True))
    return only(dataset, [one for one in dataset.ids if one not in taken and labels[one] != label])
