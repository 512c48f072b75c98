"""Finding the target layer: the last map of features that the class score depends on, found by one probe."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from camcore.errors import BadInput
from camcore.grid import Grid, infer_grid
from camcore.hooks import KeepGradients, bare, find_layer, hooked
from camcore.placement import trace_placement
from camcore.recording import ZeroGradient, record
from camcore.seeds import generator
from camcore.subject import Classifier

PROBES = 6


@dataclass(frozen=True, kw_only=True)
class _Ran:
    """A layer that ran in the probe."""

    name: str
    output: Tensor
    grid: Grid | None
    key: tuple[int, int]  # storage and version: a block that only passes its last layer's output on has the same key
    weighs: bool  # has weights, and is not made of layers that ran: what it does with its weights it does itself
    projects: bool  # a linear map of tokens: queries, keys or values, each only a part of what attention reads


def with_target_layer(subject: Classifier, *, layer: str | None = None) -> Classifier:
    """The subject with its target layer, its grid and placement filled in; unchanged if it has no map of features.

    The target is the last output that (a) is a map with more than one place, (b) comes before the head (the last layer
    with weights, or the last module that reads its layers' weights without running them, as CLIP's attention pool
    does), (c) has the resolution of the last layer with weights before the head, so that pooling on the way to the head
    does not count, and (d) has a non-zero gradient, which rules out the patches of a ViT's last block: nothing after it
    mixes places, and the class token alone is read. Of several layers that give the same tensor the innermost; of
    tokens not the queries, keys or values, which are parts of what attention reads, but the norm they are made of.

    A picture of noise may leave a live network without a gradient (its last ReLU shut, say), so that several are tried.

    Args:
        subject: A classifier in eval mode.
        layer: The user's choice instead; refused if it cannot be recorded.

    Raises:
        BadInput: There are maps of features, but none has a gradient on any probe: whether the model depends on them
            cannot be told, and a model without maps is not asked about any.
    """
    if layer is not None:
        return _with_named_layer(subject, layer, _probe(subject, 0))
    for number in range(PROBES):
        found, maps = _found(subject, _probe(subject, number))
        if found is not None or not maps:
            return subject if found is None else _placed(replace(subject, target_layer=found.name, grid=found.grid))
    raise BadInput(
        f"{subject.name} has maps of features ({maps[-1].name!r} is the last), and none had a gradient in {PROBES} "
        "pictures of noise; name the target layer with --audit-layer"
    )


def _probe(subject: Classifier, number: int) -> Tensor:
    """Noise: in pixels, in blobs, and in both brighter and darker."""
    draw = generator(0, "target layer", *(() if number == 0 else (str(number),)))
    size = subject.geometry.crop
    if number % 2 == 0:
        noise = torch.rand(1, 3, *size, generator=draw)
    else:
        noise = functional.interpolate(torch.rand(1, 3, 7, 7, generator=draw), size, mode="bilinear")
    return (noise if number < 2 else noise ** (0.2 if number < 4 else 5)).to(subject.device, subject.dtype)


def _found(subject: Classifier, probe: Tensor) -> tuple["_Ran | None", list["_Ran"]]:
    """The target layer by one probe, if it has one; and the layers that it was sought among."""
    ran, score = _trace(subject, probe)
    heads = [index for index, run in enumerate(ran) if run.weighs]
    if not heads or not score.requires_grad:
        return None, []
    before = ran[: heads[-1]]
    weighted = [run.grid for run in before if run.weighs and run.grid is not None]
    if not weighted:
        return None, []
    size = (weighted[-1].height, weighted[-1].width)
    candidates = [run for run in before if run.grid is not None and (run.grid.height, run.grid.width) == size]
    candidates = [run for run in candidates if run.output.requires_grad]
    gradients = torch.autograd.grad(score, [run.output for run in candidates], allow_unused=True)
    live = [
        run
        for run, gradient in zip(candidates, gradients, strict=True)
        if run.grid is not None and gradient is not None and run.grid.fold(gradient).any()
    ]
    if not live:
        return None, candidates
    last = next((run for run in reversed(live) if not run.projects), live[-1])
    return next(other for other in candidates if other.key == last.key), candidates


def _placed(subject: Classifier) -> Classifier:
    return replace(subject, placement=trace_placement(subject))


def _trace(subject: Classifier, probe: Tensor) -> tuple[list[_Ran], Tensor]:
    """Every layer that ran exactly once and gave a tensor, in the order in which they finished, and the top score."""
    ran: list[_Ran] = []
    times: dict[str, int] = {}
    within: set[str] = set()  # what holds a layer with weights that ran

    def keep(name: str, module: nn.Module) -> Any:
        has_weights = next(module.parameters(), None) is not None
        around = [name[:end] for end, letter in enumerate(name) if letter == "."]

        def hook(_module: nn.Module, _args: Any, whole: Any) -> Any:
            times[name] = times.get(name, 0) + 1
            within.update(around if has_weights else ())
            output = whole[0] if isinstance(whole, tuple | list) and whole else whole
            if isinstance(output, Tensor):
                grid = _map_grid(output, subject, probe)
                ran.append(
                    _Ran(
                        name=name,
                        output=output,
                        grid=grid,
                        key=(output.data_ptr(), output._version),
                        weighs=has_weights and name not in within,
                        projects=isinstance(module, nn.Linear) and grid is not None and grid.layout == "tokens",
                    )
                )
            return whole

        return hook

    subject = bare(subject)
    hooks = {name: keep(name, module) for name, module in subject.module.named_modules() if name}
    # The input asks for the gradient, so that a model with frozen parameters can be probed too.
    with torch.inference_mode(False), torch.enable_grad(), KeepGradients(), hooked(subject.module, hooks):
        score = subject.logits(probe.clone().requires_grad_()).max()
    return [run for run in ran if times[run.name] == 1], score


def _map_grid(output: Tensor, subject: Classifier, probe: Tensor) -> Grid | None:
    """How a layer's output folds, if it holds one map per image: windows and captions have batches of their own."""
    return infer_grid(tuple(output.shape), subject.geometry.crop) if output.shape[:1] == probe.shape[:1] else None


def _with_named_layer(subject: Classifier, layer: str, probe: Tensor) -> Classifier:
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple | list) else output)

    inner = bare(subject)
    try:
        find_layer(inner.module, layer)
        with torch.no_grad(), hooked(inner.module, {layer: hook}):
            inner.logits(probe)
        if not seen:
            raise BadInput(f"layer {layer!r} does not run in a forward of {subject.name}; name one that does")
        grid = _map_grid(seen[0], subject, probe)
        if grid is None:
            raise BadInput(
                f"layer {layer!r} of {subject.name} gives {tuple(seen[0].shape)}, which is no map of features"
            )
        named = replace(subject, target_layer=layer, grid=grid)
        record(named, probe)
        return _placed(named)
    except ZeroGradient as problem:
        raise BadInput(str(problem)) from None
    except BadInput:
        raise
    except ValueError as problem:
        raise BadInput(str(problem)) from None
