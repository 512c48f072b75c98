"""What each tensor operation does to the place of a map in the image: the rules that `camcore.placement` follows.

One axis (Dumoulin and Visin 2016, arXiv:1603.07285; Araujo et al. 2019, doi:10.23915/distill.00021): with kernel k,
stride s, padding p and dilation d, output cell i is centred on input cell s·i + d(k - 1)/2 - p. Receptive fields are
taken whole: what padding or the border cuts off moves no centre.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isclose, prod
from typing import Any

import torch


@dataclass(frozen=True)
class Axis:
    """The image's rows, or its columns, in a tensor."""

    dim: int  # counted from the last (-1), as broadcasting does
    inner: int  # entries along it from one cell to the next: 1, or the width for rows that were flattened into tokens
    cells: int
    first: float  # the first cell's centre, in pixels
    step: float


Place = tuple[Axis, Axis]  # rows and columns
Shape = tuple[int, ...]
Moves = Mapping[int, tuple[float, float]]  # dimension -> (a, b): output cell i lies on input cell a + b * i


@dataclass(frozen=True)
class Operand:
    """A tensor as an operation finds it."""

    shape: Shape
    place: Place | None  # None: it lies nowhere, or could not be followed


Given = Mapping[str, Any]  # an operation's arguments by name, tensors as operands
Rule = Callable[[Given, Shape], Place | None]  # where an output of that shape lies


def rule_of(func: Any) -> Rule | None:
    """The rule of an ATen operation, in place or not; None: whatever it gives lies nowhere."""
    name = func._schema.name.removeprefix("aten::").removesuffix("_")
    if name in _RULES:
        return _RULES[name]
    packet = func.overloadpacket
    # out= variants are not tagged themselves
    pointwise = any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
    return _meet if pointwise else None


def _meet(given: Given, out: Shape) -> Place | None:
    """Elementwise: what is broadcast along an axis, and what lies nowhere, has no say."""

    def spans(shape: Shape, place: Place) -> bool:
        return all(-axis.dim <= len(out) and shape[axis.dim] == out[axis.dim] for axis in place)

    operands = [one for one in given.values() if isinstance(one, Operand)]
    return _mean([one.place for one in operands if one.place is not None and spans(one.shape, one.place)])


def _mean(places: Sequence[Place | None]) -> Place | None:
    """Of branches that meet, each weighing alike: its share of the sum depends on the weights and on the image."""
    axes = []
    for same in zip(*(place for place in places if place is not None), strict=True):
        one = same[0]
        for other in same:
            if other != replace(one, first=other.first, step=other.step) or not isclose(other.step, one.step):
                return None
        axes.append(replace(one, first=sum(other.first for other in same) / len(same)))
    return (axes[0], axes[1]) if axes else None


def moved(one: Operand, moves: Moves, out: Shape) -> Place | None:
    """Where an output lies whose cells are counted off along the named dimensions."""
    if one.place is None:
        return None
    axes = []
    for axis in one.place:
        start, scale = moves.get(axis.dim, (0, 1))
        if axis.inner == 1 and axis.cells == one.shape[axis.dim]:
            first, step = axis.first + start * axis.step, scale * axis.step
            axes.append(replace(axis, first=first, step=step, cells=out[axis.dim]))
        elif scale == 1 and out[axis.dim] >= axis.inner * axis.cells:
            axes.append(axis)  # tokens: those of a class come and go, the patches are all there
        else:
            return None
    return axes[0], axes[1]


def _window(given: Given, out: Shape) -> Place | None:
    """Convolution and pooling."""
    kernel = given["weight"].shape[2:] if "weight" in given else given["kernel_size"]
    terms = (given["stride"] or kernel, given["padding"], given.get("dilation", [1]))
    moves: dict[int, tuple[float, float]] = {}
    for index, k in enumerate(kernel):
        s, p, d = (term[index if len(term) > 1 else 0] for term in terms)
        reach = d * (k - 1) / 2 - p
        moves[index - len(kernel)] = (-reach / s, 1 / s) if given.get("transposed") else (reach, s)
    return moved(given.get("input") or given["self"], moves, out)


def _resize(given: Given, out: Shape, *, nearest: bool = False) -> Place | None:
    """Interpolation, pixel shuffles, and adaptive pooling, whose windows are even at least on average."""
    one = given["self"]
    moves: dict[int, tuple[float, float]] = {}
    for dim, scale in ((-2, given.get("scales_h")), (-1, given.get("scales_w"))):
        ratio = 1 / scale if scale else one.shape[dim] / out[dim]
        if nearest and ratio > 1:
            return None  # which of the cells is picked depends on the rounding
        moves[dim] = (ratio / 2 - 0.5, ratio)
        if given.get("align_corners"):
            moves[dim] = (0, (one.shape[dim] - 1) / max(1, out[dim] - 1))
    return moved(one, moves, out)


