"""Weights at random: which stages a model has, in the order in which a forward uses them, and how one is drawn anew.

A stage is what one module uses: its parameters, those of children that it reads without calling them (the output
projection inside an attention), and its running statistics. What a module with parts of its own uses directly (a class
token, a position embedding, a layer scale) is a stage by itself. The order is that of first use in a forward, which
neither registration nor naming promises.

Batch normalisation: its running statistics are drawn anew (mean 0, variance 1) with its stage. They are learned from
the data like any weight, and they fit the weights they were learned with: left alone, they would carry what training
found into a model that should know nothing, and shift random features by the means of others.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from camcore.hooks import bare, watched
from camcore.images import Images
from camcore.seeds import generator
from camcore.subject import Classifier

Initialise = Callable[[str, Tensor, Generator], Tensor]
STATISTICS = ("running_mean", "running_var")
NAMED = 3  # tensors that the name of a stage lists


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is drawn anew together."""

    name: str  # of the module that uses it, or of the tensors where they are not all that the module has
    tensors: tuple[str, ...]  # parameters and running statistics
    first_use: int  # a moment of `Execution.calls`


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What one forward did, its moments numbered from 0."""

    stages: tuple[Stage, ...]  # in the order of first use
    calls: Mapping[str, tuple[tuple[int, int], ...]]  # module -> when each of its calls started and ended
    reusable: bool = False  # `camcore.cascade.certified`: what ran before a change may be given again


@dataclass
class _Trace:
    tensors: Mapping[int, str]  # by id
    moment: int = 0
    running: list[str] = field(default_factory=list)
    started: list[tuple[str, int]] = field(default_factory=list)
    calls: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    uses: dict[str, tuple[int, str]] = field(default_factory=dict)  # tensor -> first use, by which module
    parents: set[str] = field(default_factory=set)  # modules that called another

    def starts(self, name: str) -> None:
        self.parents.update(self.running[-1:])
        self.running.append(name)
        self.started.append((name, self.tick()))

    def ends(self, name: str) -> None:
        self.running.pop()
        self.calls.setdefault(name, []).append((self.started.pop()[1], self.tick()))

    def used(self, tensor: Tensor) -> None:
        name = self.tensors.get(id(tensor))
        if name is not None and self.running and name not in self.uses:
            self.uses[name] = (self.moment, self.running[-1])

    def tick(self) -> int:
        self.moment += 1
        return self.moment - 1


class _Uses(TorchFunctionMode):
    """Says which tensors are read. Asking one for its shape or its type is no use of it."""

    def __init__(self, trace: _Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if next(tensors_in(result), None) is not None:
            for tensor in tensors_in((args, kwargs)):
                self.trace.used(tensor)
            self.trace.tick()
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in what a module or an operation was given or returned, however nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


@torch.no_grad()
def execution(subject: Classifier, images: Images) -> Execution:
    """Run the model once and note what it used when.

    Args:
        subject: In eval mode.
        images: One is enough.

    Returns:
        Every parameter and running statistic is in exactly one stage. One that no operation was seen to read (a module
        that does not run in eval mode, or scripted code, which cannot be watched) belongs to the nearest module around
        it that ran, from the moment it started.
    """
    subject = bare(subject)
    tracked = dict(_tracked(subject.module))
    trace = _Trace({id(tensor): name for name, tensor in tracked.items()})
    with watched(subject.module, trace.starts, trace.ends), _Uses(trace):
        subject.logits(images)
    groups: dict[tuple[str, int], list[str]] = {}
    for name in tracked:
        moment, user = trace.uses.get(name) or _unseen(name, trace)
        # a module without parts is one stage; what one with parts uses here and there is a stage each
        alone = user not in trace.parents and user != ""
        groups.setdefault((user, -1 if alone else moment), []).append(name)
    stages = [
        Stage(
            name=_named(user, names, tracked),
            tensors=tuple(names),
            first_use=min((trace.uses.get(name) or _unseen(name, trace))[0] for name in names),
        )
        for (user, _), names in groups.items()
    ]
    return Execution(
        stages=tuple(sorted(stages, key=lambda stage: stage.first_use)),
        calls={name: tuple(calls) for name, calls in trace.calls.items()},
    )


def _tracked(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, tied ones once, and running statistics, by name; whole numbers are nobody's weights."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and (isinstance(tensor, nn.Parameter) or _last(name) in STATISTICS):
            yield name, tensor


def _unseen(name: str, trace: _Trace) -> tuple[int, str]:
    around = name
    while around := around.rpartition(".")[0]:
        if around in trace.calls:
            break
    return trace.calls[around][0][0], around


def _named(user: str, names: Collection[str], tracked: Collection[str]) -> str:
    if user and {name for name in tracked if name.startswith(f"{user}.")} == set(names):
        return user
    listed = ", ".join(list(names)[:NAMED])
    return listed if len(names) <= NAMED else f"{listed} and {len(names) - NAMED} more"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def fresh(name: str, tensor: Tensor, draws: Generator) -> Tensor:
    """As before training: He et al. 2015 (arXiv:1502.01852, eq. 10) for weights, 1 and 0 for norms, 0 for biases.

    What has no convention (tokens, position embeddings, bias tables, layer scales) is normal with the mean and standard
    deviation of its present values.
    """
    last = _last(name)
    if last in STATISTICS:
        return torch.full(tensor.shape, float(last == "running_var"))
    if last.endswith("bias"):
        return torch.zeros(tensor.shape)
    if last.endswith("weight"):
        if tensor.ndim < 2:
            return torch.ones(tensor.shape)
        return torch.randn(tensor.shape, generator=draws) * (2 / max(1, tensor[0].numel())) ** 0.5
    return matched(name, tensor, draws)


def matched(name: str, tensor: Tensor, draws: Generator) -> Tensor:
    """Normal with the mean and standard deviation of the present values: what is where is lost, the scale is not.

    Where all values are equal, as a single one is, the spread is their size; where they are 0, as of a token that was
    not trained, 0.02. Variances are kept positive.
    """
    values = tensor.detach().float().cpu()
    mean, spread = float(values.mean()), float(values.std(correction=0))
    spread = spread or abs(mean) or 0.02
    drawn = mean + spread * torch.randn(tensor.shape, generator=draws)
    return drawn.abs() if _last(name) == "running_var" else drawn


@contextmanager
def randomised(
    subject: Classifier, stage: Stage, *, seed: int, draw: int = 0, initialise: Initialise = fresh
) -> Iterator[None]:
    """One stage of the model drawn anew for the length of the block; then it has its own tensors back, to the bit.

    The generator is derived from the seed, the draw and the stage's name: two stages of one shape differ, and a stage
    is the same whatever else is random. Parameters stay the objects they are; only what they hold is exchanged.
    """
    tensors = dict(_tracked(bare(subject).module))
    draws = generator(seed, "randomise", str(draw), stage.name)
    owned = [(tensors[name], tensors[name].data) for name in stage.tensors]
    try:
        for name, (tensor, own) in zip(stage.tensors, owned, strict=True):
            tensor.data = initialise(name, own, draws).to(own).contiguous(memory_format=_format_of(own))
        yield
    finally:
        for tensor, own in owned:
            tensor.data = own


def _format_of(tensor: Tensor) -> torch.memory_format:
    last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
