"""What Opti-CAM costs beside the bare loop of its calls: as many forwards, and backwards to the input alone.

Run from the checkout: `python -m benchmarks.opti_cam [--model resnet50] [--batch 4] [--steps 4]`. No image stops early,
so both do the same calls, at the same batch. The bare loop is handed normalised images; mask, min-max, normalisation
and Adam are what Opti-CAM adds. Weights are random.
"""

import argparse
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks import gradient_cams, timing
from benchmarks.gradient_cams import Work, clear_gradients
from camcore.cam.opti import opticam
from camcore.cost import Cost, metered
from camcore.hooks import frozen
from camcore.recording import Recording, record


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """What the timing process sends back."""

    times: dict[str, timing.Times]
    cost: Cost
    subject: str
    machine: str


def bare(work: Work, steps: int) -> object:
    with frozen(work.subject.module):
        for _ in range(steps):
            asked = work.normalised.detach().requires_grad_()
            scores = work.subject.module(asked).gather(1, work.target[:, None])
            last = torch.autograd.grad(scores.sum(), asked)[0]
        with torch.no_grad():
            work.subject.module(work.normalised)
    return last


def optimise(rec: Recording, steps: int) -> object:
    return opticam(rec, steps=steps, patience=steps + 1)


def clock(setting: gradient_cams.Setting, steps: int, rounds: int) -> Clocked:
    """For a fresh process."""
    work = gradient_cams.prepare(setting)
    rec = record(work.subject, work.images, work.target, chunk=setting.batch)
    calls = {"bare loop of the same calls": partial(bare, work, steps), "**Opti-CAM**": partial(optimise, rec, steps)}
    with metered() as cost:
        optimise(rec, steps)
    height, width = work.subject.geometry.crop
    return Clocked(
        times=timing.interleave(partial(bare, work, steps), calls, rounds=rounds, tidy=partial(clear_gradients, work)),
        cost=cost,
        subject=f"{setting.model}, batch of {setting.batch}, {height} x {width}, layer `{work.subject.target_layer}`",
        machine=timing.machine(device=setting.device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.opti_cam", description=__doc__)
    parser.add_argument("--model", default="resnet50", help="a torchvision classifier (default: resnet50)")
    parser.add_argument("--batch", type=int, default=4, help="images in the batch (default: 4)")
    parser.add_argument("--steps", type=int, default=4, help="steps of the optimisation (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each, at least 2 (default: 7)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: the spread needs two")
    setting = gradient_cams.Setting(model=options.model, batch=options.batch, device=options.device)
    before = timing.load_average()
    clocked = timing.in_fresh_process(clock, setting, options.steps, options.rounds)
    lines = [f"| {options.steps} steps | ms | × bare loop | middle half |", "|---|---:|---:|---:|"]
    for name, one in clocked.times.items():
        low, high = one.middle_half
        lines.append(f"| {name} | {1000 * median(one.seconds):.0f} | {median(one.ratios):.2f} | {low:.2f}-{high:.2f} |")
    text = "\n".join(
        [
            f"Opti-CAM on {clocked.subject}: {clocked.cost.forwards / options.batch:g} forwards and "
            f"{clocked.cost.backwards / options.batch:g} backwards per image.",
            "",
            *lines,
            "",
            f"{date.today()}, {clocked.machine}; load average {before} at the start, {timing.load_average()} at the "
            f"end; {options.rounds} rounds. Command: `python -m benchmarks.opti_cam --model {options.model} "
            f"--batch {options.batch} --steps {options.steps} --rounds {options.rounds} --device {options.device}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, f"opti_cam {options.model} {options.device}", text)


if __name__ == "__main__":
    main()
