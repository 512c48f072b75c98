"""One forward, one backward through the suffix: everything a gradient CAM needs.

Below the target layer nothing asks for a gradient, so no graph is built there: a hook hands a fresh leaf onward in
place of the layer's output, and `torch.autograd.grad` walks from the class score back to that leaf. No parameter's
`.grad` is touched, whether the parameters are frozen or not.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from camcore.cost import count
from camcore.grid import Grid, Placement, infer_grid
from camcore.hooks import Hook, KeepGradients, bare, frozen, hooked, replace_first
from camcore.images import Images
from camcore.subject import Classifier, at_least_fp32, check_images, first_tensor

Features = Float[Tensor, "b k i j"]
Edit = Callable[[Tensor], Tensor]  # what the rest of the network sees in place of the features


class ZeroGradient(ValueError):
    """The class score does not depend on the layer: there is nothing to weigh its features with."""


# a batch of images without a gradient is recorded as zeros, as the same images are in a batch with others
_may_be_zero: ContextVar[bool] = ContextVar("zero gradients are recorded", default=False)


@contextmanager
def zero_gradients_recorded() -> Iterator[None]:
    """Inside, a gradient that is zero for all images of a batch is recorded, and not an error.

    For measures whose numbers must not depend on which images share a batch: who explains a single picture is better
    served by an error that says why its map would be empty.
    """
    before = _may_be_zero.set(True)
    try:
        yield
    finally:
        _may_be_zero.reset(before)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What one forward and one backward through the suffix leave behind, detached and in fp32 (fp64 stays fp64).

    The explained score is the logit of `target`, less that of `against` where there is one. What follows the gradients
    is for methods that ask the model again (`camcore.ask`); a recording made by hand may leave it out.
    """

    images: Images
    logits: Float[Tensor, "b classes"]
    target: Int[Tensor, " b"]
    activations: Features  # A: the layer's output, folded into a map
    gradients: Features  # of the explained score, with respect to A
    layer: str
    against: Int[Tensor, " b"] | None = None
    placement: Placement | None = None  # where the cells lie in the image, if the layer is the subject's target layer
    subject: Classifier | None = None
    behind: Edit | None = None  # stands behind the layer whenever the model is asked again
    linear: bool = False  # the score is affine in A, so that one gradient says what any change of A does
    chunk: int | None = None  # images per forward when the model is asked again; None: measured


def record(
    subject: Classifier,
    images: Images,
    target: Tensor | None = None,  # (b,), checked below: a user's mistake deserves a message of ours
    *,
    against: Tensor | None = None,
    layer: str | None = None,
    behind: Edit | None = None,
    chunk: int | None = None,
) -> Recording:
    """Record activations and gradients at one layer.

    Args:
        subject: A classifier in eval mode. Wrapped in `torch.compile` or DataParallel, the module inside is recorded.
        images: In [0, 1], before normalisation.
        target: The class each image is explained for; the predicted one if not given.
        against: A class each is contrasted with: what speaks for the target rather than for this one (y_c - y_d).
        layer: Instead of the subject's target layer.
        behind: What the rest of the network sees in place of the layer's features: the wall of arXiv:2404.01964. The
            recorded activations are what the layer gave, before it.
        chunk: Images per forward of methods that ask the model again; measured when first needed, if not given.

    Raises:
        ValueError: Images outside [0, 1], a missing layer, a layer that runs twice or not at all, a class out of
            range, a model in training mode.
        ZeroGradient: No class score in the batch depends on the layer.
    """
    name = target_layer(subject, layer)
    return record_layers(subject, images, target, against=against, layers=(name,), behind=behind, chunk=chunk)[name]


