"""Channels weighted by a score: of the image seen through one channel, or of the features without that channel."""

import torch
from jaxtyping import Float
from torch import Tensor

from camcore import ask
from camcore.cam.gradients import weigh
from camcore.cam.linear import reads_means
from camcore.cam.masking import Baseline, background
from camcore.cam.registry import register_asking
from camcore.maps import is_constant, unit_range, upsample
from camcore.perturbations import black
from camcore.recording import Recording
from camcore.subject import Normalise

Map = Float[Tensor, "b i j"]
Weights = Float[Tensor, "b k"]

# Ablated features that the suffix is given at once, in bytes rather than channels: more channels mean more forwards,
# not more memory. Each forward repeats the prefix for one image, so the number should be large.
FEATURE_BYTES = 96 * 2**20


@register_asking
def scorecam(rec: Recording, *, weighting: str = "logit", baseline: Baseline | None = None) -> Map:
    """Score-CAM: channels weighted by the score of the image seen through them alone. One forward per live channel.

    Wang et al. 2020, arXiv:1910.01279: H_k = A_k, upsampled bilinearly (`camcore.maps.upsample`) and only then brought
    to [0, 1], channel by channel; C_k = f(x∘H_k) - f(x_b); α = softmax of C over the channels; L = Σ α_k A_k, here
    without the ReLU. f(x_b) is the same for all channels, so the softmax cancels it and it is not computed.

    A constant channel (to within rounding; a dead one above all) has no H, costs no forward and has weight 0. It has no
    part in the softmax either, which multiplies the other weights by a common factor. A constant that is not 0
    would move the map by the same amount everywhere.

    Args:
        rec: A recording that knows its model.
        weighting: "logit", as the paper has it; its weights depend on the scale of the logits. Or "probability", as the
            authors' program has it: α_k is the class's softmax probability, with no softmax over channels.
        baseline: What masked pixels fade to (`camcore.cam.masking.background`). None: the colour that the subject's
            `Normalise` takes to 0, the same as masking the normalised image, which the authors and others do; black
            where the subject normalises in a way of its own.

    Raises:
        ValueError: A recording without a model, an unknown weighting, a baseline that is none, or probabilities for a
            contrast of two classes.
    """
    return weigh(scorecam_weights(rec, weighting=weighting, baseline=baseline), rec.activations)


@torch.no_grad()
def scorecam_weights(rec: Recording, *, weighting: str = "logit", baseline: Baseline | None = None) -> Weights:
    """The weights α of `scorecam`, so that `effective_channels` can be reported beside the map."""
    if weighting not in ("logit", "probability"):
        raise ValueError(f'weighting must be "logit" or "probability", got {weighting!r}')
    if weighting == "probability" and rec.against is not None:
        raise ValueError(
            'weighting="probability" is defined for one class, and this recording contrasts two; use weighting="logit"'
        )
    images, features = rec.images, rec.activations
    behind = background(images, _normalised_to_zero(rec) if baseline is None else baseline)
    live = ~is_constant(features.flatten(0, 1)).unflatten(0, features.shape[:2])
    # The live channels of all images in one list, so that only its last chunk is not full.
    rows, channels = live.nonzero(as_tuple=True)
    if not len(rows):
        return torch.zeros_like(features[:, :, 0, 0])
    found = []
    for part in ask.chunks(rec, len(rows)):
        row = rows[part]
        masks = unit_range(upsample(features[row, channels[part]], images.shape[2:]))
        logits = ask.rerun(rec, torch.lerp(behind[row], images[row], masks[:, None].to(images.dtype)))
        if weighting == "probability":
            logits = logits.softmax(1)
        found.append(ask.score_of(rec, logits, row))
    scores = torch.cat(found).to(features.dtype)
    if weighting == "probability":
        return torch.zeros_like(features[:, :, 0, 0]).index_put((rows, channels), scores)
    confidence = torch.full_like(features[:, :, 0, 0], -torch.inf).index_put((rows, channels), scores)
    return torch.where(live, confidence.softmax(1), 0)  # an image without a live channel would have NaN


def effective_channels(weights: Weights) -> Float[Tensor, " b"]:
    """How many channels a weighted sum rests on: 1 / Σα² of non-negative weights, brought to sum to 1; 0 if all are 0.

    k for equal weights, 1 for a single one. Softmax over large logits leaves a handful of thousands.
    """
    total = weights.sum(1)
    share = weights / torch.where(total > 0, total, 1)[:, None]
    return torch.where(total > 0, 1 / share.square().sum(1), 0)


@register_asking
def ablationcam(rec: Recording, *, fill: str = "zero") -> Map:
    """Ablation-CAM: channels weighted by how far the score falls without them, w_k = y - y_k.

    Desai and Ramaswamy 2020 (WACV), whose w_k is (y - y_k) / y. Division by y changes the map's scale alone as long as
    y is positive, and turns the map round when it is not: it is left out. The map is signed, without their ReLU.

    Where the score is affine in the features, y - y_k = Σ_ij g_ij A_ij is exact and no forward is needed. Elsewhere the
    features of one image run on with channels ablated in batches, and only what follows the layer sees the batch.

    Args:
        rec: A recording that knows its model.
        fill: What an ablated channel becomes: "zero", as in the paper, or "mean", its mean over places, for features
            of which zero is no neutral value; it asks what the channel's layout adds, and leaves small weights to
            heads that average. A channel that this leaves as it was has weight 0 exactly.

    Raises:
        ValueError: A recording without a model (unless it is affine), an unknown fill, or means for a head that reads
            nothing but means.
    """
    return weigh(ablationcam_weights(rec, fill=fill), rec.activations)


@torch.no_grad()
def ablationcam_weights(rec: Recording, *, fill: str = "zero") -> Weights:
    """The weights y - y_k of `ablationcam`, in units of the score."""
    features = rec.activations
    low, high = features.amin((2, 3)), features.amax((2, 3))
    if fill == "zero":
        live, filler = (low != 0) | (high != 0), torch.zeros_like(low)
    elif fill == "mean":
        if reads_means(rec):  # rounding noise would be scaled up into a map
            raise ValueError(
                f'fill="mean" changes no score where the head reads the means of {rec.layer!r} alone; use fill="zero"'
            )
        live, filler = low != high, features.mean((2, 3))
    else:
        raise ValueError(f'fill must be "zero" or "mean", got {fill!r}')
    if rec.linear:
        return torch.where(live, (rec.gradients * (features - filler[:, :, None, None])).sum((2, 3)), 0)
    ask.subject_of(rec)
    weights = torch.zeros_like(low)
    size = max(1, FEATURE_BYTES // (features[0].numel() * features.element_size()))
    for row in range(len(features)):
        channels = live[row].nonzero()[:, 0]
        for part in channels.split(size) if len(channels) else ():
            # The last variant is whole: y from the same batch as the y_k, so that what rounding does to both cancels.
            variants = features[row].repeat(len(part) + 1, 1, 1, 1)
            variants[torch.arange(len(part)), part] = filler[row, part, None, None]
            scores = ask.suffix_scores(rec, row, variants).to(features.dtype)
            weights[row, part] = scores[-1] - scores[:-1]
    return weights


def _normalised_to_zero(rec: Recording) -> Baseline:
    preprocess = ask.subject_of(rec).preprocess
    return preprocess.mean if isinstance(preprocess, Normalise) else black
