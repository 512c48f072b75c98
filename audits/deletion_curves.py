"""What the deletion audit measures: curves of every map, and what each method's deletion costs more than chance's."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from camcore import chance
from camcore.cam import CamMethod
from camcore.degeneracy import Degeneracy, degeneracy
from camcore.engine import DEGENERATE
from camcore.grid import Placement
from camcore.images import Batch, Images
from camcore.maps import rectify, upsample
from camcore.metrics import Scores, area_under, class_scores, deletion_curve, insertion_curve
from camcore.perturbations import black, blur, mean_colour, noise, noisy_linear, rank_pixels
from camcore.recording import record
from camcore.subject import Classifier

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)  # of the pixels; the intact and the fully blurred image are the ends of every curve
ENDS = (0, *SHARES, 1)
JUDGED, SHARP = 0.2, 0.1
MOVED = "moved"  # what is added to the name of a map in pixels
INPAINTING = "inpainting"  # the one other baseline that a claim is about
KINDS = ("deletion", "insertion", "deletion logit", "insertion logit")
SATURATED = 1e-6  # of the probability: float32 tells 1 from 1 - 1e-7, and softmax rounds a little more
ELSE: dict[str, Callable[[Batch, Tensor], Images]] = {  # what else a removed pixel may become; blur is judged
    "mean colour": lambda batch, _: mean_colour(batch.images),
    "black": lambda batch, _: black(batch.images),
    "noise": lambda batch, _: noise(batch.images, generators=batch.generators("deletion noise")),
    INPAINTING: lambda batch, gone: noisy_linear(
        batch.images, gone, generators=batch.generators("deletion inpainting")
    ),
}

Curves = dict[str, Tensor]  # by kind ("deletion logit") (b, ENDS), by baseline ("black") (b, 1)


def deletion(subject: Classifier, batch: Batch, *, cams: Mapping[str, CamMethod], draws: int) -> dict[str, Tensor]:
    """Deletion and insertion curves of every method and of chance, and the differences between them.

    One recording serves all methods, and the chance maps are drawn once.

    Returns:
        For each <map> (a CAM, "random", "edges" or "centre"; of a CAM in pixels also "<cam> moved") and <kind>
        ("deletion", "insertion", and either with " logit" after it): `<map>:<kind>:<share>` and the area
        `<map>:<kind>`. `<map>:<baseline>` is the probability at 20 % with another baseline than blur.
        `<cam>:over_<chance>:<share>` and `<cam>:over_<chance>:<baseline>` are what the map's deletion costs more; of a
        CAM in pixels, "random" is itself, moved.
        `<cam>:degenerate` says why there is NaN.
    """
    rec = record(subject, batch.images, chunk=batch.chunk)
    size, baseline = batch.images.shape[2:], blur(batch.images)
    with torch.no_grad():
        empty = torch.cat([subject.logits(part) for part in baseline.split(batch.chunk)])
    ends = class_scores(rec.logits, rec.target), class_scores(empty, rec.target)

    def curves(saliency: Tensor, purpose: str, placement: Placement | None = None) -> Curves:
        generators = batch.generators(f"deletion ties {purpose}")
        rank = rank_pixels(upsample(saliency, size, placement), generators=generators)
        return _curves(subject, batch, rec.target, rank, baseline, ends) | _elsewhere(subject, batch, rec.target, rank)

    shown = {name: rectify(cam(rec)) for name, cam in cams.items()}
    found = {name: curves(saliency, "", rec.placement) for name, saliency in shown.items()}

    def by_chance(draw: Callable[[Sequence[Generator]], Tensor]) -> Curves:
        drawn = [curves(draw(batch.generators(f"deletion chance {one}")), str(one)) for one in range(draws)]
        return {key: torch.stack([one[key] for one in drawn]).mean(0) for key in drawn[0]}

    ignorant = {
        "random": by_chance(lambda generators: chance.random(rec, generators=generators)),
        "edges": curves(chance.edges(rec), "edges"),
        "centre": curves(chance.centre(rec), "centre"),
    }
    columns = {key: column for name, one in ignorant.items() for key, column in _columns(name, one).items()}
    for name, saliency in shown.items():
        code = degeneracy(rec, saliency)
        judged = {key: curve.masked_fill((code != 0)[:, None], torch.nan) for key, curve in found[name].items()}
        beside = ignorant
        if saliency.shape[1:] == size:
            moved = by_chance(partial(_moved, saliency))
            columns |= _columns(f"{name} {MOVED}", moved)
            beside = {**ignorant, "random": moved}
        columns |= _columns(name, judged) | _compared(name, judged, beside, code)
    return columns


def _moved(saliency: Tensor, generators: Sequence[Generator]) -> Tensor:
    return chance.moved(saliency, generators=generators)


def _curves(
    subject: Classifier, batch: Batch, target: Tensor, rank: Tensor, baseline: Images, ends: tuple[Scores, Scores]
) -> Curves:
    given = partial(_asked, subject, batch, target, rank, baseline, SHARES)
    intact, empty = ends
    found = {}
    for kind, first, curve, last in (
        ("deletion", intact, given(deletion_curve), empty),
        ("insertion", empty, given(insertion_curve), intact),
    ):
        found[kind] = torch.cat([first.probability[:, None], curve.probability, last.probability[:, None]], 1)
        found[f"{kind} logit"] = torch.cat([first.logit[:, None], curve.logit, last.logit[:, None]], 1)
    return found


def _elsewhere(subject: Classifier, batch: Batch, target: Tensor, rank: Tensor) -> Curves:
    gone = rank < round(JUDGED * rank[0].numel())
    return {
        name: _asked(subject, batch, target, rank, make(batch, gone), (JUDGED,), deletion_curve).probability
        for name, make in ELSE.items()
    }


def _asked(
    subject: Classifier,
    batch: Batch,
    target: Tensor,
    rank: Tensor,
    baseline: Images,
    shares: Sequence[float],
    curve: Callable[..., Scores],
) -> Scores:
    return curve(subject, batch.images, target, rank, baseline=baseline, fractions=shares, chunk=batch.chunk)


def _columns(name: str, curves: Curves) -> dict[str, Tensor]:
    columns = {f"{name}:{baseline}": curves[baseline][:, 0] for baseline in ELSE}
    for kind in KINDS:
        columns[f"{name}:{kind}"] = area_under(curves[kind], ENDS)
        columns |= {f"{name}:{kind}:{share:g}": curves[kind][:, index] for index, share in enumerate(ENDS)}
    return columns


def _compared(name: str, curves: Curves, ignorant: Mapping[str, Curves], code: Tensor) -> dict[str, Tensor]:
    """What the map's deletion costs more than each ignorant map's, NaN where neither could have cost anything."""
    columns, stuck = {}, torch.zeros_like(code, dtype=torch.bool)
    for other, theirs in ignorant.items():
        both = torch.stack([theirs["deletion"], curves["deletion"]])
        for index, share in enumerate(SHARES, start=1):
            still = _at_one(both[:, :, : index + 1])
            columns[f"{name}:over_{other}:{share:g}"] = (both[0] - both[1])[:, index].masked_fill(still, torch.nan)
            stuck |= still & (share in (SHARP, JUDGED))
        for baseline in ELSE:
            pair = torch.stack([theirs[baseline], curves[baseline]])
            still = _at_one(torch.cat([both[:, :, :1], pair], 2))
            columns[f"{name}:over_{other}:{baseline}"] = (pair[0] - pair[1])[:, 0].masked_fill(still, torch.nan)
            stuck |= still & (baseline == INPAINTING)
    columns[f"{name}:{DEGENERATE}"] = torch.where((code == 0) & stuck, int(Degeneracy.SATURATED), code).double()
    return columns


def _at_one(curves: Float[Tensor, "maps b steps"]) -> Bool[Tensor, " b"]:
    """Whether the probability stays at 1 to rounding at every step of every map: nothing can be told from it."""
    return ((1 - curves) < SATURATED).all(2).all(0)
