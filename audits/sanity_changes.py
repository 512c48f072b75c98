"""What the sanity audit measures: what is left of every map when the weights or the class change."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from camcore.cam import METHODS, RECORDED, CamMethod
from camcore.cascade import Stages, Under, every_stage, half_random, later_half, one_by_one, spread, top_down
from camcore.degeneracy import degeneracy
from camcore.errors import Undefined
from camcore.images import Batch, Images
from camcore.maps import is_constant, rectify, unit_range, upsample
from camcore.metrics.complexity import complexity_rise
from camcore.metrics.likeness import hog_likeness, rank_likeness, structural_similarity, unsigned_rank_likeness
from camcore.randomise import Execution
from camcore.recording import Recording, ZeroGradient, record
from camcore.seeds import derive
from camcore.subject import Classifier

CURVE_SHARE = 4  # one image in four is followed through the whole cascade, unless the profile draws as often as release
CURVE_STEPS = 24  # at most, evenly spaced, unless it does
EVERYTHING = 4  # draws from which every image goes through every step
SMOOTH_COPIES, SMOOTH_NOISE = 8, 0.1  # smooth MPRT: noisy copies, and their deviation as a share of the pixels' range
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
        original = maps_of(rec, cams)
        ask = partial(maps_under, under, original, cams)
        at = {
            "class": ask((), another_class(rec, batch)),
            "second": ask((), rec.logits.topk(min(2, rec.logits.shape[1])).indices[:, -1]),
            "later": ask(later_half(execution), rec.target),
        }
        # two at least: the null is between them
        random = [ask(everything, rec.target, draw) for draw in range(max(2, draws))]
    followed = [index for index, image_id in enumerate(batch.ids) if is_followed(batch, image_id, draws)]
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
        original = maps_of(under((), target), cams)
        smooth = _smooth(subject, copies, target, original, cams)
        for kind, steps in followed_steps(execution, draws).items():
            for index, stages in enumerate(steps):
                for name, maps in maps_under(under, original, cams, stages, target).items():
                    columns[f"{name}:{kind}:{index}"] = what_is_left(original[name], maps)
        maps_under(under, original, {}, every_stage(execution), target)
        random = _smooth(subject, copies, target, original, cams)
    return columns | {f"{name}:smooth": what_is_left(smooth[name], random[name]) for name in smooth}


def maps_of(rec: Recording, cams: Cams) -> dict[str, Tensor]:
    """Every method's map of one recording, but for those that the model has none of."""
    found = {}
    for name, cam in cams.items():
        try:
            found[name] = cam(rec)
        except Undefined:
            continue
    return found


def maps_under(
    under: Under, original: Maps, cams: Cams, stages: Collection[int], target: Tensor, draw: int = 0
) -> dict[str, Tensor]:
    """The maps at one step; blank where random weights leave no image a gradient, or no map is defined."""
    blank = {name: torch.zeros_like(saliency) for name, saliency in original.items()}
    try:
        return blank | maps_of(under(stages, target, draw), cams)
    except ZeroGradient:
        return blank


def _smooth(
    subject: Classifier, copies: Sequence[Images], target: Tensor, original: Maps, cams: Cams
) -> dict[str, Tensor]:
    """The mean map over noisy copies of the images (Hedström et al. 2024, smooth MPRT)."""
    found = [
        maps_under(lambda *_, copy=copy: record(subject, copy, target), original, cams, (), target) for copy in copies
    ]
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


def is_followed(batch: Batch, image_id: str, draws: int) -> bool:
    """Whether an image goes through the whole cascade: drawn by its id, so in any batch alike."""
    return draws >= EVERYTHING or derive(batch.seed, "sanity followed", image_id) % CURVE_SHARE == 0


def _is_blank(saliency: Tensor) -> Tensor:
    return is_constant(saliency) & saliency.isfinite().flatten(1).all(1)


def _shown(saliency: Tensor, images: Images) -> Tensor:
    return unit_range(upsample(rectify(saliency), images.shape[2:]))


def _scattered(values: Tensor, rows: list[int], total: int) -> Tensor:
    column = torch.full((total,), torch.nan, dtype=torch.float64, device=values.device)
    column[rows] = values.double()
    return column
