"""Do the maps of one class gather in a place of their own, whatever is on the picture?

## What it measures

A part of the images is searched: the mean map of every class is set against that of the others, and its place is the
tenth of the picture where it exceeds theirs most. The class is chosen whose maps gather most in their place. own_place
is, on the other images of that class, which the search has not seen, the share of the map in that place beyond the
share that the other classes' maps have there. Beside it: what chance gathers when the classes are dealt out anew, the
groups that the maps of each class fall into (spectral clustering), with right pictures of each to look at, and what the
class loses when the place is inpainted, beside the same shape inpainted elsewhere.

## Why it matters

A watermark, a date, a sticker in the corner of one class's pictures: nobody has to know what it is to find that the
maps of that class keep coming back to where it is. Things move about in pictures; what was pasted on does not.

## Known limits

Classes whose things are always in one place (the sky above, the horizon) have a place of their own without a shortcut:
look at what is there. An artefact that moves about is not found, nor one on a part of the class's pictures: what is
judged is the mean over them, and of 140 mugs of which 49 carried a square the claim held (0.02); the groups of maps,
and bias, which sticks it onto others, show it. Only one class is confirmed, the one that gathers most, on its own
pictures, which may be few: a data set of many classes with few pictures each is not judged, and where a class was not
looked at, since fewer than four of its maps were searched and show anything, nothing passes unless another class
gathers enough to fail. The maps are for the pictures' label. The search is not journalled, and made again when a run is
resumed.

## Caught by

sticker_in_the_data

## References

Lapuschkin et al. 2019 (SpRAy, arXiv:1902.10178); Selvaraju et al. 2017 (arXiv:1610.02391, section 6.3); Rong et al.
2022 (arXiv:2202.00449) for the inpainting.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from audits.ask import Ask
from audits.places_search import GRID, Place, Search, search, shares, unseen
from audits.question import Question
from audits.seen import side_by_side
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import Row, column_of, shuffled
from camcore.images import Batch, Images
from camcore.maps import rectify
from camcore.perturbations import noisy_linear
from camcore.recording import record
from camcore.subject import Classifier
from camcore.verdict import Evidence, Table

VERSION = "1"
SEARCHED = 32  # images that are searched, for each chance draw of the profile
NAMED = 10  # classes in the table

OWN_PLACE = Question(
    name="places/own_place",
    sentence="no class has a place of its own where its {cam} maps gather",
    kind="INV",
    measure="share of the map in the place of the class that gathers most, beyond the share of other classes' maps",
    unit="share of the map",
    bounds=(-1.0, 1.0),
    direction="within",
)
QUESTIONS = (OWN_PLACE,)


def places(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], found: Search) -> dict[str, Tensor]:
    """Where the maps of each image lie, and what its label loses with the place.

    Returns:
        `<cam>:own`, what is judged, NaN where the map shows nothing, and `<cam>:degenerate`, why. `<cam>:lost` and
        `<cam>:elsewhere`, what the label's probability loses when the place, or the same shape somewhere else, is
        inpainted. `right`, 1 where the label has the highest score.
    """
    rec = record(subject, batch.images, batch.labels, chunk=batch.chunk)
    columns = {"right": (rec.logits.argmax(1) == batch.labels).double()}
    before = _probability(rec.logits, batch)
    for name, cam in cams.items():
        place, saliency = found.places[name][0], rectify(cam(rec))
        columns[f"{name}:own"] = shares(rec, saliency)[:, place.cells.to(rec.images.device)].sum(1) - place.usual
        columns[f"{name}:degenerate"] = degeneracy(rec, saliency).double()
        for column, where in (("lost", _pixels(batch, place)), ("elsewhere", _elsewhere(batch, place))):
            with torch.no_grad():
                after = _probability(subject.logits(_without(batch, where)), batch)
            columns[f"{name}:{column}"] = before - after
    return columns


def _probability(logits: Tensor, batch: Batch) -> Float[Tensor, " b"]:
    return logits.softmax(1).gather(1, batch.labels[:, None])[:, 0].double()


def _pixels(batch: Batch, place: Place) -> Float[Tensor, "b h w"]:
    """1 on the pixels of the place."""
    grid = place.cells.reshape(1, 1, GRID, GRID).to(batch.images)
    return functional.interpolate(grid, batch.images.shape[2:], mode="nearest")[:, 0].expand(len(batch), -1, -1)


def _elsewhere(batch: Batch, place: Place) -> Float[Tensor, "b h w"]:
    """The place, moved on by a random number of rows and columns, which go round."""
    moved = []
    for where, one in zip(_pixels(batch, place), batch.generators("places elsewhere"), strict=True):
        rows, columns = (
            int(torch.randint(extent // 4, 3 * extent // 4, (1,), generator=one)) for extent in where.shape
        )
        moved.append(where.roll((rows, columns), (0, 1)))
    return torch.stack(moved)


def _without(batch: Batch, where: Float[Tensor, "b h w"]) -> Images:
    return noisy_linear(batch.images, where > 0, generators=batch.generators("places inpainted"))


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    cams: Mapping[str, CamMethod],
    name: str,
    found: Search,
) -> Iterable[Evidence]:
    """Each image with its map and the place, and with the place inpainted; the classes; what inpainting costs."""
    place = found.places[name][0]
    where = _pixels(batch, place)
    versions = {"as it is": batch.images, "the place inpainted": _without(batch, where)}
    yield from side_by_side(
        subject,
        batch,
        rows,
        versions,
        cam=cams[name],
        target=batch.labels,
        column=f"{name}:own",
        outline=where,
    )
    yield _classes(subject, found, name)
    yield Table(
        title=f"What the place is worth to {subject.classes[place.label]} (means over its pictures)",
        columns=("pictures", "right", "probability lost with the place", "lost with the same shape elsewhere"),
        rows=((len(rows), *(_mean(rows, key) for key in ("right", f"{name}:lost", f"{name}:elsewhere"))),),
    )


def _mean(rows: Mapping[str, Row], key: str) -> float:
    return round(float(column_of(rows, key).nanmean()), 4)


def _classes(subject: Classifier, found: Search, name: str) -> Table:
    return Table(
        title=f"Where the maps of each class gather, on {len(found.searched)} pictures that were searched (share in "
        "its place beyond that of other classes' maps; p of dealing out the classes at random, Holm over the classes; "
        "groups of maps that are alike: how many, their share in the place, how many of their pictures are right, and "
        "which of these are nearest to their mean: they may be right for the wrong reason)",
        columns=("class", "maps", "gathered", "p", "groups"),
        rows=tuple(
            (
                subject.classes[place.label],
                place.maps,
                round(place.gathered, 4),
                round(place.p, 4),
                "; ".join(
                    f"{one.maps} ({', '.join((f'{one.inside:.2f}', f'{one.right} right', *one.examples))})"
                    for one in place.groups
                ),
            )
            for place in found.places[name][:NAMED]
        ),
    )


@pytest.mark.audit("places")
def test_places_belong_to_no_class(ask: Ask, cam: str) -> None:
    cams, seed, margin = ask.defined, ask.terms.seed, ask.policy.claims[OWN_PLACE.name].margin

    def prepare(_images: Tensor) -> dict[str, Search]:
        order = shuffled(ask.dataset, seed)[: ask.terms.budget]
        ids = order[: min(SEARCHED * ask.policy.chance_draws, len(order) // 3)]  # the others are left for confirming
        size = ask.terms.batch_size
        return {"found": search(ask.subject, ask.dataset, ids, cams, seed=seed, chunk=size, progress=ask.progress)}

    ask(
        OWN_PLACE,
        cam,
        measure=partial(places, cams=cams),
        column=f"{cam}:own",
        show=partial(show, cams=cams, name=cam),
        version=VERSION,
        premise=prepare,
        among=lambda dataset, given: unseen(dataset, given["found"], cam, enough=margin),
        apart=f"of {ask.terms.budget}",  # of more images more are searched
    )
