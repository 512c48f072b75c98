"""The search for what pulls pictures towards a class, or away from theirs: every suspect, in every place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
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
class Turner:
    """A suspect, and how many of the images that were searched are called something else with it."""

    suspect: Suspect
    share: float  # of those that are not when the same pixels are hidden


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What the search came to."""

    strongest: tuple[Found, ...]  # the strongest first
    turners: tuple[Turner, ...]  # likewise; of suspects with a place, not over the whole picture
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
    parts, turns, labels = [], [], []
    device = subject.device
    for batch in batches(dataset, ids, subject.geometry, seed=seed, device=device, size=chunk, progress=progress):
        for kept, found in zip((parts, turns), _effects(subject, batch.images, suspects), strict=True):
            kept.append(found.cpu())
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
    shares = torch.cat(turns).double().mean(0)
    # what lies over the whole picture hides what it shows, and nothing else hides as much of it
    shares[[suspect.artefact.everywhere for suspect in suspects]] = -1
    turners = [
        Turner(suspect=suspects[index], share=float(shares[index]))
        for index in shares.argsort(descending=True, stable=True)[:NAMED].tolist()
        if shares[index] >= 0
    ]
    return Scan(strongest=tuple(strongest), turners=tuple(turners), searched=tuple(ids), tried=mean.numel())


@torch.no_grad()
def _effects(
    subject: Classifier, images: Images, suspects: Sequence[Suspect]
) -> tuple[Float[Tensor, "b suspects classes"], Bool[Tensor, "b suspects"]]:
    """What every suspect does to the probability of every class; and whether the image is called something else."""
    plain = subject.logits(images)
    behind: dict[tuple[str, str], Tensor] = {}
    pulls, turns = [], []
    for suspect in suspects:
        covers = (suspect.artefact.outline, suspect.place)
        if covers not in behind:
            behind[covers] = subject.logits(covered(images, suspect))
        with_it, hidden = subject.logits(carrying(images, suspect)), behind[covers]
        pulls.append(with_it.softmax(1) - hidden.softmax(1))
        turns.append(turned(plain, hidden, with_it))
    return torch.stack(pulls, 1), torch.stack(turns, 1)


def turned(
    plain: Float[Tensor, "b classes"], hidden: Float[Tensor, "b classes"], with_it: Float[Tensor, "b classes"]
) -> Bool[Tensor, " b"]:
    """Whether an image is called something else with the suspect, and is not when the same pixels are hidden."""
    called, behind, now = (logits.argmax(1) for logits in (plain, hidden, with_it))
    return (now != called) & (behind == called)


def area(images: Images, suspect: Suspect) -> Float[Tensor, "h w"]:
    """1 on the pixels that the suspect changes."""
    return (suspect.coverage(images) > 0).to(images)


def unseen(dataset: Dataset, found: Scan) -> Dataset:
    """The images that were not searched."""
    taken = set(found.searched)
    return only(dataset, [one for one in dataset.ids if one not in taken])


def unseen_of_others(dataset: Dataset, found: Scan) -> Dataset:
    """The images that were not searched and are not of the class that the strongest suspect pulls towards."""
    left, label = unseen(dataset, found), found.strongest[0].label
    return only(left, [one for one, its_own in zip(left.ids, left.labels, strict=True) if its_own != label])
