"""Cascading randomisation of a model, in forwards of the batch: camcore beside Quantus, in one run.

Run from the checkout: `python -m benchmarks.randomisation [--model resnet18] [--batch 2] [--rounds 3]`. camcore
randomises every stage from the output down and makes all seven gradient CAMs at each; Quantus' MPRT does so for one
method, once with pytorch-grad-cam's Grad-CAM and once with camcore's, which costs one forward. Counted are images sent
into the model, per image of the batch, and multiply-adds in units of one forward; timed is the whole call.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gradient_cams, timing
from camcore.cam import METHODS
from camcore.cascade import certified, half_random, top_down
from camcore.randomise import Execution, execution
from camcore.recording import record

PEERS = ("quantus", "grad-cam")


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """What the timing process sends back."""

    times: dict[str, timing.Times]
    forwards: dict[str, float]  # per image of the batch
    work: dict[str, float]  # multiply-adds, in forwards
    stages: int
    subject: str
    machine: str


def camcore_seven(work: gradient_cams.Work, found: Execution) -> object:
    with half_random(work.subject, work.images, found, seed=0, chunk=len(work.images)) as under:
        maps = []
        for stages in ((), *top_down(found)):
            recording = under(stages, work.target)
            maps.append([METHODS[name](recording) for name in gradient_cams.SEVEN])
    return maps


def quantus_mprt(work: gradient_cams.Work, explain: Callable[..., np.ndarray]) -> object:
    import quantus

    metric = quantus.MPRT(
        similarity_func=quantus.similarity_func.correlation_spearman,
        layer_order="top_down",
        return_average_correlation=False,
        skip_layers=False,
        normalise=True,
        abs=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    return metric(
        model=work.subject.module,
        x_batch=work.normalised.numpy(),
        y_batch=work.target.numpy(),
        explain_func=explain,
        device="cpu",
    )


def with_grad_cam(work: gradient_cams.Work, *, model: nn.Module, **given: Any) -> np.ndarray:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    # a new layer at every call: Quantus randomises copies
    layer = model.get_submodule(str(work.subject.target_layer))
    targets = [ClassifierOutputTarget(int(label)) for label in given["targets"]]
    with GradCAM(model=model, target_layers=[layer]) as cam:
        return cam(input_tensor=torch.as_tensor(given["inputs"]), targets=targets)[:, None]


def with_one_forward(work: gradient_cams.Work, *, model: nn.Module, **given: Any) -> np.ndarray:
    subject = replace(work.subject, module=model)
    recording = record(subject, work.images, torch.as_tensor(given["targets"]))
    saliency = METHODS["gradcam"](recording)[:, None]
    return nn.functional.interpolate(saliency, work.images.shape[2:], mode="bilinear").numpy()


def calls_of(work: gradient_cams.Work, found: Execution) -> dict[str, timing.Call]:
    """The candidates whose libraries are here, each run once."""
    mine: timing.Call = partial(camcore_seven, work, found)
    calls = {
        "**camcore, seven CAMs**": mine,
        "camcore, seven CAMs, nothing reused": partial(camcore_seven, work, replace(found, reusable=False)),
    }
    for name, explain in (
        ("Quantus MPRT, pytorch-grad-cam's Grad-CAM alone", with_grad_cam),
        ("Quantus MPRT, camcore's Grad-CAM alone", with_one_forward),
    ):
        call = partial(quantus_mprt, work, partial(explain, work))
        try:
            call()
        except ImportError as missing:
            print(f"skipped: {name}: {missing}", file=sys.stderr)
            continue
        calls[name] = call
    mine()
    return calls


def counted(work: gradient_cams.Work, call: timing.Call) -> tuple[float, float]:
    """Images through the model per image of the batch, and multiply-adds in forwards."""
    seen: list[int] = []
    forward = nn.Module.__call__
    kind = type(work.subject.module)

    def noted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if type(self) is kind:  # copies of the model count as the model
            seen.append(len(args[0]))
        return forward(self, *args, **kwargs)

    with FlopCounterMode(display=False) as one:
        gradient_cams.forward(work)
    nn.Module.__call__ = noted  # type: ignore[method-assign]
    try:
        with FlopCounterMode(display=False) as all_of_it:
            call()
    finally:
        nn.Module.__call__ = forward  # type: ignore[method-assign]
    return sum(seen) / len(work.images), all_of_it.get_total_flops() / one.get_total_flops()


def clock(setting: gradient_cams.Setting, rounds: int) -> Clocked:
    """Time and count all candidates that are installed. For a fresh process."""
    logging.disable(logging.WARNING)
    work = gradient_cams.prepare(setting)
    warnings.simplefilter("ignore")
    found = execution(work.subject, work.images[:1])
    found = certified(work.subject, work.images[:1], found, [frozenset(), *top_down(found)], seed=0)
    if not found.reusable:
        print("nothing can be reused: a forward that reuses differs from a whole one", file=sys.stderr)
    calls = calls_of(work, found)
    counts = {name: counted(work, call) for name, call in calls.items()}
    tidy = partial(gradient_cams.clear_gradients, work)
    height, width = work.subject.geometry.crop
    return Clocked(
        times=timing.interleave(partial(gradient_cams.forward, work), calls, rounds=rounds, tidy=tidy),
        forwards={name: forwards for name, (forwards, _) in counts.items()},
        work={name: flops for name, (_, flops) in counts.items()},
        stages=len(found.stages),
        subject=f"{setting.model}, batch of {setting.batch}, {height} x {width}, layer `{work.subject.target_layer}`",
        machine=timing.machine(device=setting.device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.randomisation", description=__doc__)
    parser.add_argument("--model", default="resnet18", help="a torchvision classifier (default: resnet18)")
    parser.add_argument("--batch", type=int, default=2, help="images in the batch (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each candidate, at least 2 (default: 3)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: the spread needs two")
    before = timing.load_average()
    setting = gradient_cams.Setting(model=options.model, batch=options.batch, device="cpu")
    clocked = timing.in_fresh_process(clock, setting, options.rounds)
    lines = [
        f"Cascading randomisation, {clocked.subject}, {clocked.stages} stages and the original. The aim: at most "
        f"{clocked.stages + 1} forwards for all seven gradient CAMs.",
        "",
        "| | s | × forward | middle half | forwards asked | multiply-adds, in forwards |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in clocked.times.items():
        low, high = one.middle_half
        lines.append(
            f"| {name} | {median(one.seconds):.1f} | {median(one.ratios):.1f} | {low:.1f}-{high:.1f} | "
            f"{clocked.forwards[name]:.0f} | {clocked.work[name]:.1f} |"
        )
    lines += [
        "",
        f"{date.today()}, {clocked.machine}; {timing.versions(*PEERS)}; load average {before} at the start, "
        f"{timing.load_average()} at the end; {options.rounds} rounds. Command: `python -m benchmarks.randomisation "
        f"--model {options.model} --batch {options.batch} --rounds {options.rounds}`",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write is not None:
        timing.write_section(options.write, f"randomisation {options.model}", text)


if __name__ == "__main__":
    main()
