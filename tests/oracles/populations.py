"""Populations whose mean is known, and what a gambler earns on them when everybody looks after every value."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camcore.statistics.capital import log_capital

Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Population:
    """Independent draws with a known mean inside known bounds."""

    draw: Draw
    mean: float
    bounds: tuple[float, float] = (0.0, 1.0)


def _yes(p: float) -> Draw:
    return lambda rng, shape: (rng.random(shape) < p).astype(float)


def _difference_of_verdicts(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Right and wrong answers of two models on the same images: mostly equal."""
    return rng.choice([-1.0, 0.0, 1.0], size=shape, p=[0.1, 0.8, 0.1])


POPULATIONS = {
    "Bernoulli(0.5)": Population(draw=_yes(0.5), mean=0.5),
    "Bernoulli(0.1)": Population(draw=_yes(0.1), mean=0.1),
    "Bernoulli(0.02)": Population(draw=_yes(0.02), mean=0.02),
    "uniform": Population(draw=lambda rng, shape: rng.random(shape), mean=0.5),
    "beta(0.1, 0.1)": Population(draw=lambda rng, shape: rng.beta(0.1, 0.1, shape), mean=0.5),
    "99 % zeros, 1 % uniform": Population(
        draw=lambda rng, shape: (rng.random(shape) < 0.01) * rng.random(shape), mean=0.005
    ),
    "difference of two uniforms": Population(
        draw=lambda rng, shape: rng.random(shape) - rng.random(shape), mean=0.0, bounds=(-1.0, 1.0)
    ),
    "difference of two verdicts": Population(draw=_difference_of_verdicts, mean=0.0, bounds=(-1.0, 1.0)),
}


def evidence(
    values: NDArray[np.float64], m: float, bounds: tuple[float, float], *, chunk: int = 100
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Best log capital so far, after every value, against "mean <= m" and against "mean >= m": two [repetitions, n]."""
    x = (values - bounds[0]) / (bounds[1] - bounds[0])
    m = (m - bounds[0]) / (bounds[1] - bounds[0])
    looks = np.arange(1, x.shape[-1] + 1)
    parts = np.split(x, range(chunk, len(x), chunk))
    above = np.concatenate([log_capital(part, m, looks) for part in parts])
    below = np.concatenate([log_capital(1 - part, 1 - m, looks) for part in parts])
    return np.maximum.accumulate(above, axis=-1), np.maximum.accumulate(below, axis=-1)


def first(reached: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Index of the first True in each row; the last index where there is none, for who gives up there."""
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1), reached.shape[-1] - 1)