def record_layers(
    subject: Classifier,
    images: Images,
    target: Tensor | None = None,
    *,
    against: Tensor | None = None,
    layers: Sequence[str],
    behind: Edit | None = None,
    chunk: int | None = None,
) -> dict[str, Recording]:
    """Record several layers in the same forward and the same backward; `behind` stands behind each of them."""
    check_images(images)
    wrapped, subject = subject, bare(subject)
    if subject.module.training:
        raise ValueError(f"{subject.name} is in training mode: its scores depend on the batch; call .eval() first")
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if name in kept:
                raise ValueError(
                    f"layer {name!r} of {subject.name} runs more than once in a forward, so its map is not defined; "
                    f"name the block around it, for example {name.rpartition('.')[0]!r}"
                )
            if (
                not torch.is_grad_enabled()
            ):  # inside a no_grad block of the model's own, which puts the mode back itself
                torch.set_grad_enabled(True)
            if not kept:
                suffix.enter_context(KeepGradients())
            raw = first_tensor(output)
            if len(raw) != len(images):
                raise ValueError(
                    f"layer {name!r} of {subject.name} gives {len(raw)} maps for {len(images)} images (windows of "
                    "attention?); name the block around it"
                )
            # clone: an in-place ReLU after the layer would rewrite what we kept
            kept[name] = raw.clone() if raw.requires_grad else raw.detach().clone().requires_grad_()
            # a second clone: autograd refuses in-place operations on a leaf
            return replace_first(output, edited(kept[name], behind, grid_of(subject, name, raw)).clone())

        return hook

    with torch.inference_mode(False), torch.enable_grad(), frozen(subject.module):
        with ExitStack() as suffix, hooked(subject.module, {name: keep(name) for name in layers}):
            logits = subject.logits(images.detach())
        for name in layers:
            if name not in kept:
                raise ValueError(f"layer {name!r} of {subject.name} does not run in a forward; name one that does")
        chosen = logits.detach().argmax(1) if target is None else check_target(logits, target)
        other = None if against is None else check_target(logits, against)
        if not logits.requires_grad:
            raise ZeroGradient(f"the class scores of {subject.name} are cut off from {', '.join(map(repr, layers))}")
        score = explained(logits, chosen, other).sum()
        gradients = torch.autograd.grad(score, [kept[name] for name in layers], allow_unused=True)
        count(backwards=len(images))

    recordings = {}
    for name, gradient in zip(layers, gradients, strict=True):
        grid = grid_of(subject, name, kept[name])
        gradient = torch.zeros_like(kept[name]) if gradient is None else gradient
        if not _may_be_zero.get() and not grid.fold(gradient).any():
            raise ZeroGradient(
                f"the class score of {subject.name} does not depend on layer {name!r} (zero gradient everywhere); "
                "choose a layer before the last mixing of places (for a ViT: the last block's first norm)"
            )
        recordings[name] = Recording(
            images=images,
            logits=logits.detach(),
            target=chosen,
            against=other,
            activations=at_least_fp32(grid.fold(kept[name].detach())),
            gradients=at_least_fp32(grid.fold(gradient)),
            layer=name,
            placement=subject.placement if name == subject.target_layer else None,
            subject=wrapped,
            behind=behind,
            linear=is_affine(logits, kept[name]),
            chunk=chunk,
        )
    return recordings


def explained(
    logits: Float[Tensor, "n classes"], target: Int[Tensor, " n"], against: Int[Tensor, " n"] | None
) -> Float[Tensor, " n"]:
    """The score that is explained: y_c, or y_c - y_d."""
    score = logits.gather(1, target[:, None])[:, 0]
    return score if against is None else score - logits.gather(1, against[:, None])[:, 0]


# What autograd calls operations that are affine in their one operand that depends on the features (weights are frozen).
_AFFINE = {
    *("Addmm", "Mm", "Convolution", "MkldnnConvolution", "Mean", "Sum", "AvgPool2D", "AdaptiveAvgPool2D", "Clone"),
    *("MkldnnAdaptiveAvgPool2D", "ToCopy", "View", "UnsafeView", "ReshapeAlias", "T", "Transpose", "Permute", "Select"),
    *("Slice", "Squeeze", "Unsqueeze", "Expand", "Where"),
}


def is_affine(logits: Tensor, features: Tensor) -> bool:
    """Whether nothing but affine operations lie between a layer's features and the logits, read off the graph.

    Conservative: an operation that is not known to be affine, or has two operands that depend on the features, is not.
    """
    ends = {features.grad_fn, None}
    todo, seen = [logits.grad_fn], set()
    while todo:
        node = todo.pop()
        if node in ends or node in seen or node is None or node.name().endswith("AccumulateGrad"):
            continue
        seen.add(node)
        before = [operand for operand, _ in node.next_functions if operand is not None]
        if node.name().partition("Backward")[0] not in _AFFINE or len(before) > 1:
            return False
        todo += before
    return True


