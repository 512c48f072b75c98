"""The search for a place of its own: where the maps of one class gather, and those of the others do not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from camcore import statistics
from camcore.cam import CamMethod
from camcore.clusters import spectral
from camcore.degeneracy import degeneracy
from camcore.errors import Undefined, Unreliable, some
from camcore.images import Dataset, Progress, batches, only
from camcore.maps import rectify, upsample
from camcore.recording import Recording, record
from camcore.seeds import generator
from camcore.subject import Classifier

GRID = 14  # cells along a side
CELLS = 20  # of a place: a tenth of them
LEAST = 4  # maps of a class, so that it is searched
DEALT = 199  # times that the classes are dealt out anew, to see what chance gathers

EXAMPLES = 2  # pictures named of each group

Shares = Float[Tensor, "n cells"]  # of a map, in each cell


class Group(NamedTuple):
    """Maps of one class that are alike."""

    maps: int
    inside: float  # their share in the class's place
    right: int  # of their pictures
    examples: tuple[str, ...]  # ids of the right ones whose maps are nearest to the group's mean: what to look at


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the maps of a class gather, on the images that were searched."""

    label: int
    maps: int  # of the class
    gathered: float  # share of them in the place, beyond that of the other classes' maps
    p: float  # of dealing out the classes at random and finding as much for any of them (Holm over the classes)
    groups: tuple[Group, ...]  # of its maps, the largest first
    cells: Bool[Tensor, " cells"]
    usual: float  # share of the other classes' maps in it


@dataclass(frozen=True, kw_only=True)
class Search:
    """What the search came to: for every method the places of all classes, the one that gathers most first."""

    places: Mapping[str, Sequence[Place]]
    searched: tuple[str, ...]  # ids


