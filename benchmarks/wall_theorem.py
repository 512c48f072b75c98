"""The wall theorem by simulation: E[Grad-CAM] beside the bound of arXiv:2404.01964, before and behind the wall.

Run from the checkout: `python -m benchmarks.wall_theorem [--draws 1000] [--write docs/wall_theorem.md]`; with --write
it also draws the plot beside the page. Every setting has networks of its own, one per draw; nothing is trained.
"""

import argparse
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from benchmarks import timing
from camcore.seeds import derive, generator
from camcore.statistics import Estimate, confidence_sequence, simultaneous_level
from camcore.wall_theorem import draw_gradcam, gradcam_bound, gradcam_mean

Arguments = dict[str, Any]
SEED = 2404
LEVEL = 0.95  # that all intervals of the table hold at once
CLIP = 10  # times the exact mean: values above count as that, which can only lower the estimated mean
PLACES = {"before": (1, 2), "behind": (-2, -3)}  # row and column of the map; the wall hides its lower half


@dataclass(frozen=True, kw_only=True)
class Setting:
    """V, h' and w', τ, k and the image."""

    filters: int
    pooled: tuple[int, int] = (6, 6)
    std: float = 1.0
    kernel: int = 2
    image: str = "noise"


SETTINGS = (
    *(Setting(filters=filters) for filters in (21, 24, 32, 48, 64, 128, 256, 512)),
    *(Setting(filters=64, std=std) for std in (0.05, 0.2, 3.0)),
    *(Setting(filters=64, pooled=pooled) for pooled in ((2, 2), (4, 12), (12, 4))),
    *(Setting(filters=filters, pooled=(14, 14)) for filters in (32, 256)),  # the size of the paper's network for MNIST
    *(Setting(filters=64, kernel=kernel) for kernel in (1, 3, 5)),
    *(Setting(filters=filters, image="ramp") for filters in (32, 256)),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One place of one setting: mean over bound, and what it should be."""

    setting: Setting
    where: str
    ratio: Estimate
    exact: float


def image_of(setting: Setting) -> torch.Tensor:
    """Uniform noise, or a ramp from black to white."""
    height, width = (2 * side + setting.kernel - 1 for side in setting.pooled)
    if setting.image == "ramp":
        return torch.linspace(0, 1, height * width).reshape(height, width)
    return torch.rand(height, width, generator=generator(SEED, "image"))


def measure(setting: Setting, draws: int, level: float) -> list[Row]:
    """The same networks serve both places."""
    image = image_of(setting)
    height, width = (2 * side for side in setting.pooled)
    places = {where: (row % height, column % width) for where, (row, column) in PLACES.items()}
    drawn = draw_gradcam(
        image,
        list(places.values()),
        filters=setting.filters,
        std=setting.std,
        kernel=setting.kernel,
        draws=draws,
        seed=derive(SEED, repr(setting)),
    ).double()
    rows = []
    for index, (where, (row, column)) in enumerate(places.items()):
        patch = image[row : row + setting.kernel, column : column + setting.kernel]
        about: Arguments = {"filters": setting.filters, "std": setting.std, "patch_norm": patch.norm().item()}
        bound = gradcam_bound(pooled=setting.pooled, **about)
        exact = gradcam_mean(pooled=setting.pooled, **about) / bound
        values = (drawn[:, index] / bound).clamp(max=CLIP * exact)
        ratio = confidence_sequence(values.tolist(), level=level, bounds=(0.0, CLIP * exact))
        rows.append(Row(setting=setting, where=where, ratio=ratio, exact=exact))
    return rows


def table(rows: list[Row]) -> list[str]:
    lines = [
        "| V | h' x w' | τ | k | image | place | mean / bound | interval | exact mean / bound | bound holds |",
        "|---:|---|---:|---:|---|---|---:|---|---:|---|",
    ]
    for row in rows:
        one, ratio = row.setting, row.ratio
        lines.append(
            f"| {one.filters} | {one.pooled[0]} x {one.pooled[1]} | {one.std:g} | {one.kernel} | {one.image} | "
            f"{row.where} the wall | {ratio.point:.2f} | [{ratio.low:.2f}, {ratio.high:.2f}] | {row.exact:.2f} | "
            f"{'yes' if ratio.low >= 1 else 'NOT SHOWN'} |"
        )
    return lines


def plot(rows: list[Row], path: Path) -> None:
    """Ratio against V at the default of everything else, on a logarithmic axis each."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "wall theorem", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        counts = list(range(21, 601))
        about: Arguments = {"pooled": (6, 6), "std": 1.0, "patch_norm": 1.0}
        exact = [gradcam_mean(filters=n, **about) / gradcam_bound(filters=n, **about) for n in counts]
        axes.plot(counts, exact, color="#5b6470", linewidth=1.4, label="exact mean")
        for where, shift, colour in (("before", 0.98, "#0b5fa5"), ("behind", 1.02, "#c8501e")):
            shown = [row for row in rows if row.where == where and row.setting == Setting(filters=row.setting.filters)]
            points = [row.ratio.point for row in shown]
            below = [row.ratio.point - row.ratio.low for row in shown]
            above = [row.ratio.high - row.ratio.point for row in shown]
            # moved apart a little, so that one does not hide the other
            at = [row.setting.filters * shift for row in shown]
            axes.errorbar(at, points, (below, above), fmt="o", markersize=3.5, color=colour, label=f"{where} the wall")
        axes.axhline(1, color="black", linewidth=1, linestyle="--", label="the bound")
        axes.set(xscale="log", yscale="log", xlabel="filters V", ylabel="E[Grad-CAM] / bound")
        ticks = [
            row.setting.filters
            for row in rows
            if row.where == "before" and row.setting == Setting(filters=row.setting.filters)
        ]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axes.minorticks_off()
        axes.grid(color="#e4e2dc", linewidth=0.8)
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wall_theorem", description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="networks per setting (default: 1000)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    level = simultaneous_level(LEVEL, len(SETTINGS) * len(PLACES))
    rows = [row for setting in SETTINGS for row in measure(setting, options.draws, level)]
    holds = sum(row.ratio.low >= 1 for row in rows)
    covered = sum(row.ratio.low <= row.exact <= row.ratio.high for row in rows)
    text = "\n".join(
        [
            *table(rows),
            "",
            f"The bound lies below the interval in {holds} of {len(rows)} rows; the exact mean lies inside it in "
            f"{covered} of {len(rows)}.",
            "",
            f"{options.draws} networks per setting; betting confidence sequences, together {LEVEL:.0%} ({level:.2%} "
            f"each), of values clipped at {CLIP} times the exact mean. {date.today()}, {timing.machine(device='cpu')}. "
            f"Command: `python -m benchmarks.wall_theorem --draws {options.draws}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, "wall theorem", text)
        plot(rows, options.write.with_suffix(".svg"))


if __name__ == "__main__":
    main()
