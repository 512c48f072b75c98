"""The attack on the prediction beside foolbox's: how often it succeeds at equal settings, and what it costs.

Run from the checkout: `python -m benchmarks.attacks`. Success: plain PGD (fixed step, no restarts, the whole picture)
on scenes that the clean control has right. Both follow the cross-entropy; camcore asks on the 8-bit grid and keeps the
best iterate, foolbox asks in floats and keeps the last. Cost: a ResNet-18 with random weights and a budget of nothing,
so that no image falls and every step is taken, beside a bare loop of forwards and backwards to the pixels.
"""

import argparse
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks import timing
from camcore.adversary import Budget, apgd, log_odds
from camcore.fragility import LEVELS, on_grid
from camcore.images import load
from camcore.statistics import clopper_pearson
from camcore.subject import Classifier
from fixtures.datasets.find import find_dataset
from fixtures.subjects.spec import find_subject

RADII = (4, 5, 6, 8)
STEPS, STEP = 20, 1  # of 1/255
CAMCORE, FOOLBOX, LOOP = "**camcore**", "foolbox", "bare loop"


def draws(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(index) for index in range(count)]


def ours(subject: Classifier, images: Tensor, labels: Tensor, *, radius: float, steps: int) -> Tensor:
    """The images."""
    budget = Budget(epsilon=radius / LEVELS, steps=steps, step=STEP / LEVELS)
    return apgd(subject, images, labels, budget=budget, generators=draws(len(images))).images


def theirs(subject: Classifier, images: Tensor, labels: Tensor, *, radius: float, steps: int) -> Tensor:
    """The images."""
    import foolbox

    class Logits(torch.nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return subject.select(subject.module(subject.preprocess(pixels)))

    model = foolbox.PyTorchModel(Logits().eval(), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP / LEVELS, steps=steps, random_start=False)
    attacked = attack.run(model, images, labels, epsilon=radius / LEVELS)
    return torch.as_tensor(attacked.raw if hasattr(attacked, "raw") else attacked)


def loop(subject: Classifier, images: Tensor, labels: Tensor, *, steps: int) -> None:
    """As many forwards and backwards as the attack makes."""
    for _ in range(steps + 1):
        pixels = images.clone().requires_grad_()
        torch.autograd.grad(log_odds(subject.logits(pixels), labels).sum(), pixels)


def success(count: int) -> list[str]:
    """Rows of the first table."""
    subject = find_subject("control:clean", weights=None, device="cpu")
    data = find_dataset("scenes", subject=subject, n=count, seed=0)
    batch = load(data, data.ids, subject.geometry, seed=0, device=subject.device)
    images = on_grid(batch.images)
    with torch.no_grad():
        right = subject.logits(images).argmax(1) == batch.labels
    images, labels = images[right], batch.labels[right]
    lines = ["| largest change | camcore | foolbox |", "|---|---|---|"]
    for radius in RADII:
        cells = []
        for attack in (ours, theirs):
            attacked = attack(subject, images, labels, radius=radius, steps=STEPS)
            with torch.no_grad():
                hits = int((subject.logits(attacked).argmax(1) != labels).sum())
            rate = clopper_pearson(hits, len(labels), level=0.95)
            cells.append(f"{hits} of {len(labels)}, [{rate.low:.2f}, {rate.high:.2f}]")
        lines.append(f"| {radius}/255 | {' | '.join(cells)} |")
    return lines


def cost(rounds: int, batch: int, steps: int) -> list[str]:
    """Rows of the second table."""
    subject = find_subject("resnet18", weights="random:0", device="cpu")
    for parameter in subject.module.parameters():  # as an attack has them: nobody needs their gradients
        parameter.requires_grad_(False)
    images = on_grid(torch.rand(batch, 3, *subject.geometry.crop, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        labels = subject.logits(images).argmax(1)
    calls = {
        LOOP: partial(loop, subject, images, labels, steps=steps),
        CAMCORE: partial(ours, subject, images, labels, radius=0.0, steps=steps),
        FOOLBOX: partial(theirs, subject, images, labels, radius=1e-9, steps=steps),
    }
    for call in calls.values():
        call()
    times = timing.interleave(calls[LOOP], calls, rounds=rounds, tidy=timing.settle)
    lines = ["| attack | ms | × bare loop | middle half |", "|---|---:|---:|---:|"]
    for name, one in times.items():
        low, high = one.middle_half
        lines.append(f"| {name} | {1000 * median(one.seconds):.0f} | {median(one.ratios):.2f} | {low:.2f}-{high:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="scenes that are attacked (default: 100)")
    parser.add_argument("--batch", type=int, default=4, help="images in the timed batch (default: 4)")
    parser.add_argument("--steps", type=int, default=10, help="of the timed attack (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each, at least 2 (default: 5)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the tables into this Markdown page")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: the spread needs two")
    before = timing.load_average()
    text = "\n".join(
        [
            *success(options.images),
            "",
            *cost(options.rounds, options.batch, options.steps),
            "",
            f"PGD with steps of {STEP}/255: {STEPS} of them on scenes (95 % exact intervals), {options.steps} on "
            f"resnet18, batch {options.batch}. {date.today()}, {timing.machine(device='cpu')}; "
            f"{timing.versions('foolbox')}; load average {before} at the start, {timing.load_average()} at the end; "
            f"{options.rounds} rounds. Command: `python -m benchmarks.attacks`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, "attacks", text)


if __name__ == "__main__":
    main()
