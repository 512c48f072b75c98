"""What a run asks of the subject, counted in images: forwards, backwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(kw_only=True)
class Cost:
    """Images sent forwards through the subject, and backwards through (a suffix of) it."""

    forwards: int = 0
    backwards: int = 0


_meters: ContextVar[tuple[Cost, ...]] = ContextVar("_meters", default=())


@contextmanager
def metered() -> Iterator[Cost]:
    """Count what is asked of any subject inside the block; blocks nest, and each counts everything inside it."""
    cost = Cost()
    token = _meters.set((*_meters.get(), cost))
    try:
        yield cost
    finally:
        _meters.reset(token)


def count(*, forwards: int = 0, backwards: int = 0) -> None:
    """Add to every open meter. Called where the subject is asked, and nowhere else."""
    for cost in _meters.get():
        cost.forwards += forwards
        cost.backwards += backwards
