"""Does the map depend on what was learned?

## What it measures

The method, not the audited model. Two small networks of one architecture and one initialisation are explained: one
learned to name the thing in a scene, the other memorised the same kind of scenes under permuted labels (every one of
2000, and is at chance on new ones). For every image of the run both are shown one fresh scene, drawn for it, and the
map of the same class is taken from both: the class that the first network predicts. The two maps are compared by
Spearman's rank correlation, once with their signs and once without; the larger of the two in size counts.

## Why it matters

A map that looks the same whether the network learned something or nothing explains the picture, not the network. To the
eye such a map is convincing: it traces whatever there is to see.

## Known limits

Whatever model is audited, the verdict on a method is about the same, and it is about networks with a mean before the
head. Two networks can look at the same places for good reasons: what stands out in a scene is worth memorising too, so
that a correlation of 0 is not what a right method has. Noise drawn anew for every map passes. The networks differ in
more than the labels: the one with true labels saw more scenes, mirrored and partly blurred.

## Caught by

edge_map, uniform_map, brightness_map

## References

Adebayo et al. 2018 (arXiv:1810.03292, section 4.2, data randomisation test); Zhang et al. 2017 (arXiv:1611.03530).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from audits.roles import undefined_methods
from camcore import chance, with_target_layer
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import Row, column_of, rank
from camcore.images import Batch, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.metrics.likeness import rank_likeness, unsigned_rank_likeness
from camcore.recording import Recording, record
from camcore.seeds import derive
from camcore.subject import Classifier
from camcore.verdict import Evidence, Overlay, Table
from fixtures.controls.clean import SIDE, clean_net
from fixtures.controls.labels import permuted_net
from fixtures.datasets.scenes import draw

VERSION = "1"

DEPENDS = Question(
    name="labels/depends_on_labels",
    sentence="the map of {cam} changes when the network has learned permuted labels instead of the true ones",
    kind="DIR",
    measure="rank correlation between the maps of two networks, one trained on true, one on permuted labels, in size",
    unit="Spearman's ρ",
    bounds=(0.0, 1.0),
    direction="within",
)
QUESTIONS = (DEPENDS,)
KINDS = ("signed", "absolute", "similarity")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two networks that differ in what they were taught."""

    true: Classifier
    permuted: Classifier


def pair_of_networks() -> Pair:
    """The clean control and its twin."""
    return Pair(true=with_target_layer(clean_net()), permuted=with_target_layer(permuted_net()))


def scenes_for(batch: Batch) -> Images:
    """One fresh scene for each image of the batch, drawn from the run's seed and the image's id."""
    return torch.stack([draw(0, seed=derive(batch.seed, "labels", one), size=SIDE)[0] for one in batch.ids])


def recorded(batch: Batch, pair: Pair) -> tuple[Recording, Recording]:
    """Both networks on the same scenes, explained for the same class: what the first one predicts."""
    images = scenes_for(batch)
    true = record(pair.true, images, chunk=batch.chunk)
    return true, record(pair.permuted, images, true.target, chunk=batch.chunk)


def label_dependence(
    _subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], pair: Pair
) -> dict[str, Tensor]:
    """How alike the maps of both networks are, for every method; the audited subject is not asked.

    Returns:
        `<map>:signed` and `<map>:absolute`, rank correlations of the maps and of their absolute values, and
        `<map>:similarity`, the larger of the two in size, where <map> is a CAM or "random", two noise maps;
        `<cam>:degenerate`. NaN where one of the maps ranks nothing.
    """
    true, permuted = recorded(batch, pair)
    columns: dict[str, Tensor] = {}
    for name, cam in cams.items():
        one, other = cam(true), cam(permuted)
        code = torch.maximum(degeneracy(true, one.abs()), degeneracy(permuted, other.abs()))
        columns |= {key: column.masked_fill(code > 0, torch.nan) for key, column in _alike(name, one, other).items()}
        columns[f"{name}:degenerate"] = code.double()
    noise = [chance.random(true, generators=batch.generators(f"labels {which}")) for which in ("one", "other")]
    return columns | _alike("random", *noise)


def _alike(name: str, one: Tensor, other: Tensor) -> dict[str, Tensor]:
    signed, absolute = rank_likeness(one, other), unsigned_rank_likeness(one, other)
    return {
        f"{name}:signed": signed,
        f"{name}:absolute": absolute,
        f"{name}:similarity": torch.maximum(signed.abs(), absolute.abs()),
    }


def show(
    _subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, pair: Pair
) -> Iterable[Evidence]:
    """The maps of both networks on the same scenes, and the correlations beside those of noise."""
    true, permuted = recorded(batch, pair)
    taught = {"true": true, "permuted": permuted}
    maps = {
        labels: unit_range(upsample(rectify(cam(rec)), (SIDE, SIDE), rec.placement)) for labels, rec in taught.items()
    }
    for index, labels in product(range(len(batch)), taught):
        drawn = pair.true.classes[int(true.target[index])]
        yield Overlay(
            unit=batch.ids[index],  # whose place a drawn scene takes
            role=rank(index, len(batch)),
            value=rows[batch.ids[index]].get(f"{name}:similarity", torch.nan),
            caption=f"a drawn {drawn}, by the network that learned {labels} labels",
            image=true.images[index],
            saliency=maps[labels][index],
        )
    yield Table(
        title=f"Rank correlation of the maps of {name} on two networks, true and permuted labels (mean over scenes)",
        columns=("map", "with signs", "without", "the larger in size"),
        rows=(
            *((key, *(_mean(rows, f"{key}:{kind}") for kind in KINDS)) for key in (name, "random")),
            ("a map that never looks at the network", 1.0, 1.0, 1.0),
        ),
    )


def _mean(rows: Mapping[str, Row], key: str) -> float:
    return round(float(column_of(rows, key).nanmean()), 4)


@pytest.mark.audit("labels")
def test_the_map_depends_on_the_labels(ask: Ask, cam: str) -> None:
    pair = pair_of_networks()
    asked = replace(ask, undefined={**ask.undefined, **undefined_methods(pair.true, ask.cams)})
    asked(
        DEPENDS,
        cam,
        measure=partial(label_dependence, cams=asked.defined, pair=pair),
        column=f"{cam}:similarity",
        show=partial(show, name=cam, cam=ask.cams[cam], pair=pair),
        version=VERSION,
    )
