"""The search for what pulls pictures towards a class, or away from theirs: every suspect, in every place."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from audits.bias_doses import Doses
from audits.bias_removal import Removal
from camcore import statistics
from camcore.errors import Unreliable, shown, some
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
    turners: tuple[Turner, ...]  # likewise; but for suspects that veil the picture
    searched: tuple[str, ...]  # ids: what is found here has to be confirmed on others
    tried: int  # pairs of a suspect in its place and a class
    untried: tuple[int, ...]  # classes that nothing was tried for, for want of pictures of others
    doses: Doses | None = None  # of the strongest, on pictures of other classes that were not searched
    removal: Removal | None = None  # of the strongest, from the pictures of its class that were not searched


def to_search(dataset: Dataset, order: Sequence[str], most: int) -> list[str]:
    """The first images, but with `LEAST` that are not of the commonest class, or a third of those if there are fewer.

    What pulls towards a class shows on pictures of others. Where nine in ten are of one class, the first images hold
    too few others to look for what pulls towards that one.

    Args:
        dataset: The images.
        order: Their ids, all of them, in the order in which they are taken.
        most: How many to take.
    """
    commonest = Counter(dataset.labels).most_common(1)[0][0]
    rare = {one for one, label in zip(dataset.ids, dataset.labels, strict=True) if label != commonest}
    needed = [one for one in order if one in rare][: min(LEAST, len(rare) // 3)]  # the rest are left for confirming
    first = list(order[:most])
    taken = set(first)
    missing = [one for one in needed if one not in taken]
    spare = [one for one in first if one not in rare]
    kept = set(spare[: max(0, len(spare) - len(missing))]) | rare
    return [*(one for one in first if one in kept), *missing]


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
    enough = others.sum(0) >= LEAST
    mean[:, ~enough] = -torch.inf
    tried = len(suspects) * int(enough.sum())
    # rounded, so that the last bit of a float does not choose; ties stay in the order of the suspects
    order = mean.flatten().double().mul(1e4).round().argsort(descending=True, stable=True)[: min(NAMED, tried)].tolist()
    strongest = []
    for suspect, column in (divmod(index, mean.shape[1]) for index in order):
        values = pulls[others[:, column], suspect, column].double().clamp(-1, 1).tolist()
        p = statistics.p_value(values, 0.0, bounds=(-1.0, 1.0))
        strongest.append(
            Found(
                suspect=suspects[suspect],
                label=column,
                pull=float(mean[suspect, column]),
                p=min(1.0, p * tried),
            )
        )
    shares = torch.cat(turns).double().mean(0)
    # it hides what the picture shows all over, and nothing that is compared with it hides as much
    shares[[suspect.artefact.veils for suspect in suspects]] = -1
    turners = [
        Turner(suspect=suspects[index], share=float(shares[index]))
        for index in shares.argsort(descending=True, stable=True)[:NAMED].tolist()
        if shares[index] >= 0
    ]
    return Scan(
        strongest=tuple(strongest),
        turners=tuple(turners),
        searched=tuple(ids),
        tried=tried,
        untried=tuple((~enough).nonzero()[:, 0].tolist()),
    )


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


def refuse_untried(dataset: Dataset, found: Scan) -> None:
    """Refuse to confirm what pulls where something may pull that was not looked for.

    Raises:
        Unreliable: For a class nothing was tried: what is left to confirm says nothing of it, whatever was found for
            others.
    """
    if not found.untried:
        return
    first = found.strongest[0]
    raise Unreliable(
        f"for {some([dataset.called(label) for label in found.untried])} nothing was tried: what pulls towards a class "
        f"shows on pictures of others, of which {LEAST} have to be searched, and that is a third of them at most; give "
        f"more of them with --data. Of what was tried {shown(first.suspect.name)} gains most: {first.pull:.2f} for "
        f"{shown(dataset.called(first.label))}"
    )
