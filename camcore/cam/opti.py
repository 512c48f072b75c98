"""Opti-CAM: the weighted sum of channels that, laid over the image as a mask, keeps the score highest."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore import ask
from camcore.cam.gradients import weigh
from camcore.cam.masking import Baseline, background
from camcore.cam.registry import register_asking
from camcore.images import Images
from camcore.maps import is_constant, upsample
from camcore.perturbations import black
from camcore.recording import Recording

Map = Float[Tensor, "b i j"]
Weights = Float[Tensor, "b k"]  # not negative, each image's sum to 1

# Adam's own numbers, as its paper proposes them
FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


@register_asking
def opticam(
    rec: Recording,
    *,
    steps: int = 50,
    learning_rate: float = 0.1,
    patience: int = 10,
    tolerance: float = 1e-3,
    baseline: Baseline = black,
) -> Map:
    """Opti-CAM: channels weighted so that the image seen through the map scores highest. A forward and backward a step.

    Zhang et al. 2023, arXiv:2301.07002, section 3: S(u) = Σ softmax(u)_k ReLU(A_k), and u maximises the class score of
    x∘n(up(S(u))), where `up` is bilinear (`camcore.maps.upsample`) and n brings each image's mask to [0, 1]. By Adam
    (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1) from equal weights; steps and rate are those of the authors'
    command line. The mask multiplies pixels, not the normalised image: what is hidden becomes black.

    Each image is optimised by itself, and the best u on its way is kept, so that its map depends neither on the rest of
    the batch nor on where the last step went; the authors' program watches the sum over the batch. An image stops, and
    costs nothing more, when it has taken `patience` steps in a row of which none brought its best score further than
    the last advance by more than `tolerance` of all that it has gained since the start.

    Where all channels of an image are constant, so is every mask: its weights stay equal, and it costs nothing. Where
    the sum is constant though the channels are not, the mask is empty, and the first step leads away from it.

    Args:
        rec: A recording that knows its model.
        steps: At most so many, for each image; a last forward tells whether the last one was an improvement.
        learning_rate: Of Adam, in units of u.
        patience: Steps without an advance after which an image stops; `steps` or more to take them all.
        tolerance: The share of the gain so far that counts as an advance.
        baseline: What masked pixels fade to (`camcore.cam.masking.background`).

    Raises:
        ValueError: A recording without a model, or options out of range.
        ZeroGradient: The model cuts its scores off from its input.
    """
    weights = opticam_weights(
        rec, steps=steps, learning_rate=learning_rate, patience=patience, tolerance=tolerance, baseline=baseline
    )
    return weigh(weights, rec.activations.relu())


def opticam_weights(
    rec: Recording,
    *,
    steps: int = 50,
    learning_rate: float = 0.1,
    patience: int = 10,
    tolerance: float = 1e-3,
    baseline: Baseline = black,
) -> Weights:
    """The weights softmax(u) of `opticam`."""
    if steps < 1 or patience < 1 or not learning_rate > 0 or not 0 <= tolerance < 1:
        raise ValueError(
            "opticam needs steps >= 1, patience >= 1, learning_rate > 0 and 0 <= tolerance < 1, got "
            f"steps={steps}, patience={patience}, learning_rate={learning_rate}, tolerance={tolerance}"
        )
    rec = replace(rec, chunk=ask.chunk_of(rec))  # measured before, not inside, the block that keeps gradients on
    with ask.differentiable(rec):
        behind = background(rec.images, baseline)
        shown = rec.images - behind
        features = rec.activations.relu()
        live = ~is_constant(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        u = torch.zeros_like(features[:, :, 0, 0])
        best, mean, square = u.clone(), u.clone(), u.clone()
        start = highest = advanced = u.new_full(u.shape[:1], -torch.inf)
        waited = torch.zeros_like(start, dtype=torch.long)
        rows = live.any(1).nonzero()[:, 0]
        for step in range(steps + 1):
            if not len(rows):
                break
            score, slope = _score(rec, features, (behind, shown), u, rows, sloped=step < steps)
            start = start if step else score
            best = torch.where((score > highest)[:, None], u, best)
            highest = torch.where(score > highest, score, highest)
            advances = highest > advanced + tolerance * (highest - start)
            advanced = torch.where(advances, highest, advanced)
            waited = torch.where(advances, 0, waited + 1)
            rows = rows[waited[rows] < patience]
            # The mask knows neither height nor scale of the map, so the slope of a constant channel is 0 but for
            # rounding, and Adam would make whole steps of that.
            slope = torch.where(live, slope, 0)
            # Element by element, and no image is asked again once it was left out: what others do makes no difference.
            mean = FIRST * mean + (1 - FIRST) * slope
            square = SECOND * square + (1 - SECOND) * slope.square()
            size = (square / (1 - SECOND ** (step + 1))).sqrt() + EPSILON
            u = u + learning_rate * mean / (1 - FIRST ** (step + 1)) / size
        return best.softmax(1)


def mask_of(features: Float[Tensor, "n k i j"], u: Float[Tensor, "n k"], size: Sequence[int]) -> Float[Tensor, "n h w"]:
    """What an image is seen through: Σ softmax(u)_k A_k, upsampled, from 0 to 1; 0 (to within rounding) if constant.

    Differentiable in u everywhere: unlike in `camcore.maps.unit_range`, nothing is divided by 0 on the way back either.
    """
    saliency = torch.einsum("nk,nkij->nij", u.softmax(1), features)
    # Bilinear is one matrix down and one across: for single channels torch's own backward took most of a mask's time.
    down, across = (_bilinear(cells, side, features) for cells, side in zip(saliency.shape[1:], size, strict=True))
    saliency = down @ saliency @ across.T
    low, high = saliency.amin((1, 2), keepdim=True), saliency.amax((1, 2), keepdim=True)
    # A constant map is divided by its height, so that the rounding in it stays as small as it is.
    height = torch.where(high > 0, high, 1)
    return (saliency - low) / torch.where(is_constant(saliency)[:, None, None], height, high - low)


def _bilinear(cells: int, side: int, like: Tensor) -> Float[Tensor, "side cells"]:
    """`camcore.maps.upsample` of one axis, as a matrix: what it makes of each cell alone."""
    each = torch.eye(cells, dtype=like.dtype, device=like.device)
    return upsample(each[:, :, None], (side, 1))[:, :, 0].T


def _score(
    rec: Recording,
    features: Float[Tensor, "b k i j"],
    pictures: tuple[Images, Images],  # what stands behind the image, and the image less that
    u: Float[Tensor, "b k"],
    rows: Int[Tensor, " n"],
    *,
    sloped: bool,
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b k"]]:
    """The scores of these images seen through their masks and, if asked for, the slopes in u. -inf and 0 elsewhere."""
    scores, slopes = u.new_full(u.shape[:1], -torch.inf), torch.zeros_like(u)
    for part in rows.split(ask.chunk_of(rec)):
        leaf = u[part].requires_grad_(sloped)
        # Rows come in order: as many as there are images are all of them, and need no copy.
        channels, behind, shown = (table if len(part) == len(table) else table[part] for table in (features, *pictures))
        seen = mask_of(channels, leaf, rec.images.shape[2:])[:, None].to(rec.images.dtype)
        score = ask.score_of(rec, ask.rerun(rec, torch.addcmul(behind, seen, shown)), part)
        scores[part] = score.detach().to(u.dtype)
        if sloped:
            slopes[part] = ask.slope(rec, score, leaf)
    return scores, slopes
