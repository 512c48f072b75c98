"""The decomposition of Eigen-CAM: camcore's power iteration beside pytorch-grad-cam's full SVD.

Run from the checkout: `python -m benchmarks.eigen [--model resnet50] [--batch 8]`. Both are given the same activations
of the model's target layer: camcore a tensor, pytorch-grad-cam's `get_2d_projection` the numpy array it asks for. Next
to the times stands how far each is from the same decomposition in float64: of the activations as they are for camcore,
as the paper has it, and of centred ones for pytorch-grad-cam, whose sign is left open.
Each time is one of several calls in a row.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks import gradient_cams, timing
from camcore.cam import METHODS
from camcore.recording import Recording, features

Map = Float[Tensor, "b i j"]
IN_A_ROW = 5  # calls timed together: one of camcore's is so short that it measures what the caches hold
CAMCORE, FULL, PEER = "**camcore, power iteration**", "torch, full SVD of the batch", "pytorch-grad-cam, full SVD"


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """What the timing process sends back."""

    times: dict[str, timing.Times]
    errors: dict[str, float]
    disagree: int  # images of which the peer's map is against the sum over channels
    shape: tuple[int, ...]
    layer: str
    machine: str


def in_a_row(call: Callable[[], object]) -> None:
    for _ in range(IN_A_ROW):
        call()


def full_svd(activations: Float[Tensor, "b k i j"]) -> Map:
    """The paper's map by the full decomposition, its sign as the decomposition leaves it."""
    places = activations.flatten(2).transpose(1, 2)
    right = torch.linalg.svd(places, full_matrices=True).Vh[:, 0]
    return torch.einsum("bpk,bk->bp", places, right).unflatten(1, activations.shape[2:])


def distance(found: Map, expected: Map) -> float:
    """The largest |found ± expected| / |expected| over the images, with the nearer sign."""
    found, expected = found.double().flatten(1), expected.flatten(1)
    apart = torch.minimum((found - expected).norm(dim=1), (found + expected).norm(dim=1))
    return float((apart / expected.norm(dim=1)).max())


def clock(setting: gradient_cams.Setting, rounds: int) -> Clocked:
    """For a fresh process."""
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    work = gradient_cams.prepare(setting)
    layer = work.subject.target_layer or ""
    activations = features(work.subject, work.images)
    recording = Recording(
        images=work.images,
        logits=torch.zeros(setting.batch, 1),
        target=work.target,
        activations=activations,
        gradients=torch.zeros_like(activations),
        layer=layer,
    )
    array = activations.cpu().numpy()
    calls: dict[str, Callable[[], object]] = {
        CAMCORE: partial(METHODS["eigencam"], recording),
        FULL: partial(full_svd, activations),
        PEER: partial(get_2d_projection, array),
    }
    rows = {name: partial(in_a_row, call) for name, call in calls.items()}
    exact = full_svd(activations.double())
    centred = full_svd((activations - activations.mean((2, 3), keepdim=True)).double())
    peer = torch.from_numpy(get_2d_projection(array))
    return Clocked(
        times=timing.interleave(rows[CAMCORE], rows, rounds=rounds, tidy=timing.settle),
        errors={
            CAMCORE: distance(METHODS["eigencam"](recording), exact),
            FULL: distance(full_svd(activations), exact),
            PEER: distance(peer, centred),
        },
        disagree=int(((peer * activations.sum(1).cpu()).sum((1, 2)) < 0).sum()),
        shape=tuple(activations.shape),
        layer=layer,
        machine=timing.machine(device=setting.device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eigen", description=__doc__)
    parser.add_argument("--model", default="resnet50", help="a torchvision classifier (default: resnet50)")
    parser.add_argument("--batch", type=int, default=8, help="images in the batch (default: 8)")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each, at least 2 (default: 7)")
    parser.add_argument("--threads", type=int, help="CPU threads, numpy's too (default: theirs)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: the spread needs two")
    if options.threads is not None:
        # numpy's BLAS reads it when it is loaded: in the process started below
        os.environ |= dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads)
        )
    # the peer decomposes on the CPU, wherever the model is
    setting = gradient_cams.Setting(model=options.model, batch=options.batch, device="cpu")
    before = timing.load_average()
    clocked = timing.in_fresh_process(clock, setting, options.rounds)
    threads = "" if options.threads is None else f" --threads {options.threads}"
    lines = ["| | ms | × camcore | middle half | off float64 |", "|---|---:|---:|---:|---:|"]
    for name, one in clocked.times.items():
        low, high = one.middle_half
        milliseconds = 1000 * median(one.seconds) / IN_A_ROW
        lines.append(
            f"| {name} | {milliseconds:.1f} | {median(one.ratios):.1f} | {low:.1f}-{high:.1f} | "
            f"{clocked.errors[name]:.0e} |"
        )
    shape = " x ".join(map(str, clocked.shape))
    text = "\n".join(
        [
            f"Eigen-CAM's decomposition, {options.model}, layer `{clocked.layer}`, activations {shape}. Off float64: "
            "the largest distance of an image's map from the same decomposition in float64, relative, up to sign. "
            f"pytorch-grad-cam's map is against the sum over channels for {clocked.disagree} of {options.batch} "
            "images.",
            "",
            *lines,
            "",
            f"{date.today()}, {clocked.machine}; {timing.versions('grad-cam', 'numpy')}; load average {before} at the "
            f"start, {timing.load_average()} at the end; {options.rounds} rounds. Command: `python -m benchmarks.eigen "
            f"--model {options.model} --batch {options.batch} --rounds {options.rounds}{threads}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, f"eigen {options.model}", text)


if __name__ == "__main__":
    main()
