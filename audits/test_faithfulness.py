"""Does the order of the map agree with what hiding each part costs?

## What it measures

The image is cut into 5 x 5 patches, and each is replaced by the image's mean colour. The rank correlation, over the
patches, of the map's mean in the patch with the fall of the class's log-odds when it is hidden says how far the map
orders the picture as the model does (occlusion). From it is taken, image by image, the same correlation of a guess that
needs no model: the image's edges, weighted towards the middle (occlusion_over_edges). Beside them, from the same
forwards or a few more: Sensitivity-n and faithfulness correlation over random sets of 5 patches, Average Drop and
Increase in Confidence.

## Why it matters

Deletion asks about the top of the map. Whoever reads a whole map, its dim parts included, reads an order.

## Known limits

A patch hidden alone costs little where the evidence is redundant: its neighbours say the same. A grey patch is itself
something to see. Where most of the picture does not matter, the order among those patches is noise and holds the
correlation down, for a perfect map too. The map is read as it is shown: negative saliency counts as none; Sensitivity-n
reads it with its sign. Average Drop favours maps that hide little, whatever they mark.

## Caught by

label_blind_map, uniform_map, random_map, inverted_map

## References

Zeiler and Fergus 2014 (arXiv:1311.2901, occlusion); Ancona et al. 2018 (arXiv:1711.06104, Sensitivity-n); Bhatt et al.
2020 (arXiv:2005.00631, faithfulness correlation); Chattopadhay et al. 2018 (arXiv:1710.11063, Average Drop); Poppi et
al. 2021 (arXiv:2104.10252) for its blind spot; Cohen 1988 for the size of correlations.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from camcore import chance, metrics
from camcore.cam import CamMethod
from camcore.degeneracy import degeneracy
from camcore.engine import DEGENERATE, Row, column_of, rank
from camcore.images import Batch
from camcore.maps import rectify, unit_range, upsample
from camcore.perturbations import mean_colour, patch_means, patch_numbers, rank_pixels
from camcore.recording import Recording, record
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

VERSION = "1"
CELLS = 5  # patches along a side: of 49, a single one costs a trained network next to nothing
SIZE = 5  # patches of a random set, a fifth of the picture
SETS = 12  # for each of the policy's draws
FIFTHS = ("first", "second", "third", "fourth", "last")
CHANCE = ("random", "edges", "centre", "edges in the middle")
QUANTITIES = ("occlusion", "sensitivity 1", f"sensitivity {SIZE}", "faithfulness", "average drop", "increase")

OCCLUSION = Question(
    name="faithfulness/occlusion",
    sentence="the more {cam} marks a patch, the more hiding it costs",
    kind="DIR",
    measure="rank correlation, over 25 patches, of the map with the fall of the log-odds when the patch is hidden",
    unit="Spearman's rank correlation",
    bounds=(-1.0, 1.0),
)
OVER_EDGES = Question(
    name="faithfulness/occlusion_over_edges",
    sentence="{cam} foretells what hiding a patch costs better than the edges in the middle of the picture do",
    kind="DIR",
    measure="rank correlation of the map less that of the image's edges, weighted towards the middle",
    unit="Spearman's rank correlation",
    bounds=(-2.0, 2.0),
)
QUESTIONS = (OCCLUSION, OVER_EDGES)


def faithfulness(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], draws: int) -> dict[str, Tensor]:
    """What every method's map has to do with the costs of hiding patches, which are asked for once for all of them.

    Returns:
        For each <map> (a CAM or one of `CHANCE`): `<map>:occlusion`, `<map>:sensitivity 1` and
        `<map>:sensitivity 5` (of the logit), `<map>:faithfulness` (of the probability), `<map>:average drop`,
        `<map>:increase`, and `<map>:<fifth>`, the mean fall of the probability over the first to last fifth of the
        patches in the map's order. `<cam>:occlusion, signed` is of the map before rectifying, `<cam>:over_edges` what
        is judged, `<cam>:degenerate` says why there is NaN.
    """
    rec = record(subject, batch.images, chunk=batch.chunk)
    size = (batch.images.shape[2], batch.images.shape[3])
    numbers = patch_numbers(size, CELLS, device=batch.images.device)
    sets = metrics.draw_subsets(
        CELLS**2, size=SIZE, count=SETS * draws, generators=batch.generators("faithfulness sets")
    ).to(batch.images.device)
    alone = metrics.each_patch(len(batch), CELLS**2, device=batch.images.device)
    falls = _falls(subject, batch, rec, torch.cat([alone, sets], 1), numbers)
    of_patch, of_set = (
        metrics.Scores(*(score[:, part] for score in falls)) for part in (slice(CELLS**2), slice(CELLS**2, None))
    )
    intact = metrics.class_scores(rec.logits, rec.target).probability

    def columns_of(name: str, signed: Tensor) -> dict[str, Tensor]:
        shown = rectify(signed)
        means = patch_means(shown, numbers)
        rank = rank_pixels(means.view(-1, CELLS, CELLS), generators=batch.generators("faithfulness ties"))
        order = rank.flatten(1).argsort(1)
        fifths = of_patch.probability.gather(1, order).tensor_split(len(FIFTHS), dim=1)
        seen = metrics.shown_by(batch.images, shown)
        scores = metrics.perturbed_scores(subject, rec.target, lambda image, _: seen[image], steps=1, chunk=batch.chunk)
        left = scores.probability[:, 0]
        return {
            f"{name}:occlusion": metrics.occlusion_correlation(shown, of_patch.log_odds, numbers),
            f"{name}:sensitivity 1": metrics.sensitivity_n(signed, alone, of_patch.logit, numbers),
            f"{name}:sensitivity {SIZE}": metrics.sensitivity_n(signed, sets, of_set.logit, numbers),
            f"{name}:faithfulness": metrics.sensitivity_n(signed, sets, of_set.probability, numbers),
            f"{name}:average drop": metrics.average_drop(intact, left),
            f"{name}:increase": metrics.increase_in_confidence(intact, left),
            **{f"{name}:{fifth}": part.mean(1) for fifth, part in zip(FIFTHS, fifths, strict=True)},
        }

    random = chance.random(rec, generators=batch.generators("faithfulness chance"))
    columns = {}
    edges, centre = chance.edges(rec), chance.centre(rec)
    for name, ignorant in zip(CHANCE, (random, edges, centre, edges * centre), strict=True):
        columns |= columns_of(name, upsample(ignorant, size))
    for name, cam in cams.items():
        saliency = cam(rec)
        code = degeneracy(rec, rectify(saliency))
        signed = upsample(saliency, size, rec.placement)
        ours = columns_of(name, signed)
        ours[f"{name}:occlusion, signed"] = metrics.occlusion_correlation(signed, of_patch.log_odds, numbers)
        ours[f"{name}:over_edges"] = ours[f"{name}:occlusion"] - columns["edges in the middle:occlusion"]
        columns |= {key: column.double().masked_fill(code != 0, torch.nan) for key, column in ours.items()}
        columns[f"{name}:{DEGENERATE}"] = code.double()
    return columns


def _falls(subject: Classifier, batch: Batch, rec: Recording, sets: Tensor, numbers: Tensor) -> metrics.Scores:
    baseline = mean_colour(batch.images)
    hidden = metrics.hidden_scores(
        subject, batch.images, rec.target, sets, numbers, baseline=baseline, chunk=batch.chunk
    )
    intact = metrics.Scores(*(score[:, None] for score in metrics.class_scores(rec.logits, rec.target)))
    return intact.drops(hidden)


def show(
    subject: Classifier, batch: Batch, rows: Mapping[str, Row], *, name: str, cam: CamMethod, column: str
) -> Iterable[Evidence]:
    """The maps beside what hiding each patch costs, the costs in the map's order, and what else was measured."""
    rec = record(subject, batch.images, chunk=batch.chunk)
    size = (batch.images.shape[2], batch.images.shape[3])
    saliency = unit_range(upsample(rectify(cam(rec)), size, rec.placement))
    numbers = patch_numbers(size, CELLS, device=batch.images.device)
    alone = metrics.each_patch(len(batch), CELLS**2, device=batch.images.device)
    costs = unit_range(_falls(subject, batch, rec, alone, numbers).log_odds.relu()[:, numbers])
    for index, image_id in enumerate(batch.ids):
        predicted = subject.classes[int(rec.target[index])]
        for caption, shown in ((f"{predicted}: the map", saliency), (f"{predicted}: what hiding a patch costs", costs)):
            yield Overlay(
                unit=image_id,
                role=rank(index, len(batch)),
                value=rows[image_id].get(column, torch.nan),
                caption=caption,
                image=batch.images[index],
                saliency=shown[index],
            )

    def mean(key: str) -> float:
        return round(float(column_of(rows, key).nanmean()), 4)

    yield Curve(
        title=f"What hiding a patch costs, in fifths of the patches from what {name} marks most to what it marks least",
        x_label="fifth of the patches, from most to least salient",
        y_label="fall of the class probability (mean over patches and images)",
        x=tuple(range(1, len(FIFTHS) + 1)),
        series={key: tuple(mean(f"{key}:{fifth}") for fifth in FIFTHS) for key in (*CHANCE, name)},
    )
    yield Table(
        title="Faithfulness, mean over images (correlations: higher is better; Average Drop: lower, Increase: higher)",
        columns=(
            "map",
            "occlusion, rank correlation",
            "Sensitivity-1",
            f"Sensitivity-{SIZE}",
            "faithfulness correlation",
            "Average Drop",
            "Increase in Confidence",
        ),
        rows=tuple((key, *(mean(f"{key}:{quantity}") for quantity in QUANTITIES)) for key in (name, *CHANCE)),
    )
    yield Table(
        title=f"How far {name} orders the patches by what hiding them costs",
        columns=("rank correlation with", "mean over images"),
        rows=(
            ("the map as shown (judged)", mean(f"{name}:occlusion")),
            ("the map before negative saliency became none", mean(f"{name}:occlusion, signed")),
            *((key, mean(f"{key}:occlusion")) for key in CHANCE),
            ("the map, less edges in the middle (judged)", mean(f"{name}:over_edges")),
        ),
    )


@pytest.mark.audit("faithfulness")
def test_what_the_map_marks_costs_more_to_hide(ask: Ask, cam: str) -> None:
    ask_about(ask, OCCLUSION, cam, column=f"{cam}:occlusion")


@pytest.mark.audit("faithfulness")
def test_the_map_foretells_costs_better_than_edges_in_the_middle(ask: Ask, cam: str) -> None:
    ask_about(ask, OVER_EDGES, cam, column=f"{cam}:over_edges")


def ask_about(ask: Ask, question: Question, cam: str, *, column: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    ask(
        question,
        cam,
        measure=partial(faithfulness, cams=ask.defined, draws=ask.policy.chance_draws),
        column=column,
        show=partial(show, name=cam, cam=ask.cams[cam], column=column),
        version=VERSION,
    )
