"""Properties: what is left of the model, and of its surroundings, once a map has been asked for."""

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.conformance import nets
from tests.conformance.adapter import METHODS, Adapter
from tests.conformance.suite import holds_for

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def facts(module: nn.Module, images: Tensor) -> dict[str, Any]:
    """Everything about a model and its input that an explanation must leave as it is, by a readable name."""
    found: dict[str, Any] = {}
    for name, layer in module.named_modules():
        name = name or "the model"
        found[f"the identity of {name}"] = id(layer)
        found[f"hooks on {name}"] = sum(len(getattr(layer, hooks)) for hooks in HOOKS)
        found[f"the mode of {name}"] = layer.training
    for name, tensor in [*module.named_parameters(), *module.named_buffers(), ("the images", images)]:
        found[f"the identity of {name}"] = id(tensor)
        found[f"the values of {name}"] = tensor.detach().clone()
        found[f"requires_grad of {name}"] = tensor.requires_grad
        found[f".grad of {name}"] = None if tensor.grad is None else tensor.grad.clone()
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of the facts that are no longer what they were."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if not _equal(before.get(name, "absent"), after.get(name, "absent"))]


def assert_unchanged(changed: list[str]) -> None:
    if changed:
        shown = ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
        raise AssertionError(f"expected everything as it was, observed {len(changed)} changed: {shown}")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def in_training_loop(method: str) -> nets.Net:
    """A net that somebody is training: one parameter is frozen, one holds a gradient that is still to be used."""
    net = nets.net_for(method, 0)
    net.first.weight.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    return net


@holds_for()
def nothing_is_left_behind(adapter: Adapter, method: str) -> None:
    """Afterwards the model is as it was: hooks, .grad, modes, modules, requires_grad, weights; the images too."""
    net, images = in_training_loop(method), nets.some_images(0)
    before = facts(net, images)
    adapter.explain(method, net, "relu", images, nets.some_classes(0))
    assert_unchanged(changes(before, facts(net, images)))


def breaking_after(forwards: int, run: list[int]) -> Callable[[], None]:
    """What lets so many forwards pass, of the net and of its copies together, and enters each in `run`."""

    def interrupt() -> None:
        run.append(1)
        if len(run) > forwards:
            raise RuntimeError("the forward broke")

    return interrupt


@holds_for()
def nothing_is_left_behind_when_the_forward_breaks(adapter: Adapter, method: str) -> None:
    """An error in the first, second or third forward reaches the caller, and the model is as it was."""
    changed = []
    for forwards in range(3):
        net, images = in_training_loop(method), nets.some_images(0)
        run: list[int] = []
        net.interrupt = breaking_after(forwards, run)
        before = facts(net, images)
        try:
            adapter.explain(method, net, "relu", images, nets.some_classes(0))
        except Exception as error:
            del error  # with it goes the frame that holds the implementation's objects
        else:
            if len(run) <= forwards:
                break  # it runs no more forwards than these
            raise AssertionError(f"expected the error of forward {forwards + 1}, observed none")
        changed += [f"{name} (forward {forwards + 1})" for name in changes(before, facts(net, images))]
    assert_unchanged(changed)


@holds_for()
def the_mode_is_left_as_it_was(adapter: Adapter, method: str) -> None:
    """A model in training mode is refused or explained, and is in training mode afterwards."""
    net, images = nets.net_for(method, 0).train(), nets.some_images(0)
    net.mix.eval()  # one layer that its owner keeps in eval mode
    before = facts(net, images)
    try:
        adapter.explain(method, net, "relu", images, nets.some_classes(0))
    except Exception as refusal:
        del refusal
    assert_unchanged([name for name in changes(before, facts(net, images)) if name.startswith("the mode")])


# Eigen-CAM is blind to the class: it has nothing to refuse.
@holds_for(*(method for method in METHODS if method != "eigencam"))
def a_class_out_of_range_is_refused(adapter: Adapter, method: str) -> None:
    """A class that the model does not have (5 of 5, -1) raises an error that reaches the caller."""
    accepted = []
    for wrong in (nets.CLASSES, -1):
        try:
            found = adapter.explain(
                method, nets.net_for(method, 0), "relu", nets.some_images(0), torch.tensor([0, wrong, 1])
            )
        except Exception as refusal:
            del refusal
            continue
        accepted.append(f"{'a map' if isinstance(found, Tensor) else repr(found)} for class {wrong}")
    if accepted:
        raise AssertionError(f"expected an error, observed {' and '.join(accepted)} of {nets.CLASSES} classes")


@holds_for()
def the_global_random_state_is_untouched(adapter: Adapter, method: str) -> None:
    """The random states of torch, numpy and Python are as they were."""
    net, images, target = nets.net_for(method, 0), nets.some_images(0), nets.some_classes(0)
    adapter.explain(method, net, "relu", images, target)  # what is imported on the first call may draw
    ours = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        # states that nobody comes back to: one that seeds them with its favourite number is caught as well
        torch.manual_seed(271828), np.random.seed(271828), random.seed(271828)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        adapter.explain(method, net, "relu", images, target)
        moved = [
            name
            for name, held in {
                "torch": torch.equal(before[0], torch.get_rng_state()),
                "numpy": bool((before[1] == np.random.get_state()[1]).all()),  # noqa: NPY002
                # beartype, where it is on, draws what to check
                "Python": before[2] == random.getstate() or "beartype" in sys.modules,
            }.items()
            if not held
        ]
    finally:
        torch.set_rng_state(ours[0]), np.random.set_state(ours[1]), random.setstate(ours[2])  # noqa: NPY002
    if moved:
        raise AssertionError(f"expected the random states as they were, observed draws from {', '.join(moved)}")