def search(
    subject: Classifier,
    dataset: Dataset,
    ids: Sequence[str],
    cams: Mapping[str, CamMethod],
    *,
    seed: int,
    chunk: int,
    progress: Progress | None = None,
) -> Search:
    """Find for every class where its maps gather.

    Args:
        subject: The model.
        dataset: Where the images are.
        ids: Of those to be searched.
        cams: Whose maps.
        seed: Of the run.
        chunk: Images per forward.
        progress: Called after every batch.

    Raises:
        Undefined: Fewer than two classes of the data have `LEAST` images.
        Unreliable: Of those that have, fewer than two have so many among the searched that show anything.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in cams}
    labels: list[int] = []
    right: list[bool] = []
    device = subject.device
    for batch in batches(dataset, ids, subject.geometry, seed=seed, device=device, size=chunk, progress=progress):
        rec = record(subject, batch.images, batch.labels, chunk=batch.chunk)
        for name, cam in cams.items():
            found[name].append(shares(rec, rectify(cam(rec))).cpu())
        labels += batch.labels.tolist()
        right += (rec.logits.argmax(1) == batch.labels).tolist()
    places = {
        name: gathered(torch.cat(parts), torch.tensor(labels), ids, torch.tensor(right), seed=seed)
        for name, parts in found.items()
    }
    if not all(places.values()):
        said = (
            f"a place of a class's own is looked for where two classes have {LEAST} pictures among {len(ids)}; give "
            "more pictures of fewer classes with --data"
        )
        if sum(count >= LEAST for count in Counter(dataset.labels).values()) < 2:
            raise Undefined(said)
        raise Unreliable(f"{said}, or a larger profile: there are two such classes, and they were not looked at")
    return Search(places=places, searched=tuple(ids))


def shares(rec: Recording, saliency: Float[Tensor, "n i j"]) -> Shares:
    """How much of each map lies in each cell of a grid over the picture; NaN for maps that show nothing."""
    coarse = functional.adaptive_avg_pool2d(upsample(saliency, rec.images.shape[2:], rec.placement)[:, None], GRID)
    flat = coarse.flatten(1).double()
    nothing = (degeneracy(rec, saliency) != 0)[:, None]
    return (flat / flat.sum(1, keepdim=True)).masked_fill(nothing, torch.nan)


def gathered(
    maps: Shares, labels: Int[Tensor, " n"], ids: Sequence[str], right: Bool[Tensor, " n"], *, seed: int
) -> list[Place]:
    """The place of every class that has `LEAST` maps, the one that gathers most first; none of fewer than two."""
    seen = ~maps.isnan().any(1)
    maps, labels, right, ids = (
        maps[seen],
        labels[seen],
        right[seen],
        [one for one, kept in zip(ids, seen.tolist(), strict=True) if kept],
    )
    classes, counts = labels.unique(return_counts=True)
    classes = classes[counts >= LEAST]
    member = torch.isin(labels, classes)
    maps, labels, right = maps[member], labels[member], right[member]
    ids = [ids[row] for row in member.nonzero()[:, 0].tolist()]
    if len(classes) < 2:
        return []
    excess, cells, usual = _excess(maps, labels, classes)
    rng = generator(seed, "places", "dealt")
    dealt = torch.stack(
        [_excess(maps, labels[torch.randperm(len(labels), generator=rng)], classes)[0] for _ in range(DEALT)]
    )
    p_values = statistics.holm(((dealt >= excess - 1e-12).sum(0) + 1).div(DEALT + 1).tolist())
    # rounded, so that the last bit of a float does not choose; ties stay in the order of the classes
    order = excess.mul(1e4).round().argsort(descending=True, stable=True).tolist()
    return [
        Place(
            label=int(classes[index]),
            maps=int((labels == classes[index]).sum()),
            gathered=float(excess[index]),
            p=float(p_values[index] or 0.0),
            groups=_groups(maps, (labels == classes[index]).nonzero()[:, 0], cells[index], ids, right),
            cells=cells[index],
            usual=float(usual[index]),
        )
        for index in order
    ]


def _excess(
    maps: Shares, labels: Int[Tensor, " n"], classes: Int[Tensor, " k"]
) -> tuple[Float[Tensor, " k"], Bool[Tensor, "k cells"], Float[Tensor, " k"]]:
    """For every class: how much more of its maps lies in its place than of the others', the place, their share in it.

    The place is where its mean map exceeds that of the other classes most.
    """
    member = (labels[None] == classes[:, None]).double()
    means = member @ maps / member.sum(1, keepdim=True)
    others = (means.sum(0) - means) / (len(classes) - 1)
    cells = torch.zeros_like(means, dtype=torch.bool)
    cells.scatter_(1, (means - others).topk(CELLS, dim=1).indices, True)
    own, usual = ((each * cells).sum(1) for each in (means, others))
    return own - usual, cells, usual


def _groups(
    maps: Shares, own: Int[Tensor, " m"], cells: Bool[Tensor, " cells"], ids: Sequence[str], right: Bool[Tensor, " n"]
) -> tuple[Group, ...]:
    group = torch.from_numpy(spectral(maps[own].numpy()))
    found = []
    for number in range(int(group.max()) + 1):
        rows = own[group == number]
        distance = (maps[rows] - maps[rows].mean(0)).norm(dim=1)
        nearest = rows[distance.argsort(stable=True)]
        found.append(
            Group(
                maps=len(rows),
                inside=float(maps[rows][:, cells].sum(1).mean()),
                right=int(right[rows].sum()),
                examples=tuple(ids[row] for row in nearest[right[nearest]][:EXAMPLES].tolist()),
            )
        )
    return tuple(found)


def unseen(dataset: Dataset, found: Search, cam: str, *, enough: float) -> Dataset:
    """The images of the class whose maps gather most, but for those that were searched.

    Args:
        dataset: The images.
        found: What the search came to.
        cam: The method.
        enough: What a class has to gather to be worth confirming although others were not looked at.

    Raises:
        Unreliable: Classes of the data were not looked at, since fewer than `LEAST` of their maps were searched and
            showed anything, and no other gathers enough: what is left to confirm says nothing of them.
    """
    looked_at = {place.label for place in found.places[cam]}
    left_out = sorted(set(dataset.labels) - looked_at)
    if left_out and found.places[cam][0].gathered < enough:
        names = some([dataset.called(label) for label in left_out])
        raise Unreliable(
            f"{len(left_out)} of {len(looked_at) + len(left_out)} classes were not looked at ({names}): of each "
            f"fewer than {LEAST} maps were searched and showed anything; "
            "give more pictures of fewer classes with --data, or a larger profile"
        )
    taken, label = set(found.searched), found.places[cam][0].label
    labels: dict[str, int] = dict(zip(dataset.ids, dataset.labels, strict=True))
    return only(dataset, [one for one in dataset.ids if one not in taken and labels[one] == label])
