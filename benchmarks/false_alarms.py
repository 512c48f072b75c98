"""How often the intervals err, how many values they ask for, how wide they are: the tables of docs/statistics.md.

Run from the checkout: `python -m benchmarks.false_alarms [repetitions]` (2000 by default; a minute on one core).
"""

import sys
from collections.abc import Callable
from math import ceil, floor, log

import numpy as np
from numpy.typing import NDArray

from camcore.statistics import clopper_pearson, confidence_sequence, simultaneous_level
from tests.oracles.betting import plug_in_capitals, scanned_interval
from tests.oracles.populations import POPULATIONS, evidence, first

LEVEL, N = 0.95, 500
ALONE = log(2 / (1 - LEVEL))
FAMILY = 20
TOGETHER = log(2 / (1 - simultaneous_level(LEVEL, FAMILY)))


def percent(count: int, of: int) -> str:
    """A rate with its exact 95 % interval."""
    rate = clopper_pearson(int(count), of, level=0.95)
    return f"{100 * rate.point:.2f} [{100 * rate.low:.2f}, {100 * rate.high:.2f}]"


def print_false_alarms(repetitions: int) -> None:
    columns = ["missed at some look", "missed when stopped", "false PASS", "false FAIL", f"false PASS in {FAMILY}"]
    print("| population | " + " | ".join(columns) + " |")
    print("|---|---|---|---|---|---|")
    for seed, (name, population) in enumerate(POPULATIONS.items()):
        values = population.draw(np.random.default_rng(seed), (repetitions, N))
        above, below = evidence(values, population.mean, population.bounds)
        ever = np.maximum(above, below)
        margin = population.mean + 0.03 * (population.bounds[1] - population.bounds[0])
        stop = first(np.maximum(*evidence(values, margin, population.bounds)) >= ALONE)
        families = above[: repetitions // FAMILY * FAMILY, -1].reshape(-1, FAMILY)
        counts = [
            percent((ever[:, -1] >= ALONE).sum(), repetitions),
            percent((np.take_along_axis(ever, stop[:, None], axis=-1) >= ALONE).sum(), repetitions),
            percent((above[:, -1] >= ALONE).sum(), repetitions),
            percent((below[:, -1] >= ALONE).sum(), repetitions),
            percent((families >= TOGETHER).any(axis=-1).sum(), len(families)),
        ]
        print(f"| {name} | " + " | ".join(counts) + " |", flush=True)


def print_power(repetitions: int, longest: int = 4000) -> None:
    rng = np.random.default_rng(0)

    def yes(p: float) -> Callable[[], NDArray[np.float64]]:
        return lambda: (rng.random((repetitions, longest)) < p).astype(float)

    def spread(mean: float, sd: float) -> Callable[[], NDArray[np.float64]]:
        return lambda: np.clip(rng.normal(mean, sd, (repetitions, longest)), -1, 1)

    unit, signed = (0.0, 1.0), (-1.0, 1.0)
    above = [
        ("rate 0.55, margin 0.50", yes(0.55), 0.5, unit),
        ("rate 0.60, margin 0.50", yes(0.6), 0.5, unit),
        ("rate 0.70, margin 0.50", yes(0.7), 0.5, unit),
        ("rate 0.95, margin 0.80", yes(0.95), 0.8, unit),
        ("rate 1.00, margin 0.95", yes(1.0), 0.95, unit),
        ("rate 0.00, margin 0.05 (decides FAIL)", yes(0.0), 0.05, unit),
        ("difference 0.02, sd 0.10, margin 0", spread(0.02, 0.1), 0.0, signed),
        ("difference 0.05, sd 0.20, margin 0", spread(0.05, 0.2), 0.0, signed),
        ("difference 0.10, sd 0.20, margin 0.05", spread(0.1, 0.2), 0.05, signed),
        ("difference 0.20, sd 0.40, margin 0.05", spread(0.2, 0.4), 0.05, signed),
    ]
    within = [
        ("equivalence: 0 exactly, band 0.05", spread(0.0, 0.0), 0.05, signed),
        ("equivalence: difference 0, sd 0.05, band 0.05", spread(0.0, 0.05), 0.05, signed),
        ("equivalence: difference 0, sd 0.20, band 0.05", spread(0.0, 0.2), 0.05, signed),
        ("equivalence: difference 0, sd 0.20, band 0.10", spread(0.0, 0.2), 0.1, signed),
    ]
    print(f"\n| effect | alone: half | alone: nine of ten | in {FAMILY}: half | in {FAMILY}: nine of ten |")
    print("|---|---|---|---|---|")
    for name, draw, margin, bounds in above:
        print_stops(name, np.maximum(*evidence(draw(), margin, bounds)))
    for name, draw, margin, bounds in within:
        values = draw()
        print_stops(name, np.minimum(evidence(values, -margin, bounds)[0], evidence(values, margin, bounds)[1]))


def print_stops(name: str, best: NDArray[np.float64]) -> None:
    """One row: after how many values half of the runs, and nine of ten, have decided."""
    cells = []
    for riches in (ALONE, TOGETHER):
        reached = best >= riches
        stops = np.where(reached[:, -1], first(reached) + 1.0, np.inf)
        cells += [np.quantile(stops, share, method="higher") for share in (0.5, 0.9)]
    print(
        f"| {name} | " + " | ".join(f"{n:.0f}" if n < np.inf else f"> {best.shape[-1]}" for n in cells) + " |",
        flush=True,
    )


def print_widths(repetitions: int = 20, breaks: int = 300) -> None:
    sizes = (30, 100, 500)
    print("\n| population | " + " | ".join(f"n = {n}" for n in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for seed, (name, population) in enumerate(POPULATIONS.items()):
        smallest, largest = population.bounds
        cells = []
        for n in sizes:
            x = (population.draw(np.random.default_rng(seed), (repetitions, n)) - smallest) / (largest - smallest)
            ours = theirs = 0.0
            for row in x:
                interval = confidence_sequence(row, level=LEVEL)
                ours += (floor(interval.high * breaks) - ceil(interval.low * breaks)) / breaks
                low, high = scanned_interval(
                    row, lambda v, m: plug_in_capitals(v, m, 1 - LEVEL), alpha=1 - LEVEL, breaks=breaks
                )
                theirs += high - low
            cells.append(f"{ours / repetitions:.3f} / {theirs / repetitions:.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print_false_alarms(repetitions)
    print_power(repetitions // 10)
    print_widths()
