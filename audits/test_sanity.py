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

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.question import Question
from camcore.cam import METHODS, RECORDED, CamMethod
from camcore.cascade import Stages, Under, certified, every_stage, half_random, later_half, one_by_one, spread, top_down
from camcore.degeneracy import degeneracy
from camcore.engine import WORST, Row, column_of, rank
from camcore.errors import Undefined
from camcore.images import Batch, Images
from camcore.maps import is_constant, rectify, unit_range, upsample
from camcore.metrics.complexity import complexity_rise
from camcore.metrics.likeness import hog_likeness, rank_likeness, structural_similarity, unsigned_rank_likeness
from camcore.randomise import Execution, execution
from camcore.record import Recording, ZeroGradient, record
from camcore.seeds import derive
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Overlay, Table

VERSION = "1"
CURVE_SHARE = 4  # one image in four is followed through the whole cascade, unless the profile draws as often as release
CURVE_STEPS = 24  # at most, evenly spaced, unless it does
EVERYTHING = 4  # draws from which every image goes through every step
SMOOTH_COPIES, SMOOTH_NOISE = 8, 0.1  # smooth MPRT: noisy copies, and their deviation as a share of the pixels' range

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
KINDS = {"cascade": top_down, "alone": one_by_one}
Maps = Mapping[str, Tensor]
Cams = Mapping[str, CamMethod]


def sanity(subject: Classifier, batch: Batch, *, cams: Cams, execution: Execution, draws: int) -> dict[str, Tensor]:
    """What is left of every method's map when weights or the class change; all methods share the recordings.

    Returns:
        `<cam>:depends:<what>` (weights, later, class; judged), `<cam>:<likeness>:<point>` (SSIM and HOG on followed
        images alone), `<cam>:left:null`, `<cam>:blank` (the share of random models whose map is constant), and on
        followed images `<cam>:<cascade or alone>:<step>` (what is left), `<cam>:rise` and `<cam>:smooth` (efficient and
        smooth MPRT).
    """
    everything = every_stage(execution)
    with half_random(subject, batch.images, execution, seed=batch.seed, chunk=batch.chunk) as under:
        rec = under(())
        original = _maps(rec, cams)
        ask = partial(_asked, under, original, cams)
        at = {
            "class": ask((), another_class(rec, batch)),
            "second": ask((), rec.logits.topk(min(2, rec.logits.shape[1])).indices[:, -1]),
            "later": ask(later_half(execution), rec.target),
        }
        # two at least: the null is between them
        random = [ask(everything, rec.target, draw) for draw in range(max(2, draws))]
    followed = [index for index, image_id in enumerate(batch.ids) if _is_followed(batch, image_id, draws)]
    columns: dict[str, Tensor] = {}
    for name, saliency in original.items():
        code = degeneracy(rec, rectify(saliency))
        left = torch.stack([what_is_left(saliency, maps[name]) for maps in random]).mean(0)
        other = at["class"][name]
        same = torch.where(_is_blank(other), 0, rank_likeness(saliency, other))
        judged = {"weights": 1 - left, "later": 1 - what_is_left(saliency, at["later"][name]), "class": 1 - same}
        columns |= {f"{name}:depends:{what}": value.masked_fill(code != 0, torch.nan) for what, value in judged.items()}
        columns[f"{name}:degenerate"] = code.double()
        columns[f"{name}:blank"] = torch.stack([_is_blank(maps[name]).double() for maps in random]).mean(0)
        null = [what_is_left(one[name], other[name]) for one, other in combinations(random, 2)]
        columns[f"{name}:left:null"] = torch.stack(null).mean(0)
        pairs = {point: (saliency, maps[name]) for point, maps in {"weights": random[0], **at}.items()}
        for point, pair in {**pairs, "null": (random[0][name], random[1][name])}.items():
            columns[f"{name}:rank:{point}"] = rank_likeness(*pair)
            columns[f"{name}:unsigned:{point}"] = unsigned_rank_likeness(*pair)
            seen = [_shown(maps[followed], batch.images) for maps in pair]
            for key, likeness in (("ssim", structural_similarity), ("hog", hog_likeness)):
                columns[f"{name}:{key}:{point}"] = _scattered(likeness(*seen), followed, len(batch))
        seen = [_shown(maps[followed], batch.images) for maps in (saliency, random[0][name])]
        columns[f"{name}:rise"] = _scattered(complexity_rise(*seen), followed, len(batch))
    if followed:
        cheap = {name: cam for name, cam in cams.items() if name in original and is_cheap(name)}
        for key, value in _follow(subject, batch, followed, rec.target[followed], cheap, execution, draws).items():
            columns[key] = _scattered(value, followed, len(batch))
    return columns


