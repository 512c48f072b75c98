"""What Ablation-CAM and Score-CAM of one image cost: camcore beside its peers, in one run.

Run from the checkout: `python -m benchmarks.channel_cams ablationcam --model resnet50`; or with `scorecam`; or with
`memory`, for whether the peak of Score-CAM grows with the channels. Weights are random; speed does not depend on them,
but some channels are dead at random, which camcore skips and its peers do not. Peers that are not installed are
skipped.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.channel_peers import (
    CANDIDATES,
    MODULES,
    Candidate,
    bare_loop,
    live_channels,
    prepare,
    recorded,
    shown,
)
from benchmarks.gradient_cams import Setting, Work, forward
from camcore.cam import METHODS
from camcore.recording import Recording
from camcore.throughput import known_batch_size

FORWARDS = 5  # timed before and after a call; the median of all is what its ratio is taken to
LIVE = (64, 512, 2048)  # how many channels are left as they are, to see whether memory grows with them


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """What a timing process sends back; differences are of maps as they are shown, to camcore's."""

    times: dict[str, timing.Times]
    differences: dict[str, float]
    unit: float  # seconds of what the ratios are taken to
    chunk: int
    live: int
    subject: str
    machine: str


def clock(setting: Setting, method: str, chunk: int | None, rounds: int, peer_rounds: int) -> Clocked:
    """Time all candidates that are installed. For a fresh process."""
    work = prepare(setting)
    rec = recorded(work)
    live = live_channels(rec)
    candidates = {k: v for k, v in CANDIDATES[method].items() if find_spec(MODULES.get(k, "torch"))}
    if not rec.linear:
        candidates.pop("camcore, made to ask", None)  # it asks as it is
    if method == "ablationcam":
        # A peer takes minutes, so it is timed `peer_rounds` times, and each call has forwards of its own around it.
        chunk = chunk or 32  # pytorch-grad-cam's default
        unit: timing.Call = partial(forward, work)
        times, maps = {}, {}
        for name, candidate in candidates.items():
            if name not in MODULES:
                candidate(work, chunk)
            number = peer_rounds if name in MODULES else rounds
            times[name], maps[name] = around(unit, partial(candidate, work, chunk), number)
        unit_times = list(times.values())
    else:
        # Whole maps take minutes on a busy machine: `peer_rounds` of them. `rounds` of the first channels beside a loop
        # as short tell what camcore adds to its forwards.
        chunk = chunk or known_batch_size(work.subject)
        some = first_channels(replace(rec, chunk=chunk), LIVE[0])
        short, loop = (partial(bare_loop, work, chunk, count) for count in (live_channels(some), live))
        calls: dict[str, timing.Call] = {"the bare loop, 64 channels": short}
        calls["camcore, 64 channels, less the recording"] = partial(METHODS["scorecam"], some)
        times = timing.interleave(short, calls, rounds=rounds, tidy=timing.settle)
        maps = {}
        calls = {name: partial(keep, maps, name, one, work, chunk) for name, one in candidates.items()}
        whole = timing.interleave(loop, calls, rounds=peer_rounds, tidy=timing.settle)
        times, unit_times = times | whole, list(whole.values())
    ours = shown(maps["camcore"], work)
    size = " x ".join(map(str, work.subject.geometry.crop))
    channels = rec.activations.shape[1]
    ratios = [(one.seconds, one.ratios) for one in unit_times]
    return Clocked(
        times=times,
        differences={name: float((shown(one, work) - ours).abs().max()) for name, one in maps.items()},
        unit=median(second / ratio for pair in ratios for second, ratio in zip(*pair, strict=True)),
        chunk=chunk,
        live=live,
        subject=f"{setting.model}, one image, {size}, layer `{rec.layer}`, {channels} channels, {live} live",
        machine=timing.machine(device=setting.device),
    )


def keep(maps: dict[str, Tensor], name: str, candidate: Candidate, work: Work, chunk: int) -> None:
    maps[name] = candidate(work, chunk)


def around(unit: timing.Call, call: Callable[[], Tensor], rounds: int) -> tuple[timing.Times, Tensor]:
    """As `timing.interleave`, with several runs of a short unit on either side of a call."""

    def timed(one: Callable[[], object]) -> tuple[float, object]:
        timing.settle()
        start = perf_counter()
        given = one()
        timing.synchronise()
        return perf_counter() - start, given

    seconds, ratios, given = [], [], None
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        units = [timed(unit)[0] for _ in range(FORWARDS)]
        taken, given = timed(call)
        units += [timed(unit)[0] for _ in range(FORWARDS)]
        seconds.append(taken)
        ratios.append(taken / median(units))
    assert isinstance(given, Tensor)
    return timing.Times(seconds=tuple(seconds), ratios=tuple(ratios)), given


def first_channels(rec: Recording, count: int) -> Recording:
    """The recording with all channels but the first ones blanked."""
    number = torch.arange(rec.activations.shape[1], device=rec.activations.device)[:, None, None]
    return replace(rec, activations=torch.where(number < count, rec.activations, 0))


def footprint(setting: Setting, method: str, name: str, chunk: int) -> int | None:
    """Peak bytes above the model. For a fresh process."""
    work = prepare(setting)
    bare_loop(work, chunk, chunk)  # loads the kernels; a whole map would take as long again
    call = partial(CANDIDATES[method][name], work, chunk)
    return timing.peak_above(call, device=setting.device, tidy=timing.settle, repeats=1)


