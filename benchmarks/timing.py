"""Times that can be compared on a machine that is not quiet, the memory a call takes, and where it was measured.

A time alone says little on a shared machine: the same forward takes twice as long a minute later. So every call is
timed between two runs of a baseline, and what counts is the median of its ratios to those two neighbours.
"""

import ctypes
import gc
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median, quantiles
from time import perf_counter
from typing import Any

import torch

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Times:
    """One call over all rounds: seconds, and multiples of the baseline runs just before and after it."""

    seconds: tuple[float, ...]
    ratios: tuple[float, ...]

    @property
    def middle_half(self) -> tuple[float, float]:
        """The quartiles of the ratios: what the machine's noise did to them."""
        low, _, high = quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def interleave(baseline: Call, calls: Mapping[str, Call], *, rounds: int, tidy: Call) -> dict[str, Times]:
    """Run every call once per round, each between two runs of the baseline.

    Args:
        baseline: What the ratios are taken to. As one of the calls too, it shows the noise: its ratio should be 1.
        calls: By name; each round starts with another one. They are expected to be warm.
        rounds: At least two.
        tidy: Run outside the clock before each timing: undoes what a call left behind, and waits for the device.
    """

    def timed(call: Call) -> float:
        tidy()
        start = perf_counter()
        call()
        synchronise()
        return perf_counter() - start

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        before = timed(baseline)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(timed(calls[name]))
            after = timed(baseline)
            ratios[name].append(seconds[name][-1] / mean((before, after)))
            before = after
    return {name: Times(seconds=tuple(seconds[name]), ratios=tuple(ratios[name])) for name in names}


def synchronise() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def settle() -> None:
    """Outside the clock: collect what is held in cycles, wait for the device."""
    gc.collect()
    synchronise()


def peak_above(call: Call, *, device: str, tidy: Call, repeats: int = 3) -> int | None:
    """Bytes the call takes at its peak above what is held when it starts; None where nothing can measure it.

    On the CPU that is resident memory, as the kernel counts it (Linux): call this in a fresh process, after one warm
    call, so that neither another call's leftovers nor the loading of kernels is counted. What the C library keeps for
    itself moves a single measurement by some 30 MB, hence the median of several.
    """
    peaks = []
    for _ in range(repeats):
        tidy()
        peaks.append(_peak(call, device))
    known = [peak for peak in peaks if peak is not None]
    return round(median(known)) if known else None


def _peak(call: Call, device: str) -> int | None:
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held
    try:
        # glibc keeps freed blocks: a call served from them would seem to take nothing
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again (man 5 proc)
        held = _status("VmRSS")
        call()
        return _status("VmHWM") - held
    except (AttributeError, OSError):
        return None


def peak_allocated(call: Call) -> int:
    """Bytes of tensors that the call holds at its peak, above those held when it starts: what torch was asked for.

    On the CPU. Unlike resident memory it is the same in every run, whatever the C library keeps; the scratch of a
    kernel that does not ask torch for it is not in it.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    found = profiled.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in found if event.name() == "[memory]")
    return max(accumulate((bytes_ for _, bytes_ in changes), initial=0))


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {field}")
    return 1024 * int(found[1])


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a new interpreter, where nothing has been allocated before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def machine(*, device: str) -> str:
    """One line: what computes, with how many threads, on which torch."""
    if device == "cpu":
        cpuinfo = Path("/proc/cpuinfo")
        model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        what = f"{model[1] if model else platform.processor()}, {cores} cores, threads used: {torch.get_num_threads()}"
    else:
        what = torch.cuda.get_device_name(device)
    return f"{what}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def versions(*names: str) -> str:
    """Name and version of each distribution that is installed."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def load_average() -> str:
    """How many processes wanted a core in the last minute; above the core count, times are the neighbours' too."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def write_section(path: Path, name: str, text: str) -> None:
    """Replace the text between the two comments that carry the name; put both at the end if the page has none."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = path.read_text() if path.exists() else ""
    section = f"{begin}\n{text}\n{end}"
    head, found, rest = page.partition(begin)
    path.write_text(head + section + rest.partition(end)[2] if found else f"{page.rstrip()}\n\n{section}\n".lstrip())