def _follow(
    subject: Classifier, batch: Batch, followed: list[int], target: Tensor, cams: Cams, execution: Execution, draws: int
) -> dict[str, Tensor]:
    """The cascade, each stage alone, and smooth MPRT, on some images of the batch."""
    columns = {}
    images, draw = batch.images[followed], batch.generators("sanity noise")
    noise = [torch.randn((SMOOTH_COPIES, *images.shape[1:]), generator=draw[index]).to(images) for index in followed]
    copies = [(images + SMOOTH_NOISE * copy).clamp(0, 1) for copy in torch.stack(noise, 1)]
    with half_random(subject, images, execution, seed=batch.seed, chunk=batch.chunk) as under:
        original = _maps(under((), target), cams)
        smooth = _smooth(subject, copies, target, original, cams)
        for kind, steps in followed_steps(execution, draws).items():
            for index, stages in enumerate(steps):
                for name, maps in _asked(under, original, cams, stages, target).items():
                    columns[f"{name}:{kind}:{index}"] = what_is_left(original[name], maps)
        _asked(under, original, {}, every_stage(execution), target)
        random = _smooth(subject, copies, target, original, cams)
    return columns | {f"{name}:smooth": what_is_left(smooth[name], random[name]) for name in smooth}


def _maps(rec: Recording, cams: Cams) -> dict[str, Tensor]:
    found = {}
    for name, cam in cams.items():
        try:
            found[name] = cam(rec)
        except Undefined:
            continue
    return found


def _asked(
    under: Under, original: Maps, cams: Cams, stages: Collection[int], target: Tensor, draw: int = 0
) -> dict[str, Tensor]:
    """The maps at one step; blank where random weights leave no image a gradient, or no map is defined."""
    blank = {name: torch.zeros_like(saliency) for name, saliency in original.items()}
    try:
        return blank | _maps(under(stages, target, draw), cams)
    except ZeroGradient:
        return blank


def _smooth(
    subject: Classifier, copies: Sequence[Images], target: Tensor, original: Maps, cams: Cams
) -> dict[str, Tensor]:
    """The mean map over noisy copies of the images (Hedström et al. 2024, smooth MPRT)."""
    found = [_asked(lambda *_, copy=copy: record(subject, copy, target), original, cams, (), target) for copy in copies]
    return {name: torch.stack([maps[name] for maps in found]).mean(0) for name in original}


def what_is_left(original: Tensor, other: Tensor) -> Tensor:
    """The larger in size of the signed and the unsigned rank correlation; 0 where the other map is blank."""
    signed, unsigned = rank_likeness(original, other).abs(), unsigned_rank_likeness(original, other).abs()
    return torch.where(_is_blank(other) & ~is_constant(original), 0, torch.fmax(signed, unsigned))


def another_class(rec: Recording, batch: Batch) -> Tensor:
    """A class other than the explained one, drawn for each image; the same where there is only one."""
    others = rec.logits.shape[1] - 1
    drawn = [int(torch.randint(max(1, others), (), generator=draw)) for draw in batch.generators("sanity other class")]
    found = torch.tensor(drawn, device=rec.target.device)
    return found + (found >= rec.target) if others else rec.target


def followed_steps(execution: Execution, draws: int) -> dict[str, list[Stages]]:
    """The steps of the cascade and of single stages, all of them where the profile draws as often as release."""
    most = len(execution.stages) if draws >= EVERYTHING else CURVE_STEPS
    return {kind: spread(steps(execution), most) for kind, steps in KINDS.items()}


def is_cheap(name: str) -> bool:
    """Whether a method's map costs next to nothing beside its recording; a control's own maps do."""
    return name in RECORDED or name not in METHODS


def _is_followed(batch: Batch, image_id: str, draws: int) -> bool:
    return draws >= EVERYTHING or derive(batch.seed, "sanity followed", image_id) % CURVE_SHARE == 0


def _is_blank(saliency: Tensor) -> Tensor:
    return is_constant(saliency) & saliency.isfinite().flatten(1).all(1)


def _shown(saliency: Tensor, images: Images) -> Tensor:
    return unit_range(upsample(rectify(saliency), images.shape[2:]))


def _scattered(values: Tensor, rows: list[int], total: int) -> Tensor:
    column = torch.full((total,), torch.nan, dtype=torch.float64, device=values.device)
    column[rows] = values.double()
    return column


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
        original, other = _maps(rec, {name: cam}), another_class(rec, batch)
        strip = {"{}: the model as it is": original}
        if what == "class":
            strip["for {other} instead"] = _asked(under, original, {name: cam}, (), other)
        else:
            steps = {"the last stage random": top_down(execution)[0], "the later half random": later_half(execution)}
            for caption, stages in {**steps, "all weights random": every_stage(execution)}.items():
                strip[caption] = _asked(under, original, {name: cam}, stages, rec.target)
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
