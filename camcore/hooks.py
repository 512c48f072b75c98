"""Reaching into a module for the length of a block. The only file that registers hooks; everything is put back."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camcore.subject import Classifier

Hook = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def hooked(module: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Forward hooks by layer name for the length of the block; removed whatever happens inside."""
    with ExitStack() as stack:
        stack.enter_context(as_written())
        for name, hook in hooks.items():
            stack.callback(find_layer(module, name).register_forward_hook(hook).remove)
        yield


@contextmanager
def watched(module: nn.Module, starts: Callable[[str], None], ends: Callable[[str], None]) -> Iterator[None]:
    """Says which layer starts and which ends to run, by name, for the length of the block."""
    with ExitStack() as stack:
        stack.enter_context(as_written())
        for name, layer in module.named_modules():
            before = layer.register_forward_pre_hook(lambda _module, _args, name=name: starts(name))
            stack.callback(before.remove)
            after = layer.register_forward_hook(lambda _module, _args, _output, name=name: ends(name))
            stack.callback(after.remove)
        yield


@contextmanager
def standing_in(module: nn.Module, forwards: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Other forwards in place of layers' own for the length of the block; the layers' hooks are called all the same."""
    with ExitStack() as stack:
        stack.enter_context(as_written())
        for name, forward in forwards.items():
            layer = find_layer(module, name)
            if "forward" in vars(layer):  # somebody else stands in already
                stack.callback(setattr, layer, "forward", vars(layer)["forward"])
            else:
                stack.callback(delattr, layer, "forward")
            layer.forward = forward
        yield


@contextmanager
def as_written() -> Iterator[None]:
    """Compiled modules run their Python for the length of the block: code compiled without hooks would call none."""
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes a second
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient for the length of the block: a graph starts where a hook or the input starts it.

    Unlike `torch.no_grad` around the forward, this outlives a `no_grad` block that ends inside the model.
    """
    # those made under inference_mode could not be asked again
    asked = [parameter for parameter in module.parameters() if parameter.requires_grad and not parameter.is_inference()]
    try:
        for parameter in asked:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_()


class KeepGradients(TorchFunctionMode):
    """While it is entered, nobody switches gradients off: `no_grad` inside a model is for its users, not for us."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let every call through but the one that switches gradients off."""
        if func is torch._C._set_grad_enabled and not args[0]:
            return None
        return func(*args, **(kwargs or {}))


def bare(subject: Classifier) -> Classifier:
    """The subject around the module that its author wrote, out of `torch.compile`, DataParallel and their like.

    A replica per device or a compiled graph has no layer to reach into; the weights are the same tensors.
    """
    module = subject.module
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):  # what torch.compile returns
            module = inner
        else:
            return subject if module is subject.module else replace(subject, module=module)


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


def replace_first(output: Any, tensor: Tensor) -> Any:
    """The output of a layer with the tensor that `first_tensor` finds in it replaced."""
    if isinstance(output, dict):
        key = "logits" if "logits" in output else next(iter(output))
        return type(output)({**output, key: replace_first(output[key], tensor)})
    if isinstance(output, tuple | list):
        items = [replace_first(output[0], tensor), *output[1:]]
        return output._make(items) if hasattr(output, "_make") else type(output)(items)  # a named tuple, or a plain one
    return tensor
