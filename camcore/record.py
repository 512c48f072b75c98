"""One forward, one backward through the suffix: everything a gradient CAM needs.

The only file that registers hooks. Below the target layer nothing asks for a gradient, so no graph is built there: the
hook hands a fresh leaf onward in place of the layer's output, and `torch.autograd.grad` walks from the class score back
to that leaf. No parameter's `.grad` is touched, whether the parameters are frozen or not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from camcore.cost import count
from camcore.grid import Grid, infer_grid
from camcore.images import Images
from camcore.subject import Classifier, check_images, first_tensor

Features = Float[Tensor, "b k i j"]
Edit = Callable[[Tensor], Tensor]  # what the rest of the network sees in place of the features
Hook = Callable[[nn.Module, Any, Any], Any]


class ZeroGradient(ValueError):
    """The class score does not depend on the layer: there is nothing to weigh its features with."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What one forward and one backward through the suffix leave behind, detached and in fp32."""

    images: Images
    logits: Float[Tensor, "b classes"]
    target: Int[Tensor, " b"]
    activations: Features  # A: the layer's output, folded into a map
    gradients: Features  # dy_c/dA
    layer: str


@contextmanager
def hooked(module: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Forward hooks by layer name for the length of the block; removed whatever happens inside."""
    handles = []
    try:
        for name, hook in hooks.items():
            handles.append(find_layer(module, name).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """The submodule of that name.

    Raises:
        ValueError: No such layer; the message names the nearest ones, or else the convolutions nearest the output.
    """
    layers = dict(module.named_modules())
    if name in layers:
        return layers[name]
    near = get_close_matches(name, layers, n=4, cutoff=0.6)
    hint = "did you mean" if near else "convolutions nearest the output:"
    convolutions = [key for key, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    names = ", ".join(repr(key) for key in near or convolutions[:-5:-1])
    raise ValueError(f"no layer {name!r} in {type(module).__name__}; {hint} {names}")


def record(
    subject: Classifier,
    images: Images,
    target: Tensor | None = None,  # (b,), checked below: a user's mistake deserves a message of ours
    *,
    layer: str | None = None,
    behind: Edit | None = None,
) -> Recording:
    """Record activations and gradients at one layer.

    Args:
        subject: A classifier in eval mode.
        images: In [0, 1], before normalisation.
        target: The class each image is explained for; the predicted one if not given.
        layer: Instead of the subject's target layer.
        behind: What the rest of the network sees in place of the layer's features: the wall of arXiv:2404.01964. The
            recorded activations are what the layer gave, before it.

    Raises:
        ValueError: Images outside [0, 1], a missing layer, a layer that runs twice or not at all, a class out of
            range, a model in training mode.
        ZeroGradient: No class score in the batch depends on the layer.
    """
    name = target_layer(subject, layer)
    return record_layers(subject, images, target, layers=(name,), behind=behind)[name]


def record_layers(
    subject: Classifier,
    images: Images,
    target: Tensor | None = None,
    *,
    layers: Sequence[str],
    behind: Edit | None = None,
) -> dict[str, Recording]:
    """Record several layers in the same forward and the same backward; `behind` stands behind each of them."""
    check_images(images)
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
            # From here on the graph is needed; the surrounding no_grad block puts the mode back.
            torch.set_grad_enabled(True)
            raw = first_tensor(output)
            # clone: an in-place ReLU after the layer would rewrite what we kept
            kept[name] = raw.clone() if raw.requires_grad else raw.detach().clone().requires_grad_()
            # a second clone: autograd refuses in-place operations on a leaf
            return replace_first(output, edited(kept[name], behind, grid_of(subject, name, raw)).clone())

        return hook

    def resume(_module: nn.Module, _args: Any, _output: Any) -> None:
        # A forward decorated with no_grad has just put the mode back, and the scores are cast and read after it.
        torch.set_grad_enabled(bool(kept))

    with torch.inference_mode(False), torch.no_grad():
        with hooked(subject.module, {**{name: keep(name) for name in layers}, "": resume}):
            logits = subject.logits(images)
        for name in layers:
            if name not in kept:
                raise ValueError(f"layer {name!r} of {subject.name} does not run in a forward; name one that does")
        chosen = check_target(logits, target)
        if not logits.requires_grad:
            raise ZeroGradient(f"the class scores of {subject.name} are cut off from {', '.join(map(repr, layers))}")
        score = logits.gather(1, chosen[:, None]).sum()
        gradients = torch.autograd.grad(score, [kept[name] for name in layers], allow_unused=True)
        count(backwards=len(images))

    recordings = {}
    for name, gradient in zip(layers, gradients, strict=True):
        grid = grid_of(subject, name, kept[name])
        if gradient is None or not grid.fold(gradient).any():
            raise ZeroGradient(
                f"the class score of {subject.name} does not depend on layer {name!r} (zero gradient everywhere); "
                "choose a layer before the last mixing of places (for a ViT: the last block's first norm)"
            )
        recordings[name] = Recording(
            images=images,
            logits=logits.detach(),
            target=chosen,
            activations=grid.fold(kept[name].detach()).float(),
            gradients=grid.fold(gradient).float(),
            layer=name,
        )
    return recordings


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
    kept: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        raw = first_tensor(output)
        grid = grid_of(subject, name, raw)
        kept.append(grid.fold(raw.detach().clone()).float())
        return replace_first(output, edited(raw, behind, grid))

    with hooked(subject.module, {name: hook}):
        logits = subject.logits(images)
    return kept[0], logits


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


def check_target(logits: Float[Tensor, "b classes"], target: Tensor | None) -> Int[Tensor, " b"]:
    """The class to explain, one per image; the predicted one if not given."""
    if target is None:
        return logits.detach().argmax(1)
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


def replace_first(output: Any, tensor: Tensor) -> Any:
    """The output of a layer with the tensor that `first_tensor` finds in it replaced."""
    if isinstance(output, dict):
        key = "logits" if "logits" in output else next(iter(output))
        return type(output)({**output, key: replace_first(output[key], tensor)})
    if isinstance(output, tuple | list):
        items = [replace_first(output[0], tensor), *output[1:]]
        return output._make(items) if hasattr(output, "_make") else type(output)(items)  # a named tuple, or a plain one
    return tensor
