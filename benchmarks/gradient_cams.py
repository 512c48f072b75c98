"""What the gradient CAMs of a batch cost, in forwards of that batch: camcore beside its peers, in one run.

Run from the checkout: `python -m benchmarks.gradient_cams [--model resnet50] [--batch 8] [--rounds 7]`. Weights are
random, speed does not depend on them. Peers that are not installed are skipped; `pip install -e '.[bench]'` brings
them.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks import timing
from camcore.cam import METHODS
from camcore.hooks import find_layer
from camcore.images import Images
from camcore.layers import with_target_layer
from camcore.recording import record
from camcore.seeds import generator
from camcore.subject import Classifier
from fixtures.subjects.torchvision import load

SEVEN = ("gradcam", "gradcam_plus_plus", "xgradcam", "hirescam", "layercam", "eigencam", "eigengradcam")
PEERS = ("grad-cam", "torchcam", "captum")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured, small enough to be sent to a fresh process."""

    model: str
    batch: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Work:
    """The same batch for everyone. camcore takes `images` and normalises them; the others are handed `normalised`."""

    subject: Classifier
    layer: nn.Module
    images: Images
    normalised: Tensor
    target: Tensor


def prepare(setting: Setting) -> Work:
    # Peers warn about things that are theirs; their tables would be cut in two by it.
    warnings.simplefilter("ignore")
    subject = load(setting.model, "random:0")
    subject.module.eval().to(setting.device)
    subject = with_target_layer(subject)
    if subject.target_layer is None:
        raise SystemExit(f"{setting.model} has no map of features, so no CAM; name another model")
    shape = (setting.batch, 3, *subject.geometry.crop)
    images = torch.rand(shape, generator=generator(0, "benchmark")).to(setting.device)
    return Work(
        subject=subject,
        layer=find_layer(subject.module, subject.target_layer),
        images=images,
        normalised=subject.preprocess(images),
        target=torch.arange(setting.batch, device=setting.device),
    )


@torch.no_grad()
def forward(work: Work) -> object:
    return work.subject.module(work.normalised)


def full_backward(work: Work) -> object:
    scores = work.subject.module(work.normalised).gather(1, work.target[:, None])
    scores.sum().backward()
    return scores


def camcore_seven(work: Work) -> object:
    recording = record(work.subject, work.images, work.target)
    return [METHODS[name](recording) for name in SEVEN]


def camcore_one(work: Work) -> object:
    return METHODS["gradcam"](record(work.subject, work.images, work.target))


def grad_cam_seven(work: Work) -> object:
    import pytorch_grad_cam as peer

    methods = (
        peer.GradCAM,
        peer.GradCAMPlusPlus,
        peer.XGradCAM,
        peer.HiResCAM,
        peer.LayerCAM,
        peer.EigenCAM,
        peer.EigenGradCAM,
    )
    return [_grad_cam(work, method) for method in methods]


def grad_cam_one(work: Work) -> object:
    from pytorch_grad_cam import GradCAM

    return _grad_cam(work, GradCAM)


def _grad_cam(work: Work, method: Callable[..., object]) -> object:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in work.target.tolist()]
    with method(model=work.subject.module, target_layers=[work.layer]) as cam:
        return cam(input_tensor=work.normalised, targets=targets)


def torchcam_one(work: Work) -> object:
    from torchcam.methods import GradCAM

    with GradCAM(work.subject.module, target_layer=work.subject.target_layer) as cam:
        return cam(work.target.tolist(), work.subject.module(work.normalised))


def captum_one(work: Work) -> object:
    from captum.attr import LayerGradCam

    return LayerGradCam(work.subject.module, work.layer).attribute(work.normalised, target=work.target)


CANDIDATES: dict[str, Callable[[Work], object]] = {
    "one forward, no gradient": forward,
    "forward + backward to the parameters": full_backward,
    "**camcore, seven CAMs**": camcore_seven,
    "camcore, Grad-CAM alone": camcore_one,
    "pytorch-grad-cam, seven CAMs": grad_cam_seven,
    "pytorch-grad-cam, Grad-CAM alone": grad_cam_one,
    "torchcam, Grad-CAM alone": torchcam_one,
    "captum, Grad-CAM alone": captum_one,
}


def clear_gradients(work: Work) -> None:
    work.subject.module.zero_grad(set_to_none=True)
    timing.settle()


def footprint(setting: Setting, name: str) -> tuple[int | None, int]:
    """Peak bytes above the model, and how many parameters the call leaves a `.grad` on. For a fresh process."""
    work = prepare(setting)
    call = partial(CANDIDATES[name], work)
    call()
    peak = timing.peak_above(call, device=setting.device, tidy=partial(clear_gradients, work))
    return peak, sum(parameter.grad is not None for parameter in work.subject.module.parameters())


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """What the timing process sends back."""

    times: dict[str, timing.Times]
    subject: str
    machine: str


def clock(setting: Setting, rounds: int) -> Clocked:
    """Time all candidates that are installed. For a fresh process."""
    work = prepare(setting)
    calls: dict[str, timing.Call] = {}
    for name, candidate in CANDIDATES.items():
        call = partial(candidate, work)
        try:
            call()
        except ImportError as missing:
            print(f"skipped: {name.replace('*', '')}: {missing}", file=sys.stderr)
            continue
        calls[name] = call
    height, width = work.subject.geometry.crop
    return Clocked(
        times=timing.interleave(partial(forward, work), calls, rounds=rounds, tidy=partial(clear_gradients, work)),
        subject=f"{setting.model}, batch of {setting.batch}, {height} x {width}, layer `{work.subject.target_layer}`",
        machine=timing.machine(device=setting.device),
    )


def table(setting: Setting, times: dict[str, timing.Times]) -> list[str]:
    lines = [
        "| | ms | × forward | middle half | peak MB above the model | parameters left with `.grad` |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in times.items():
        print(f"memory of {name.replace('*', '')}", file=sys.stderr)
        peak, gradients = timing.in_fresh_process(footprint, setting, name)
        low, high = one.middle_half
        lines.append(
            f"| {name} | {1000 * median(one.seconds):.0f} | {median(one.ratios):.2f} | {low:.2f}-{high:.2f} | "
            f"{'unknown' if peak is None else f'{peak / 1e6:.0f}'} | {gradients} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradient_cams", description=__doc__)
    parser.add_argument("--model", default="resnet50", help="a torchvision classifier (default: resnet50)")
    parser.add_argument("--batch", type=int, default=8, help="images in the batch (default: 8)")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each candidate, at least 2 (default: 7)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: the spread needs two")

    if options.threads is not None:
        # numpy's BLAS, in which a peer decomposes, reads it when it is loaded: in the processes started below
        os.environ |= dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads)
        )
    setting = Setting(model=options.model, batch=options.batch, device=options.device)
    before = timing.load_average()
    clocked = timing.in_fresh_process(clock, setting, options.rounds)
    threads = "" if options.threads is None else f" --threads {options.threads}"
    text = "\n".join(
        [
            f"{clocked.subject}.",
            "",
            *table(setting, clocked.times),
            "",
            f"{date.today()}, {clocked.machine}; {timing.versions(*PEERS)}; load average {before} at the start, "
            f"{timing.load_average()} at the end; {options.rounds} rounds. Command: "
            f"`python -m benchmarks.gradient_cams --model {options.model} --batch {options.batch} "
            f"--rounds {options.rounds} --device {options.device}{threads}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, f"gradient_cams {options.model} {options.device}", text)


if __name__ == "__main__":
    main()