@torch.no_grad()
def features(subject: Classifier, images: Images, *, layer: str | None = None) -> Features:
    """What the layer gives, folded into a map; no gradient."""
    return run_behind(subject, images, lambda activations: activations, layer=layer)[0]


def run_behind(
    subject: Classifier, images: Images, behind: Edit, *, layer: str | None = None
) -> tuple[Features, Float[Tensor, "b classes"]]:
    """The layer's features, and the class scores when the rest of the network sees `behind(features)` instead.

    Differentiable if the images ask for it.
    """
    name = target_layer(subject, layer)
    subject = bare(subject)
    kept: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        raw = first_tensor(output)
        grid = grid_of(subject, name, raw)
        kept.append(at_least_fp32(grid.fold(raw.detach().clone())))
        return replace_first(output, edited(raw, behind, grid))

    with hooked(subject.module, {name: hook}):
        logits = subject.logits(images)
    return kept[0], logits


@torch.no_grad()
def run_suffix(
    subject: Classifier, image: Float[Tensor, "1 3 h w"], variants: Float[Tensor, "n k i j"], *, layer: str
) -> Float[Tensor, "n classes"]:
    """The class scores when the rest of the network sees each of the variants in place of one image's features.

    The one image goes through the prefix and the variants through the suffix, so the batch grows inside the network;
    what was kept from before the layer (a residual) is broadcast. A network that cannot bear that gets the image n
    times.
    """
    subject = bare(subject)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        raw = first_tensor(output)
        grid = grid_of(subject, layer, raw)
        whole = raw.expand(len(variants), *raw.shape[1:])
        # clone: an in-place ReLU after the layer would rewrite the caller's variants
        return replace_first(output, edited(whole, lambda _: variants.to(raw.dtype), grid).clone())

    for images in (image, image.expand(len(variants), -1, -1, -1)):
        try:
            with hooked(subject.module, {layer: hook}):
                logits = subject.logits(images)
        except RuntimeError as problem:
            if len(images) == len(variants) or isinstance(problem, torch.OutOfMemoryError):
                raise
            continue
        if len(logits) == len(variants):
            return logits
    raise ValueError(f"{subject.name} gives {len(logits)} rows of scores for {len(variants)} variants of {layer!r}")


def target_layer(subject: Classifier, layer: str | None) -> str:
    """The named layer, or else the subject's; refuses a subject that has none."""
    name = layer or subject.target_layer
    if name is None:
        raise ValueError(f"{subject.name} has no layer whose output is a map of features; name one")
    return name


def grid_of(subject: Classifier, name: str, raw: Tensor) -> Grid:
    """How this layer's output folds: known for the target layer, inferred from the shape for any other."""
    if name == subject.target_layer and subject.grid is not None:
        return subject.grid
    grid = infer_grid(tuple(raw.shape), subject.geometry.crop)
    if grid is None:
        raise ValueError(
            f"layer {name!r} of {subject.name} gives {tuple(raw.shape)}, which is no map of features of a "
            f"{subject.geometry.crop[0]}x{subject.geometry.crop[1]} image"
        )
    return grid


def check_target(logits: Float[Tensor, "b classes"], target: Tensor) -> Int[Tensor, " b"]:
    """The classes, one per image, on the logits' device.

    Raises:
        ValueError: Not one class per image, or one that the model does not have.
    """
    if target.shape != logits.shape[:1]:
        raise ValueError(
            f"target must hold one class per image, got shape {tuple(target.shape)} for {len(logits)} images"
        )
    if target.min() < 0 or target.max() >= logits.shape[1]:
        raise ValueError(
            f"target {target.tolist()} holds a class out of range; the model has {logits.shape[1]} classes, "
            f"numbered 0 to {logits.shape[1] - 1}"
        )
    return target.to(logits.device)


def edited(raw: Tensor, edit: Edit | None, grid: Grid) -> Tensor:
    """The layer's output with its features edited."""
    return raw if edit is None else grid.unfold(edit(grid.fold(raw)), raw)
