"""The search for what pulls pictures towards a class: every suspect, in every place, against every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audits.bias_doses import Doses
from audits.bias_removal import Removal
from camcore import statistics
from camcore.images import Dataset, Images, Progress, batches, only
from camcore.subject import Classifier
from fixtures.artefacts import Suspect, carrying, covered

NAMED = 10  # of the strongest
LEAST = 8  # images of other classes that a class must have been tried on
HEAT = 16  # images that every suspect is tried on
GO_ON = 4  # one suspect in so many is tried on the others, too: those that pulled most
Pulls = Float[Tensor, "b suspects classes"]  # gain in probability


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
    """Try everything on the first of the named images, and what pulls most there on all (successive halving).

    Karnin et al. 2013 (Almost optimal exploration in multi-armed bandits), with one heat: what a suspect does to the
    first images tells those that do nothing from the few that may be the strongest. A p-value is multiplied by
    all pairs that were tried, also those that went no further, so that the choice is paid for.

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
    common = {"seed": seed, "chunk": chunk}
    heat, rest = ids[:HEAT], ids[HEAT:]
    pulls, label = _pulls(subject, dataset, heat, suspects, progress=_part_of(progress, 0, len(ids)), **common)
    trusted, tried = list(suspects), len(suspects) * pulls.shape[2]
    if rest:
        kept = _most(pulls, label, ceil(len(suspects) / GO_ON))
        trusted = [suspects[index] for index in kept]
        more, of = _pulls(subject, dataset, rest, trusted, progress=_part_of(progress, len(heat), len(ids)), **common)
        pulls, label = torch.cat((pulls[:, kept], more)), torch.cat((label, of))
    others = _others(pulls, label)
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
                suspect=trusted[suspect],
                label=column,
                pull=float(mean[suspect, column]),
                p=min(1.0, p * tried),
            )
        )
    return Scan(strongest=tuple(strongest), searched=tuple(ids), tried=tried)


def _most(pulls: Pulls, label: Int[Tensor, " b"], count: int) -> list[int]:
    """Rows of the suspects that pull most towards any class, in the order in which they were given."""
    others = _others(pulls, label)
    mean = (pulls * others[:, None]).sum(0) / others.sum(0).clamp_min(1)
    # rounded as the result is
    order = mean.amax(1).double().mul(1e4).round().argsort(descending=True, stable=True)
    return sorted(order[:count].tolist())


def _others(pulls: Pulls, label: Int[Tensor, " b"]) -> Bool[Tensor, "b classes"]:
    """Which images are of another class than each."""
    return label[:, None] != torch.arange(pulls.shape[2])


def _pulls(
    subject: Classifier,
    dataset: Dataset,
    ids: Sequence[str],
    suspects: Sequence[Suspect],
    *,
    seed: int,
    chunk: int,
    progress: Progress | None,
) -> tuple[Pulls, Int[Tensor, " b"]]:
    """What every suspect does to the probability of every class, and what the images show."""
    parts, labels = [], []
    device = subject.device
    for batch in batches(dataset, ids, subject.geometry, seed=seed, device=device, size=chunk, progress=progress):
        parts.append(_pulled(subject, batch.images, suspects).cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(parts), torch.cat(labels)


@torch.no_grad()
def _pulled(subject: Classifier, images: Images, suspects: Sequence[Suspect]) -> Pulls:
    plain: dict[tuple[str, str], Tensor] = {}
    pulls = []
    for suspect in suspects:
        covers = (suspect.artefact.outline, suspect.place)
        if covers not in plain:
            plain[covers] = subject.logits(covered(images, suspect)).softmax(1)
        pulls.append(subject.logits(carrying(images, suspect)).softmax(1) - plain[covers])
    return torch.stack(pulls, 1)


def _part_of(progress: Progress | None, before: int, planned: int) -> Progress | None:
    """What tells of a part of the images, told of as a part."""
    return None if progress is None else lambda done, _: progress(before + done, planned)


def area(images: Images, suspect: Suspect) -> Float[Tensor, "h w"]:
    """1 on the pixels that the suspect changes."""
    return (suspect.coverage(images) > 0).to(images)


def unseen(dataset: Dataset, found: Scan) -> Dataset:
    """The images that were not searched and are not of the class that the strongest suspect pulls towards."""
    taken, label = set(found.searched), found.strongest[0].label
    labels: dict[str, int] = dict(zip(dataset.ids, dataset.labels, strict=True))
    return only(dataset, [one for one in dataset.ids if one not in taken and labels[one] != label])