def _pad(given: Given, out: Shape) -> Place | None:
    before = given["pad" if "pad" in given else "padding"][::2]
    return moved(given["self"], {-1 - index: (-count, 1) for index, count in enumerate(before)}, out)


def _slice(given: Given, out: Shape) -> Place | None:
    dim = _from_last(given["dim"], out)
    start, _, scale = slice(given["start"], given["end"], given["step"]).indices(given["self"].shape[dim])
    return moved(given["self"], {dim: (start, scale)}, out)


def _cat(given: Given, out: Shape) -> Place | None:
    dim, start = _from_last(given["dim"], out), 0
    pieces = []
    for one in given["tensors"]:
        if len(one.shape) == len(out):  # an empty vector goes with anything
            pieces.append((one.shape[dim], moved(one, {dim: (-start, 1)}, out)))
            start += one.shape[dim]
    if any(axis.dim == dim for _, place in pieces for axis in place or ()):
        return max(pieces, key=lambda piece: piece[0])[1]  # the others are its margin, or class tokens
    return _mean([place for _, place in pieces])


def _from_last(dim: int, shape: Shape) -> int:
    return dim - len(shape) if dim >= 0 else dim


def _view(given: Given, out: Shape) -> Place | None:
    """The same entries in the same order: from one cell to the next there are as many as before."""
    shape, place = given["self"].shape, given["self"].place
    if place is None or shape == out:
        return place
    axes = []
    for axis in place:
        between = axis.inner * prod(shape[len(shape) + axis.dim + 1 :])
        for dim in range(-len(out), 0):
            below = prod(out[len(out) + dim + 1 :])
            # a single cell is in no dimension rather than in another
            if axis.cells > 1 and between % below == 0 and between // below * axis.cells <= out[dim]:
                axes.append(replace(axis, dim=dim, inner=between // below))
                break
    return (axes[0], axes[1]) if len(axes) == 2 else None


def _permute(given: Given, out: Shape) -> Place | None:
    if given["self"].place is None:
        return None
    order = [_from_last(dim, out) for dim in given.get("dims", range(len(out)))]
    if "dims" not in given:
        one, other = given.get("dim0", 0), given.get("dim1", -1)
        order[one], order[other] = order[other], order[one]
    rows, columns = (replace(axis, dim=order.index(axis.dim) - len(out)) for axis in given["self"].place)
    return rows, columns


def _drop(given: Given, out: Shape, *, keep: bool = False) -> Place | None:
    """Dimensions summed up, picked from or split; if they are the image's, nothing is left of it."""
    shape, place, dims = given["self"].shape, given["self"].place, given.get("dim")
    gone = [_from_last(dim, shape) for dim in ([dims] if isinstance(dims, int) else dims or range(len(shape)))]
    if place is None or any(axis.dim in gone for axis in place):
        return None
    if keep or given.get("keepdim"):
        return place
    rows, columns = (replace(axis, dim=axis.dim + sum(dim > axis.dim for dim in gone)) for axis in place)
    return rows, columns


def _matmul(given: Given, out: Shape, *, left: str = "self", right: str = "mat2") -> Place | None:
    """The left one's rows are the output's, the right one's columns too; what is summed over lies nowhere."""
    for name, summed in ((left, -1), (right, -2)):
        place = given[name].place
        if place is not None and all(axis.dim != summed for axis in place):
            return place
    return None


def _copy(given: Given, out: Shape) -> Place | None:
    return _meet({"src": given["src"]}, out)


_RULES: dict[str, Rule] = {
    name: rule
    for rule, names in (
        (_window, "convolution avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices"),
        (_resize, "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"),
        (_resize, "_adaptive_avg_pool2d adaptive_max_pool2d pixel_shuffle pixel_unshuffle"),
        (partial(_resize, nearest=True), "upsample_nearest2d _upsample_nearest_exact2d"),
        (_pad, "constant_pad_nd reflection_pad2d replication_pad2d"),
        (_slice, "slice"),
        (_cat, "cat"),
        (_view, "view _unsafe_view _reshape_alias squeeze unsqueeze alias detach"),
        (_permute, "permute transpose t"),
        (_drop, "mean sum amax amin max min var std linalg_vector_norm select unbind"),
        (partial(_drop, keep=True), "split split_with_sizes"),
        (_matmul, "mm bmm"),
        (partial(_matmul, left="mat1", right="mat2"), "addmm"),
        (partial(_matmul, left="batch1", right="batch2"), "baddbmm"),
        (_copy, "copy"),
        # elementwise as far as places go, but not tagged so
        (_meet, "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit_no_training"),
        (_meet, "native_layer_norm native_group_norm _fused_rms_norm native_dropout _softmax _to_copy expand"),
        (_meet, "hardswish _prelu_kernel glu fill zero channel_shuffle native_channel_shuffle"),
    )
    for name in names.split()
}