def footprint_of_live(setting: Setting, chunk: int | None, left: int) -> tuple[int, int, int | None, int | None]:
    """Channels in all, how many of the first `left` are live, the peak when the others are blanked, and of tensors."""
    work = prepare(setting)
    rec = recorded(work, chunk or known_batch_size(work.subject))
    METHODS["scorecam"](first_channels(rec, LIVE[0]))
    some = first_channels(rec, left)
    call = partial(METHODS["scorecam"], some)
    peak = timing.peak_above(call, device=setting.device, tidy=timing.settle, repeats=1)
    held = timing.peak_allocated(call) if setting.device == "cpu" else peak
    return rec.activations.shape[1], live_channels(some), peak, held


def footprint_of_loop(setting: Setting, chunk: int | None, count: int) -> int | None:
    """The peak of as many bare forwards: what the allocator keeps, whoever asks."""
    work = prepare(setting)
    size = chunk or known_batch_size(work.subject)
    bare_loop(work, size, LIVE[0])
    call = partial(bare_loop, work, size, count)
    return timing.peak_above(call, device=setting.device, tidy=timing.settle, repeats=1)


def table(setting: Setting, method: str, clocked: Clocked) -> list[str]:
    unit = "forwards" if method == "ablationcam" else "the bare loop"
    lines = [
        f"| | s | × {unit} | of all rounds | peak MB above the model | largest difference from camcore's map |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in clocked.times.items():
        peak = None
        if name in CANDIDATES[method] and not (method == "ablationcam" and name in MODULES):  # minutes again
            print(f"memory of {name}", file=sys.stderr)
            peak = timing.in_fresh_process(footprint, setting, method, name, clocked.chunk)
        difference = clocked.differences.get(name)
        rounds = f"{min(one.ratios):.3g}-{max(one.ratios):.3g}" if len(one.ratios) > 1 else "one round"
        lines.append(
            f"| {name} | {median(one.seconds):.3g} | {median(one.ratios):.4g} | {rounds} | {megabytes(peak)} | "
            f"{'' if difference is None else f'{difference:.1e}'} |"
        )
    return lines


def megabytes(peak: int | None) -> str:
    return "" if peak is None else f"{peak / 1e6:.0f}"


def memory_table(setting: Setting, chunk: int | None) -> list[str]:
    lines = [
        "| live channels | MB of tensors at the peak | MB resident at the peak | of the bare loop over as many |",
        "|---:|---:|---:|---:|",
    ]
    for left in LIVE:
        print(f"memory of {left} channels", file=sys.stderr)
        channels, live, peak, held = timing.in_fresh_process(footprint_of_live, setting, chunk, left)
        loop = timing.in_fresh_process(footprint_of_loop, setting, chunk, live)
        exactly = "" if held is None else f"{held / 1e6:.2f}"
        lines.append(f"| {live} | {exactly} | {megabytes(peak)} | {megabytes(loop)} |")
        if left >= channels:
            break
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.channel_cams", description=__doc__)
    parser.add_argument("method", choices=[*CANDIDATES, "memory"], help="what is measured")
    parser.add_argument("--model", default="resnet18", help="a torchvision classifier (default: resnet18)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each candidate, at least 2 (default: 5)")
    parser.add_argument("--peer-rounds", type=int, default=1, help="of what takes minutes (default: 1)")
    parser.add_argument(
        "--chunk", type=int, help="images per forward (default: what camcore measures, or a peer's own)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2 or options.peer_rounds < 1:
        parser.error(f"--rounds must be at least 2 and --peer-rounds 1, got {options.rounds} and {options.peer_rounds}")
    if options.threads is not None:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
    os.environ["TQDM_DISABLE"] = "1"  # before the peers import it, in the processes started below
    setting = Setting(model=options.model, batch=1, device=options.device)
    before = timing.load_average()
    if options.method == "memory":
        lines = [
            f"Score-CAM of {options.model}, one image, other channels blanked.",
            "",
            *memory_table(setting, options.chunk),
        ]
        machine, chunk = timing.in_fresh_process(partial(timing.machine, device=options.device)), options.chunk
    else:
        clocked = timing.in_fresh_process(
            clock, setting, options.method, options.chunk, options.rounds, options.peer_rounds
        )
        name = "one forward" if options.method == "ablationcam" else f"the bare loop over {clocked.live} images"
        lines = [f"{clocked.subject}. {name.capitalize()}: {clocked.unit:.3g} s.", ""]
        lines += table(setting, options.method, clocked)
        machine, chunk = clocked.machine, clocked.chunk
    given = {"model": options.model, "rounds": options.rounds, "peer-rounds": options.peer_rounds}
    given |= {"chunk": options.chunk, "device": options.device, "threads": options.threads}
    chosen = " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
    command = f"python -m benchmarks.channel_cams {options.method} {chosen}"
    lines += [
        "",
        f"{date.today()}, {machine}; {timing.versions('grad-cam', 'torchcam')}; "
        f"{f'{chunk} images per forward; ' if options.method == 'scorecam' else ''}load average {before} at the start, "
        f"{timing.load_average()} at the end. Command: `{command}`",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write is not None:
        timing.write_section(options.write, f"channel_cams {options.method} {options.model} {options.device}", text)


if __name__ == "__main__":
    main()
