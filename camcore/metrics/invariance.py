"""How far a map moves when nothing that matters has changed, and whether it goes along when the picture is moved."""

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.grid import Placement
from camcore.maps import is_constant, upsample
from camcore.metrics.correlation import spearman
from camcore.perturbations.shuffling import Order, dealt

Maps = Float[Tensor, "b i j"]
Axes = tuple[slice, slice]
SAMPLED = 32  # pixels a side, at least, in which maps laid over the image are compared


def likeness(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """Spearman's rank correlation of two maps of an image; 0 if only the other is constant: it ranks nothing alike.

    NaN where the first is constant: there is nothing to be like; and where either is not finite, which is no map.

    Reference: the measure of Ghorbani et al. 2019, arXiv:1710.10547, section 2, and of Adebayo et al. 2018.
    """
    vanished = is_constant(other) & ~is_constant(one)
    broken = ~(one.isfinite() & other.isfinite()).flatten(1).all(1)
    return spearman(one.flatten(1), other.flatten(1)).masked_fill(vanished, 0).masked_fill(broken, torch.nan)


def relative_distance(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """‖a - b‖ / (‖a‖ + ‖b‖): 0 for equal maps, 1 for opposite ones, or if one is empty; NaN if both are.

    Unlike a rank correlation it sees a change of scale. Two maps of equal norm with the cosine c lie
    √((1 - c) / 2) apart.
    """
    a, b = one.flatten(1), other.flatten(1)
    # rounding may leave what the triangle inequality does not
    return ((a - b).norm(dim=1) / (a.norm(dim=1) + b.norm(dim=1))).clamp(max=1)


def sensitivity(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """‖Φ(y) - Φ(x)‖ / ‖Φ(x)‖, whose largest value over y near x is max-sensitivity; unbounded, NaN for an empty map.

    Yeh et al. 2019, arXiv:1901.09392, definition 2.1, relative to the map's norm as captum has it.
    """
    a, b = one.flatten(1), other.flatten(1)
    norm = a.norm(dim=1)
    return ((b - a).norm(dim=1) / norm).masked_fill(norm == 0, torch.nan)


def mirror_likeness(
    saliency: Maps, of_mirrored: Maps, size: tuple[int, int], placement: Placement | None = None
) -> Float[Tensor, " b"]:
    """Likeness of the map and the map of the mirrored image, mirrored back.

    The cells of a map need not lie symmetrically in the image, so both maps are laid over the pixels first and compared
    where both lie between cells: beyond the outermost ones a map only goes on as it was.

    Args:
        saliency: Of the image.
        of_mirrored: Of the image with left and right exchanged.
        size: Height and width of the image.
        placement: As for `upsample`.
    """
    rows, columns = between_cells(saliency, size, placement)
    both = slice(max(columns.start, size[1] - columns.stop), min(columns.stop, size[1] - columns.start))
    back = upsample(of_mirrored, size, placement).flip(2)
    return _sampled_likeness(upsample(saliency, size, placement)[:, rows, both], back[:, rows, both])


def translation_likeness(
    saliency: Maps,
    of_moved: Maps,
    size: tuple[int, int],
    placement: Placement | None = None,
    *,
    down: int,
    right: int,
) -> Float[Tensor, " b"]:
    """Likeness of the map and the map of the image moved by so many pixels, moved back.

    Compared where the pixel is in both pictures and lies between cells in both; otherwise as `mirror_likeness`.
    """
    rows, columns = between_cells(saliency, size, placement)
    here, there = [], []
    for inside, by in ((rows, down), (columns, right)):
        start, stop = max(inside.start, inside.start - by), min(inside.stop, inside.stop - by)
        here.append(slice(start, stop))
        there.append(slice(start + by, stop + by))
    before, after = upsample(saliency, size, placement), upsample(of_moved, size, placement)
    return _sampled_likeness(before[:, here[0], here[1]], after[:, there[0], there[1]])


def shuffle_likeness(
    saliency: Maps,
    of_shuffled: Maps,
    order: Order,
    cells: int,
    size: tuple[int, int],
    placement: Placement | None = None,
) -> Float[Tensor, " b"]:
    """Likeness of the map and the map of the image with shuffled patches, its own patches put back.

    Args:
        saliency: Of the image.
        of_shuffled: Of `dealt(images, order, cells)`.
        order: Which patch went where.
        cells: Patches along a side.
        size: Height and width of the image.
        placement: As for `upsample`.
    """
    after = upsample(of_shuffled, size, placement)
    back = dealt(after[:, None], order.argsort(1), cells)[:, 0]
    return _sampled_likeness(upsample(saliency, size, placement), back)


def _sampled_likeness(one: Maps, other: Maps) -> Float[Tensor, " b"]:
    """Likeness on every so many pixels: neighbours differ little, and ranking all of them takes longer than a model."""
    step = max(1, min(one.shape[1:]) // SAMPLED)
    return likeness(one[:, ::step, ::step], other[:, ::step, ::step])


def between_cells(saliency: Maps, size: tuple[int, int], placement: Placement | None = None) -> Axes:
    """The rows and columns of pixels that lie between the outermost cells of a map; all of a map in pixels."""
    if tuple(saliency.shape[1:]) == tuple(size):
        return slice(0, size[0]), slice(0, size[1])
    axes = []
    for cells, pixels, dim in zip(saliency.shape[1:], size, (0, 1), strict=True):
        step = pixels / cells if placement is None else placement.step[dim]
        first = step / 2 - 0.5 if placement is None else placement.first[dim]
        start, last = max(0, -int(-first // 1)), min(pixels - 1, int((first + step * (cells - 1)) // 1))
        axes.append(slice(start, last + 1))
    return axes[0], axes[1]
