"""What methods that ask the model many times cost: Integrated Gradients and RISE beside the bare loop of their calls.

Run from the checkout: `python -m benchmarks.asking [--model resnet18] [--batch 2] [--steps 50] [--masks 500]`. The bare
loop does the same forwards (and backwards, to the input alone) at the same chunk, on one chunk of normalised images
made before the clock starts: what the methods themselves add is the rest. Weights are random.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks import gradient_cams, timing
from benchmarks.gradient_cams import Work, clear_gradients
from camcore import cam
from camcore.hooks import frozen
from camcore.recording import record
from camcore.throughput import known_batch_size

BARE = "bare loop of the same calls"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured, small enough to be sent to a fresh process."""

    method: str
    model: str
    batch: int
    many: int  # steps or masks
    device: str
    chunk: int | None = None  # images per forward; None: to be measured


def prepare(setting: Setting) -> Work:
    return gradient_cams.prepare(gradient_cams.Setting(model=setting.model, batch=setting.batch, device=setting.device))


def _pieces(setting: Setting, work: Work) -> list[torch.Tensor]:
    """Normalised images, in the chunks that the method's calls come in."""
    assert setting.chunk is not None
    total = setting.many * setting.batch
    chunk = work.normalised.repeat(-(-setting.chunk // setting.batch), 1, 1, 1)[: setting.chunk]
    return [chunk] * (total // setting.chunk) + [chunk[: total % setting.chunk]] * (total % setting.chunk > 0)


def bare_gradients(setting: Setting, work: Work) -> object:
    with frozen(work.subject.module):
        for piece in _pieces(setting, work):
            asked = piece.detach().requires_grad_()
            scores = work.subject.module(asked)[:, 0]
            last = torch.autograd.grad(scores.sum(), asked)[0]
    return last


@torch.no_grad()
def bare_forwards(setting: Setting, work: Work) -> object:
    for piece in _pieces(setting, work):
        last = work.subject.module(piece)
    return last


def camcore_integrated_gradients(setting: Setting, work: Work) -> object:
    rec = record(work.subject, work.images, work.target, chunk=setting.chunk)
    return cam.integrated_gradients(rec, steps=setting.many)


def captum_integrated_gradients(setting: Setting, work: Work) -> object:
    from captum.attr import IntegratedGradients

    return IntegratedGradients(work.subject.module).attribute(
        work.normalised,
        work.subject.preprocess(torch.zeros_like(work.images)),
        target=work.target,
        n_steps=setting.many,
        method="gausslegendre",
        internal_batch_size=setting.chunk,
    )


def camcore_rise(setting: Setting, work: Work) -> object:
    return cam.rise(record(work.subject, work.images, work.target, chunk=setting.chunk), masks=setting.many)


Candidate = Callable[[Setting, Work], object]
CANDIDATES: dict[str, dict[str, Candidate]] = {
    "integrated_gradients": {
        BARE: bare_gradients,
        "**camcore**": camcore_integrated_gradients,
        "captum": captum_integrated_gradients,
    },
    "rise": {BARE: bare_forwards, "**camcore**": camcore_rise},
}
UNITS = {"integrated_gradients": "steps", "rise": "masks"}


def measured_chunk(setting: Setting) -> int:
    """The chunk that a recording would take. For a fresh process."""
    return known_batch_size(prepare(setting).subject)


def footprint(setting: Setting, name: str) -> int | None:
    """Peak bytes above the model. For a fresh process."""
    work = prepare(setting)
    candidate = CANDIDATES[setting.method][name]
    candidate(replace(setting, many=2 * (setting.chunk or 1)), work)  # warm
    return timing.peak_above(
        partial(candidate, setting, work), device=setting.device, tidy=partial(clear_gradients, work)
    )


def clock(setting: Setting, rounds: int) -> tuple[dict[str, timing.Times], str]:
    """Times of all candidates that are installed, and the machine. For a fresh process."""
    work = prepare(setting)
    calls: dict[str, timing.Call] = {}
    for name, candidate in CANDIDATES[setting.method].items():
        try:
            candidate(replace(setting, many=2 * (setting.chunk or 1)), work)
        except ImportError as missing:
            print(f"skipped: {name}: {missing}", file=sys.stderr)
            continue
        calls[name] = partial(candidate, setting, work)
    times = timing.interleave(calls[BARE], calls, rounds=rounds, tidy=partial(clear_gradients, work))
    return times, timing.machine(device=setting.device)


def table(setting: Setting, times: Mapping[str, timing.Times]) -> list[str]:
    unit, few, many = UNITS[setting.method], setting.many // 2, setting.many * 2
    lines = [
        f"| {setting.many} {unit} | ms | × bare loop | middle half | peak MB, {few} {unit} | peak MB, {many} {unit} |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in times.items():
        print(f"memory of {name}", file=sys.stderr)
        peaks = [timing.in_fresh_process(footprint, replace(setting, many=number), name) for number in (few, many)]
        known = ["unknown" if peak is None else f"{peak / 1e6:.0f}" for peak in peaks]
        low, high = one.middle_half
        lines.append(
            f"| {name} | {1000 * median(one.seconds):.0f} | {median(one.ratios):.2f} | {low:.2f}-{high:.2f} | "
            f"{' | '.join(known)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asking", description=__doc__)
    parser.add_argument("--method", choices=CANDIDATES, help="one alone (default: all)")
    parser.add_argument("--model", default="resnet18", help="a torchvision classifier (default: resnet18)")
    parser.add_argument("--batch", type=int, default=2, help="images explained at once (default: 2)")
    parser.add_argument("--steps", type=int, default=50, help="of Integrated Gradients (default: 50)")
    parser.add_argument("--masks", type=int, default=500, help="of RISE (default: 500)")
    parser.add_argument("--chunk", type=int, help="images per forward (default: measured, as a recording does)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each candidate, at least 2 (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the tables into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: the spread needs two")
    if options.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read by the processes started below

    before = timing.load_average()
    chunk, text = options.chunk, []
    for method in (options.method,) if options.method else CANDIDATES:
        many = options.steps if method == "integrated_gradients" else options.masks
        setting = Setting(method=method, model=options.model, batch=options.batch, many=many, device=options.device)
        chunk = chunk or timing.in_fresh_process(measured_chunk, setting)
        setting = replace(setting, chunk=chunk)
        times, machine = timing.in_fresh_process(clock, setting, options.rounds)
        text += [
            f"`cam.{method}`, {options.model}, batch of {options.batch}, {chunk} images per forward"
            f"{'' if options.chunk else ' (measured)'}.",
            "",
            *table(setting, times),
            "",
        ]
    flags = f"--model {options.model} --batch {options.batch} --steps {options.steps} --masks {options.masks}"
    flags += f" --rounds {options.rounds} --device {options.device}"
    flags += "".join(
        f" --{name} {value}"
        for name, value in (("method", options.method), ("chunk", options.chunk), ("threads", options.threads))
        if value is not None
    )
    text.append(
        f"{date.today()}, {machine}; {timing.versions('captum')}; load average {before} at the start, "
        f"{timing.load_average()} at the end; {options.rounds} rounds. Command: `python -m benchmarks.asking {flags}`"
    )
    print("\n".join(text))
    if options.write is not None:
        timing.write_section(options.write, f"asking {options.model} {options.device}", "\n".join(text))


if __name__ == "__main__":
    main()
