"""Where the cells of a map lie in the image: followed through the network, one operation after the other.

A cell lies at the centre of its receptive field. To spread cells evenly (`align_corners=False`) is right for VGG and
for patches. But a convolution of 3 with stride 2 and padding 1 puts cell i at pixel 2i, not at 2i + 0.5, and after five
of those a ResNet's map is drawn half a cell, 15.5 pixels, too far down and to the right.
"""

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from camcore.grid import Grid, Placement
from camcore.hooks import bare, hooked
from camcore.places import Axis, Operand, Place, moved, rule_of
from camcore.recording import grid_of, target_layer
from camcore.seeds import generator
from camcore.subject import Classifier, first_tensor

__all__ = ["Placement", "even_placement", "trace_placement"]


def even_placement(cells: tuple[int, int], image: tuple[int, int]) -> Placement:
    """Each cell in the middle of its even share of the image: what `align_corners=False` means.

    Args:
        cells: Rows and columns of the map.
        image: Height and width in pixels.
    """
    step = (image[0] / cells[0], image[1] / cells[1])
    return Placement(first=(step[0] / 2 - 0.5, step[1] / 2 - 0.5), step=step, source="even")


def trace_placement(subject: Classifier, *, layer: str | None = None) -> Placement:
    """Where the cells of a layer's map lie in an image of the subject's size, found by one forward without gradient.

    Exact through convolution, pooling, padding, slicing, resizing, concatenation and anything elementwise. Where
    branches meet whose centres differ (a pooled shortcut beside a strided convolution), it is their mean. What mixes
    all places (attention, windows, squeeze-and-excitation) has none of its own: a sum or product with it stays where
    its other operand was. A layer that cannot be followed itself is spread evenly, as non-overlapping patches are, and
    the placement says so (`source="even"`).

    Args:
        subject: A classifier in eval mode.
        layer: Instead of the subject's target layer.

    Raises:
        ValueError: No layer, one that does not run or gives no map of features, a model in training mode.
    """
    name = target_layer(subject, layer)
    subject = bare(subject)
    if subject.module.training:
        raise ValueError(f"{subject.name} is in training mode: a forward changes its statistics; call .eval() first")
    size = subject.geometry.crop
    images = torch.rand(1, 3, *size, generator=generator(0, "placement")).to(subject.device, subject.dtype)
    trace = _Trace(images)
    found: list[Placement] = []

    def hook(_module: Any, _args: Any, output: Any) -> None:
        raw = first_tensor(output)
        grid = grid_of(subject, name, raw)
        found.append(_folded(trace.place(raw), grid) or even_placement((grid.height, grid.width), size))

    with torch.inference_mode(False), torch.no_grad(), hooked(subject.module, {name: hook}), trace:
        subject.logits(images)
    if not found:
        raise ValueError(f"layer {name!r} of {subject.name} does not run in a forward; name one that does")
    return found[0]


def _folded(place: Place | None, grid: Grid) -> Placement | None:
    """Of a layer's output, if it was followed and the grid folds it the way the image lies."""
    down, across = {"channels_first": (-2, -1), "channels_last": (-3, -2), "tokens": (-2, -2)}[grid.layout]
    wanted = [(down, grid.width if down == across else 1, grid.height), (across, 1, grid.width)]
    if place is None or [(axis.dim, axis.inner, axis.cells) for axis in place] != wanted:
        return None
    rows, columns = place
    return Placement(first=(rows.first, columns.first), step=(rows.step, columns.step), source="traced")


_Geometry = tuple[int, tuple[int, ...], tuple[int, ...]]  # how a tensor lies in its storage: offset, shape, strides


def _geometry(tensor: Tensor) -> _Geometry:
    return int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()


class _Trace(TorchDispatchMode):
    """Carries places from operation to operation, below autograd, where few and simple ones are left.

    A tensor is known by its memory, not its identity: autograd wraps views anew, and what works in place changes every
    alias. The weak reference keeps the address of a freed storage from being given to another.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: `hooked` has nothing compiled run, and torch would import its compiler, for seconds, to leave it out."""
        return False

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: dict[StorageWeakRef, dict[_Geometry, Place]] = {}
        self._blank: dict[StorageWeakRef, _Geometry] = {}
        height, width = images.shape[-2:]
        self._put(images, (Axis(-2, 1, height, 0.0, 1.0), Axis(-1, 1, width, 0.0, 1.0)))

    def place(self, tensor: Tensor) -> Place | None:
        """Where a tensor lies; None if it lies nowhere or could not be followed."""
        if tensor.layout != torch.strided:
            return None
        views = self._known.get(StorageWeakRef(tensor.untyped_storage()), {})
        return views.get(_geometry(tensor))

    def _put(self, tensor: Tensor, place: Place | None) -> None:
        if place == self.place(tensor):
            return
        views = self._known.setdefault(StorageWeakRef(tensor.untyped_storage()), {})
        if place is None:
            views.clear()  # overwritten, and its aliases with it
        else:
            views[_geometry(tensor)] = place

    def _fill(self, part: Tensor, place: Place) -> None:
        """A tensor made empty and then filled lies where its first part says: padding by hand, or around a circle."""
        storage = StorageWeakRef(part.untyped_storage())
        _, shape, strides = self._blank.pop(storage, (0, (), ()))
        if strides != part.stride():
            return
        start, moves = int(part.storage_offset()), {}
        for dim in sorted(range(-len(shape), 0), key=lambda dim: strides[dim], reverse=True):
            before, start = divmod(start, strides[dim] or 1)
            moves[dim] = (-before, 1)
        whole = moved(Operand(tuple(part.shape), place), moves, tuple(shape))
        if whole is not None:
            self._known[storage][0, shape, strides] = whole

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and note where its outputs lie."""
        kwargs = kwargs or {}
        rule = rule_of(func)
        if rule is None:
            with self:  # in a forward decorated with inference_mode, compositions arrive whole
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
        arguments = func._schema.arguments
        given = {argument.name: argument.default_value for argument in arguments}
        given |= {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
        given = {name: self._operand(value) for name, value in given.items()}  # now: it may work in place
        result = func(*args, **kwargs)
        for output in result if isinstance(result, tuple | list) else (result,):
            if isinstance(output, Tensor) and output.layout == torch.strided:
                place = rule(given, tuple(output.shape)) if rule else None
                self._put(output, place)
                if place is not None and func is torch.ops.aten.copy_.default:
                    self._fill(output, place)
                elif place is None and output.storage_offset() == 0:
                    self._blank.setdefault(StorageWeakRef(output.untyped_storage()), _geometry(output))
        return result

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return Operand(tuple(value.shape), self.place(value))
        return [self._operand(one) for one in value] if isinstance(value, tuple | list) else value
