"""Recordings of one batch under many half-random models, without running again what no change has reached.

Whatever ended before the first use of a tensor that is random cannot know of it: it gave what it gave with all weights
in place. So the outermost modules that ended by then hand out what they gave before. When the change moves further
down, into such a module, that one runs once more, and its parts are kept instead: never more is held than the parts of
the modules around the change.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcore.hooks import bare, find_layer, standing_in
from camcore.images import Images
from camcore.randomise import Execution, Initialise, fresh, randomised, tensors_in
from camcore.recording import Recording, ZeroGradient, record, target_layer
from camcore.subject import Classifier

Stages = frozenset[int]  # of `Execution.stages`
Under = Callable[..., Recording]  # (stages, target=None, draw=0)


def top_down(execution: Execution) -> list[Stages]:
    """The cascade: the last stage, the last two, and so on to all of them.

    Adebayo et al. 2018, arXiv:1810.03292, section 4.1.
    """
    last = len(execution.stages)
    return [frozenset(range(first, last)) for first in reversed(range(last))]


def one_by_one(execution: Execution) -> list[Stages]:
    """Each stage alone, from the last to the first (section 4.1, independent randomisation)."""
    return [frozenset({index}) for index in reversed(range(len(execution.stages)))]


def later_half(execution: Execution) -> Stages:
    """The stages nearer to the output, the middle one among them."""
    return frozenset(range(len(execution.stages) // 2, len(execution.stages)))


def every_stage(execution: Execution) -> Stages:
    """All of them."""
    return frozenset(range(len(execution.stages)))


def spread(steps: Sequence[Stages], most: int) -> list[Stages]:
    """At most so many of the steps, evenly spaced, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


@contextmanager
def half_random(
    subject: Classifier, images: Images, execution: Execution, *, seed: int, initialise: Initialise = fresh, chunk: int
) -> Iterator[Under]:
    """Hands out a function that records the images under the model with some of its stages drawn anew.

    `under(stages, target, draw)` leaves the model as it was recorded until it is called again or the block ends, so
    that a method may ask it; `target` None explains the class that it predicts then; `draw` numbers independent models.
    Going from the output down is cheapest: everything below the first change is given again.

    Args:
        subject: With a target layer, in eval mode.
        images: In [0, 1].
        execution: Of this model. Unless it is certified, every recording is a whole forward.
        seed: Of the random weights.
        initialise: `fresh` or `matched` (`camcore.randomise`).
        chunk: Images per forward of methods that ask again.
    """
    kept = _Kept(bare(subject).module, execution, target_layer(subject, None))
    active: dict[int, ExitStack] = {}
    drawn = 0

    def under(stages: Collection[int], target: Tensor | None = None, draw: int = 0) -> Recording:
        nonlocal drawn
        for index in [index for index in active if draw != drawn or index not in stages]:
            active.pop(index).close()
        drawn = draw
        for index in sorted(set(stages) - set(active)):
            entered = ExitStack()
            stage = execution.stages[index]
            entered.enter_context(randomised(subject, stage, seed=seed, draw=draw, initialise=initialise))
            active[index] = entered
        if not execution.reusable:
            return record(subject, images, target, chunk=chunk)
        with kept.given_again(min((execution.stages[index].first_use for index in stages), default=None)):
            return record(subject, images, target, chunk=chunk)

    def undo() -> None:
        for index in list(active):
            active.pop(index).close()

    with ExitStack() as all_of_it:
        all_of_it.callback(undo)
        yield under


def certified(
    subject: Classifier, images: Images, execution: Execution, steps: Sequence[Stages], *, seed: int
) -> Execution:
    """The execution, marked as reusable if reuse gives what whole forwards give, to the bit, at each of these steps."""
    found = [
        _recorded(subject, images, replace(execution, reusable=reusable), steps, seed=seed)
        for reusable in (True, False)
    ]
    return replace(execution, reusable=all(map(_same, *found)))


