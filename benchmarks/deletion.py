"""Deletion curves and ROAD's inpainting: camcore beside Quantus and pytorch-grad-cam, in one run.

Run from the checkout: `python -m benchmarks.deletion [--model resnet18] [--batch 4] [--steps 48]`. Everyone is given
the same images and maps. The curves are timed against the bare forwards that they cannot do without, in batches of one
size. Quantus' PixelFlipping flips features, a pixel's three channels one by one, in as many steps. ROAD is timed at
four shares of the pixels against the forwards of the inpainted images, and its inpainting alone on the same holes.
Weights are random, speed does not depend on them. Peers that are not installed are skipped.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.gradient_cams import Setting, Work, prepare
from camcore.cost import metered
from camcore.maps import upsample
from camcore.metrics import deletion_curve
from camcore.perturbations import blur, noisy_linear, rank_pixels
from camcore.seeds import generator

ROAD_SHARES = (0.2, 0.4, 0.6, 0.8)  # pytorch-grad-cam's percentiles 80 to 20
BARE, CAMCORE, QUANTUS = "bare forwards", "**camcore**", "Quantus PixelFlipping"
PEER = "pytorch-grad-cam"


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """What the timing process sends back: the three tables."""

    curves: dict[str, timing.Times]
    road: dict[str, timing.Times]
    solves: dict[str, timing.Times]
    forwards: int  # that camcore counted for the curves
    off: float | None  # the largest difference between the two inpaintings, without noise
    machine: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """The batch, a map for each of its images, and how it is asked."""

    work: Work
    saliency: Tensor
    steps: int
    chunk: int


def draws(task: Task, purpose: str) -> list[torch.Generator]:
    return [generator(0, purpose, str(one)) for one in range(len(task.saliency))]


def ranked(task: Task) -> Tensor:
    return rank_pixels(task.saliency, generators=draws(task, "ties"))


@torch.no_grad()
def bare(task: Task, forwards: int) -> None:
    ready = task.work.normalised.repeat(-(-task.chunk // len(task.work.normalised)), 1, 1, 1)
    for start in range(0, forwards, task.chunk):
        task.work.subject.module(ready[: min(task.chunk, forwards - start)])


def camcore_curve(task: Task) -> object:
    shares = [(step + 1) / task.steps for step in range(task.steps)]
    images = task.work.images
    return deletion_curve(
        task.work.subject,
        images,
        task.work.target,
        ranked(task),
        baseline=blur(images),
        fractions=shares,
        chunk=task.chunk,
    )


def quantus_curve(task: Task) -> object:
    from quantus import PixelFlipping

    shape = task.work.normalised.shape
    metric = PixelFlipping(
        features_in_step=shape[1:].numel() // task.steps,
        perturb_baseline="black",
        disable_warnings=True,
        display_progressbar=False,
    )
    return metric(
        model=task.work.subject.module,
        x_batch=task.work.normalised.numpy(),
        y_batch=task.work.target.numpy(),
        a_batch=task.saliency[:, None].numpy(),
        device="cpu",
        softmax=True,
    )


@torch.no_grad()
def camcore_road(task: Task) -> object:
    rank, images = ranked(task), task.work.images
    found = []
    for share in ROAD_SHARES:
        gone = rank < round(share * rank[0].numel())
        filled = noisy_linear(images, gone, generators=draws(task, "noise"))
        ask = partial(deletion_curve, task.work.subject, images, task.work.target, rank)
        found.append(ask(baseline=filled, fractions=(share,), chunk=task.chunk))
    return found


def peer_road(task: Task) -> object:
    from pytorch_grad_cam.metrics.road import ROADMostRelevantFirstAverage
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    metric = ROADMostRelevantFirstAverage(percentiles=[round(100 * (1 - share)) for share in ROAD_SHARES])
    targets = [ClassifierOutputSoftmaxTarget(label) for label in task.work.target.tolist()]
    return metric(task.work.normalised, task.saliency.numpy(), targets, task.work.subject.module)


def camcore_solves(images: Tensor, holes: list[Tensor], noise: float = 0.01) -> list[Tensor]:
    return [
        noisy_linear(images, gone, generators=[generator(0, str(one)) for one in range(len(images))], noise=noise)
        for gone in holes
    ]


def peer_solves(images: Tensor, holes: list[Tensor], noise: float = 0.01) -> list[Tensor]:
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    impute = NoisyLinearImputer(noise=noise)
    left = [(~gone).float() for gone in holes]
    return [torch.stack([impute(one, mask) for one, mask in zip(images, masks, strict=True)]) for masks in left]


def clock(setting: Setting, steps: int, chunk: int, rounds: int) -> Clocked:
    """For a fresh process."""
    work = prepare(setting)
    size = work.subject.geometry.crop
    maps = torch.rand(setting.batch, 7, 7, generator=generator(0, "maps"))
    task = Task(work=work, saliency=upsample(maps, size), steps=steps, chunk=chunk)
    rank = ranked(task)
    holes = [rank < round(share * rank[0].numel()) for share in ROAD_SHARES]
    forwards = setting.batch * steps

    curves: dict[str, Callable[[], object]] = {
        BARE: partial(bare, task, forwards),
        CAMCORE: partial(camcore_curve, task),
    }
    road: dict[str, Callable[[], object]] = {
        BARE: partial(bare, task, setting.batch * len(ROAD_SHARES)),
        CAMCORE: partial(camcore_road, task),
    }
    solves: dict[str, Callable[[], object]] = {CAMCORE: partial(camcore_solves, work.images, holes)}
    off = None
    if find_spec("quantus"):
        curves[QUANTUS] = partial(quantus_curve, task)
    if find_spec("pytorch_grad_cam"):
        road[PEER] = partial(peer_road, task)
        solves[PEER] = partial(peer_solves, work.images, holes)
        pairs = zip(camcore_solves(work.images, holes, 0.0), peer_solves(work.images, holes, 0.0), strict=True)
        off = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    with metered() as cost:
        camcore_curve(task)
    np.random.seed(0)  # noqa: NPY002 - Quantus draws from it
    take = partial(timing.interleave, rounds=rounds, tidy=timing.settle)
    return Clocked(
        curves=take(curves[BARE], curves),
        road=take(road[BARE], road),
        solves=take(solves[CAMCORE], solves),
        forwards=cost.forwards,
        off=off,
        machine=timing.machine(device=setting.device),
    )


def table(head: str, times: dict[str, timing.Times]) -> list[str]:
    lines = [f"| {head} | ms | × first row | middle half |", "|---|---:|---:|---:|"]
    for name, one in times.items():
        low, high = one.middle_half
        lines.append(f"| {name} | {1000 * median(one.seconds):.0f} | {median(one.ratios):.2f} | {low:.2f}-{high:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deletion", description=__doc__)
    parser.add_argument("--model", default="resnet18", help="a torchvision classifier (default: resnet18)")
    parser.add_argument("--batch", type=int, default=4, help="images (default: 4)")
    parser.add_argument("--steps", type=int, default=48, help="of the curves (default: 48)")
    parser.add_argument("--chunk", type=int, default=4, help="images per forward (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each, at least 2 (default: 3)")
    parser.add_argument("--threads", type=int, help="CPU threads, numpy's too (default: theirs)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the tables into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: the spread needs two")
    if options.threads is not None:
        # numpy's BLAS reads it when it is loaded: in the process started below
        os.environ |= dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads)
        )
    before = timing.load_average()
    setting = Setting(model=options.model, batch=options.batch, device="cpu")
    clocked = timing.in_fresh_process(clock, setting, options.steps, options.chunk, options.rounds)
    threads = "" if options.threads is None else f" --threads {options.threads}"
    shares = ", ".join(f"{share:.0%}" for share in ROAD_SHARES)
    apart = "" if clocked.off is None else f" Without noise the two differ by {clocked.off:.0e} at most."
    text = "\n".join(
        [
            f"{options.model}, {options.batch} images, {options.steps} steps: {clocked.forwards} forwards.",
            "",
            *table("deletion curves", clocked.curves),
            "",
            f"ROAD at {shares} of the pixels, inpainting and forwards:",
            "",
            *table("ROAD", clocked.road),
            "",
            f"Inpainting alone, {options.batch * len(ROAD_SHARES)} holes.{apart}",
            "",
            *table("inpainting", clocked.solves),
            "",
            f"{date.today()}, {clocked.machine}; {timing.versions('quantus', 'grad-cam', 'scipy')}; load average "
            f"{before} at the start, {timing.load_average()} at the end; {options.rounds} rounds. Command: `python -m "
            f"benchmarks.deletion --model {options.model} --batch {options.batch} --steps {options.steps} --chunk "
            f"{options.chunk} --rounds {options.rounds}{threads}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, f"deletion {options.model}", text)


if __name__ == "__main__":
    main()
