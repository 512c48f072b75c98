"""Does the map depend on the model, and on the class?

## What it measures

The model's weights are drawn anew, as before training, and the map of the same class on the same image is compared
with the original by Spearman's rank correlation, once with its sign and once of the maps' absolute values; the larger
of the two in size is what is left of the map. This is done with all weights random (depends_on_weights), and with the
later half of the stages random and the earlier ones in place (depends_on_later_layers). A third claim compares the maps
of the predicted class and of another one, drawn for each image (depends_on_class). A stage is what one module uses:
parameters of every kind, and running statistics, which are reset with it; stages are ordered by their first use in a
forward.

Beside it, on a quarter of the images (all of them at release): the cascade from the output down and each stage alone,
the likeness to the eye (SSIM, HOG), and efficient and smooth MPRT. Two models drawn independently give the null line:
how alike maps are that share nothing but the picture and the architecture.

## Why it matters

An edge detector gives convincing maps. Whoever does not randomise the model cannot tell it from an explanation.

## Known limits

That a map changes with the weights does not make it right. The null is a line to read by and no verdict: an edge
detector equals its own null. The random models are drawn once per run, and the interval is about the images. A map that
random weights make constant keeps nothing of the order, and counts as changed; the table says how many are. Random
weights are unlike any that training finds, and the picture's own structure outlives them: convolutions still answer to
contrast. Maps of the features alone, without the class's weights (Eigen-CAM, or the mean of the channels), therefore
stay much as they were; on the clean control they do not pass depends_on_later_layers.
Classes that are seen by the same parts of a picture rightly have similar maps; the other class is drawn at random to
make that rare, and the runner-up stands in the table.

## Caught by

edge_map, uniform_map, label_blind_map, weight_blind_map, prefix_map, class_blind_map, class_blind_eigencam

## References

Adebayo et al. 2018 (arXiv:1810.03292, section 4.1); Sixt et al. 2020 (arXiv:1912.09818, random logit test); Hedström
et al. 2024 (arXiv:2401.06465, smooth and efficient MPRT); Binder et al. 2023 (arXiv:2211.12486) and Yona and Greenfeld
2021 (arXiv:2110.14297) for objections.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import pytest
import torch

from audits.ask import Ask
from audits.question import Question
from audits.sanity_changes import another_class, followed_steps, maps_of, maps_under, sanity
from camcore.cam import CamMethod
from camcore.cascade import certified, every_stage, half_random, later_half, top_down
from camcore.engine import WORST, Row, column_of, rank
from camcore.images import Batch, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.randomise import Execution, execution
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

VERSION = "1"

DEPENDS_ON_WEIGHTS = Question(
    name="sanity/depends_on_weights",
    sentence="the map of {cam} is no longer like itself once all weights are random",
    kind="DIR",
    measure="1 minus the rank correlation with the original map that all weights at random leave",
    unit="rank correlation",
    bounds=(0.0, 1.0),
)
DEPENDS_ON_LATER_LAYERS = Question(
    name="sanity/depends_on_later_layers",
    sentence="the map of {cam} is no longer like itself once the later half of the stages is random",
    kind="DIR",
    measure="1 minus the rank correlation with the original map that the later half at random leaves",
    unit="rank correlation",
    bounds=(0.0, 1.0),
)
DEPENDS_ON_CLASS = Question(
    name="sanity/depends_on_class",
    sentence="{cam} draws another map for another class",
    kind="DIR",
    measure="1 minus the rank correlation of the maps of the predicted and of another class",
    unit="rank correlation",
    bounds=(0.0, 2.0),
)
QUESTIONS = (DEPENDS_ON_WEIGHTS, DEPENDS_ON_LATER_LAYERS, DEPENDS_ON_CLASS)
POINTS = {
    "weights": "all weights random",
    "later": "later half of the stages random",
    "class": "another class, drawn at random",
    "second": "the second likeliest class",
    "null": "null: two models with all weights random",
}
LIKENESSES = {"rank": "Spearman", "unsigned": "Spearman of absolute values", "ssim": "SSIM", "hog": "HOG"}


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    name: str,
    cam: CamMethod,
    what: str,
    execution: Execution,
    draws: int,
) -> Iterable[Evidence]:
    """Strips of maps, the cascade beside the null line, and every likeness at every point."""
    with half_random(subject, batch.images, execution, seed=batch.seed, chunk=batch.chunk) as under:
        rec = under(())
        original, other = maps_of(rec, {name: cam}), another_class(rec, batch)
        strip = {"{}: the model as it is": original}
        if what == "class":
            strip["for {other} instead"] = maps_under(under, original, {name: cam}, (), other)
        else:
            steps = {"the last stage random": top_down(execution)[0], "the later half random": later_half(execution)}
            for caption, stages in {**steps, "all weights random": every_stage(execution)}.items():
                strip[caption] = maps_under(under, original, {name: cam}, stages, rec.target)
    for index in range(len(batch)) if what == "class" else sorted({0, WORST, len(batch) - 1} & set(range(len(batch)))):
        for caption, maps in strip.items():
            shown = unit_range(upsample(rectify(maps[name][[index]]), batch.images.shape[2:], rec.placement))
            yield Overlay(
                unit=batch.ids[index],
                role=rank(index, len(batch)),
                value=rows[batch.ids[index]].get(f"{name}:depends:{what}", torch.nan),
                caption=caption.format(subject.classes[rec.target[index]], other=subject.classes[other[index]]),
                image=batch.images[index],
                saliency=shown[0],
            )

    def mean(key: str) -> float:
        found = column_of(rows, f"{name}:{key}")
        return round(float(found.nanmean()), 3)

    if what != "class":
        yield from _cascade(rows, name, execution, draws, mean("left:null"))
    yield Table(
        title=f"How alike {name}'s maps are (means; 1: the same)",
        columns=("compared with the original map", *LIKENESSES.values()),
        rows=tuple((words, *(mean(f"{key}:{point}") for key in LIKENESSES)) for point, words in POINTS.items()),
    )
    yield Table(
        title="Further sanity checks (means)",
        columns=("quantity", "value"),
        rows=(
            (
                "left of the map with all weights random, of maps averaged over noisy copies (smooth MPRT)",
                mean("smooth"),
            ),
            ("rise of the map's entropy with all weights random, relative (efficient MPRT)", mean("rise")),
            ("share of random models whose map is blank", mean("blank")),
        ),
    )


def _cascade(
    rows: Mapping[str, Row], name: str, execution: Execution, draws: int, null: float
) -> Iterable[Curve | Table]:
    steps = followed_steps(execution, draws)
    left = {
        kind: [float(column_of(rows, f"{name}:{kind}:{index}").nanmean()) for index in range(len(found))]
        for kind, found in steps.items()
    }
    if all(value != value for value in left["cascade"]):  # no image was followed, or the method is too dear for it
        return
    count = int(column_of(rows, f"{name}:cascade:0").isfinite().sum())
    title = f"What is left of {name}'s map as weights are randomised from the output down ({count} images)"
    yield Curve(
        title=title,
        x_label="stages with random weights",
        y_label="size of the rank correlation",
        x=tuple(len(stages) for stages in steps["cascade"]),
        series={name: tuple(left["cascade"]), "two random models": (null,) * len(left["cascade"])},
    )
    yield Table(
        title=f"What is left of {name}'s map, stage by stage ({count} images)",
        columns=("stage", "random from here to the output", "random here alone"),
        rows=tuple(
            (execution.stages[min(stages)].name, *(round(values[index], 3) for values in left.values()))
            for index, stages in enumerate(steps["cascade"])
        ),
    )


def established(subject: Classifier, images: Images, *, seed: int, draws: int) -> dict[str, Execution]:
    """The premise: what a forward uses when, and whether what no change reaches may be given again."""
    found = execution(subject, images[:1])
    steps = [frozenset[int](), later_half(found), *(s for kind in followed_steps(found, draws).values() for s in kind)]
    return {"execution": certified(subject, images[:1], found, steps, seed=seed)}


@pytest.mark.audit("sanity")
def test_the_map_depends_on_the_weights(ask: Ask, cam: str) -> None:
    ask_about(ask, DEPENDS_ON_WEIGHTS, cam, what="weights")


@pytest.mark.audit("sanity")
def test_the_map_depends_on_the_later_layers(ask: Ask, cam: str) -> None:
    ask_about(ask, DEPENDS_ON_LATER_LAYERS, cam, what="later")


@pytest.mark.audit("sanity")
def test_the_map_depends_on_the_class(ask: Ask, cam: str) -> None:
    ask_about(ask, DEPENDS_ON_CLASS, cam, what="class")


def ask_about(ask: Ask, question: Question, cam: str, *, what: str) -> None:
    """Put one of the claims: they read different columns of the same measurement."""
    draws = ask.policy.chance_draws
    ask(
        question,
        cam,
        premise=lambda images: established(ask.subject, images, seed=ask.terms.seed, draws=draws),
        measure=partial(sanity, cams=ask.defined, draws=draws),
        column=f"{cam}:depends:{what}",
        show=partial(show, name=cam, cam=ask.cams[cam], what=what, draws=draws),
        version=VERSION,
    )