def _recorded(
    subject: Classifier, images: Images, execution: Execution, steps: Sequence[Stages], *, seed: int
) -> list[tuple[Tensor, ...] | None]:
    results: list[tuple[Tensor, ...] | None] = []
    with half_random(subject, images, execution, seed=seed, chunk=len(images)) as under:
        target = under(()).target
        for stages in steps:
            try:
                rec = under(stages, target)
            except ZeroGradient:
                results.append(None)
            except Exception:
                # Not what a whole forward would do, or else that one raises it too, where it is asked in earnest
                if not execution.reusable:
                    raise
                results.append(())
            else:
                results.append((rec.logits, rec.activations, rec.gradients))
    return results


def _same(one: tuple[Tensor, ...] | None, other: tuple[Tensor, ...] | None) -> bool:
    if one is None or other is None:
        return one is other
    # random weights may well overflow, and NaN is equal to NaN here
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(0), b.nan_to_num(0)) and torch.equal(a.isnan(), b.isnan())
        for a, b in zip(one, other, strict=True)
    )


@dataclass
class _Kept:
    """What modules gave in earlier forwards of the same images, call by call."""

    module: nn.Module
    execution: Execution
    layer: str
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)  # modules whose output is rewritten after them
    lent: list[tuple[str, Tensor, int]] = field(default_factory=list)  # (module, output, its version when handed out)

    @contextmanager
    def given_again(self, change: int | None) -> Iterator[None]:
        """For one forward: modules that ended before the change hand out what they gave, or keep what they give."""
        names = self.outermost(change)
        self.outputs = {name: given for name, given in self.outputs.items() if name in names}
        forwards = {}
        for name in names:
            if name in self.outputs:
                forwards[name] = partial(self._give, name, iter(list(self.outputs[name])))
            else:
                forwards[name] = partial(self._keep, name, find_layer(self.module, name).forward)
        try:
            with standing_in(self.module, forwards):
                yield
        finally:
            self._forget_rewritten()

    def outermost(self, change: int | None) -> list[str]:
        """Modules all of whose calls ended before the change, not inside another such.

        None of those around the target layer, which must be seen to run, and none that starts after it: the gradient
        has to pass through them.
        """
        calls = self.execution.calls
        end = calls[self.layer][0][1] if self.layer in calls else -1
        limit = end + 1 if change is None else min(change, end + 1)

        def ended(name: str) -> bool:
            around = name == "" or self.layer.startswith(f"{name}.")
            return not around and name in calls and calls[name][-1][1] < limit

        def inside(name: str) -> bool:
            while name := name.rpartition(".")[0]:
                if ended(name):
                    return True
            return False

        return [name for name in calls if ended(name) and not inside(name)]

    def _give(self, name: str, given: Iterator[Any], *_args: Any, **_kwargs: Any) -> Any:
        return self._lend(name, next(given))

    def _keep(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        own = _copied(output) if name in self.rewritten else output
        self.outputs.setdefault(name, []).append(own)
        return output if name in self.rewritten else self._lend(name, output)

    def _lend(self, name: str, output: Any) -> Any:
        if name in self.rewritten:
            return _copied(output)
        self.lent += [(name, tensor, _version(tensor)) for tensor in tensors_in(output)]
        return output

    def _forget_rewritten(self) -> None:
        """An in-place operation after a module has spoiled what was kept of it: from now on, copies are handed out."""
        for name, tensor, version in self.lent:
            if _version(tensor) != version:
                self.rewritten.add(name)
                self.outputs.pop(name, None)
        self.lent.clear()
        for name in [name for name, given in self.outputs.items() if len(given) != len(self.execution.calls[name])]:
            del self.outputs[name]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # those count nothing


def _copied(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    if isinstance(output, dict):
        return type(output)({key: _copied(value) for key, value in output.items()})
    if isinstance(output, tuple | list):
        items = [_copied(item) for item in output]
        return output._make(items) if hasattr(output, "_make") else type(output)(items)
    return output
