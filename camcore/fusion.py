"""Layer-CAM over several layers: shallow maps scaled up, then the maximum of all, place by place.

Jiang et al. 2021, doi:10.1109/TIP.2021.3089943: the maps of one layer are `camcore.cam.layercam`; those of shallow
layers are scaled by tanh(γ M / max M) with γ = 2, since most of their places lie far below the largest, and the maps of
all layers are brought to one size and fused by their elementwise maximum.

Others differ: pytorch-grad-cam scales nothing and takes the mean of the layers' min-maxed maps; torchcam takes the
maximum, of maps of which every one, shallow or deep, is scaled by the tanh, after min-max.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.cam.gradients import layercam
from camcore.grid import Placement
from camcore.maps import rectify, upsample
from camcore.placement import trace_placement
from camcore.recording import Recording


def scale_shallow(saliency: Float[Tensor, "b i j"], *, gamma: float = 2.0) -> Float[Tensor, "b i j"]:
    """tanh(γ M / max M) of each map M, rectified: from 0 to tanh γ. A map without anything above 0 becomes 0.

    Args:
        saliency: Signed maps; each is scaled by its own maximum.
        gamma: How far small values are raised; the paper's 2 takes the largest to 0.96 and a tenth of it to 0.20.

    Raises:
        ValueError: A gamma that is not positive.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    return torch.tanh(gamma * _to_one(saliency))


def fuse(
    maps: Sequence[Float[Tensor, "b _i _j"]],
    size: Sequence[int],
    placements: Sequence[Placement | None] | None = None,
) -> Float[Tensor, "b h w"]:
    """The elementwise maximum of several layers' maps, each upsampled to the size (`camcore.maps.upsample`).

    A maximum compares: bring the maps to one scale first.

    Args:
        maps: One batch of maps per layer, of the same images.
        size: Height and width in pixels.
        placements: Where the cells of each layer's maps lie; None, for all or for one: spread evenly.

    Raises:
        ValueError: No maps, another number of placements than of maps, or of images in one layer than in another.
    """
    placements = [None] * len(maps) if placements is None else placements
    if not maps or len(placements) != len(maps):
        raise ValueError(
            f"fuse needs the maps of one layer or more and a placement (or None) for each, got {len(maps)} maps and "
            f"{len(placements)} placements"
        )
    if len({len(saliency) for saliency in maps}) > 1:
        raise ValueError(
            f"the maps to fuse must be of the same images, got batches of {[len(saliency) for saliency in maps]}"
        )
    fused = upsample(maps[0], size, placements[0])
    for saliency, placement in zip(maps[1:], placements[1:], strict=True):
        fused = torch.maximum(fused, upsample(saliency, size, placement))
    return fused


def layercam_fused(
    recordings: Mapping[str, Recording], size: Sequence[int], *, shallow: Collection[str], gamma: float = 2.0
) -> Float[Tensor, "b h w"]:
    """Layer-CAM of several layers in one map, from 0 to at most 1.

    Deep maps are rectified and divided by their maximum, shallow ones scaled by `scale_shallow`, each image by itself
    and at its layer's resolution: both are then below or at 1, and the scale of a layer's gradients decides nothing.

    Args:
        recordings: By layer, from `camcore.recording.record_layers`: however many, they cost one forward and one
            backward.
        size: Height and width in pixels.
        shallow: Which of the layers are; the paper's are those of the first three of five stages of VGG-16.
        gamma: As in `scale_shallow`.

    Raises:
        ValueError: No recordings, or a shallow layer that was not recorded.
    """
    unknown = sorted(set(shallow) - set(recordings))
    if unknown or not recordings:
        raise ValueError(
            f"shallow layers {unknown} are not among the recorded {sorted(recordings)}; "
            "name them in record_layers(..., layers=...) too"
        )
    maps = [
        scale_shallow(layercam(rec), gamma=gamma) if layer in shallow else _to_one(layercam(rec))
        for layer, rec in recordings.items()
    ]
    return fuse(maps, size, [_placement(rec) for rec in recordings.values()])


def _placement(rec: Recording) -> Placement | None:
    """As recorded for a target layer, else traced: a forward of one image per layer, and no gradient."""
    if rec.placement is not None or rec.subject is None:
        return rec.placement
    return trace_placement(rec.subject, layer=rec.layer)


def _to_one(saliency: Float[Tensor, "b i j"]) -> Float[Tensor, "b i j"]:
    """Rectified, each map's maximum brought to 1; a map without anything above 0 stays 0."""
    positive = rectify(saliency)
    peak = positive.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, positive / peak, 0)
