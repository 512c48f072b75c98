"""The clean control and the adversarially trained one under the hijack audit's attack, over sizes of change.

Run from the checkout: `python -m benchmarks.hijack_radii --write docs/reproductions.md`. The attack of the profile `pr`
on scenes that the model has right, in the pixels that Grad-CAM marks and everywhere; every size is tried on every
picture, and stands for itself.
"""

import argparse
from datetime import date
from pathlib import Path

import torch

from audits.hijack_attacks import attack, masks
from audits.policy import load_policy
from benchmarks import timing
from camcore.fragility import on_grid
from camcore.images import load
from camcore.recording import record
from camcore.statistics import clopper_pearson
from fixtures.datasets.scenes import scenes
from fixtures.subjects.spec import find_subject

CONTROLS = ("clean", "adversarial")
RADII = (2, 4, 6, 8, 12, 16)  # in steps of 1/255
SEED = 20264  # of scenes that no recipe has drawn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hijack_radii", description=__doc__)
    parser.add_argument("--images", type=int, default=40, help="scenes to begin with (default: 40)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    effort = load_policy(None, profile="pr").attacks
    columns, counts = [], []
    for name in CONTROLS:
        subject = find_subject(f"control:{name}", device="cpu")
        data = scenes(options.images, seed=SEED, size=subject.geometry.crop[0])
        every = load(data, data.ids, subject.geometry, seed=0, device=subject.device)
        with torch.no_grad():
            right = subject.logits(on_grid(every.images)).argmax(1) == every.labels
        kept = [image_id for image_id, hit in zip(data.ids, right.tolist(), strict=True) if hit]
        batch = load(data, kept, subject.geometry, seed=0, device=subject.device)
        where = masks(record(subject, on_grid(batch.images), chunk=8), batch, area=effort.area)
        counts.append(f"{name} has {len(kept)} of {options.images} right")
        columns += [
            [rate(attack(subject, batch, where[place], radius, effort).success) for radius in RADII]
            for place in ("top", "all")
        ]
    heads = [
        f"{name}, {where}" for name in CONTROLS for where in (f"{effort.area:.0%} that Grad-CAM marks", "everywhere")
    ]
    text = "\n".join(
        [
            f"| largest change | {' | '.join(heads)} |",
            "|---" * (len(heads) + 1) + "|",
            *(
                f"| {radius}/255 | {' | '.join(cells)} |"
                for radius, cells in zip(RADII, zip(*columns, strict=True), strict=True)
            ),
            "",
            f"Share hijacked with its exact 95 % interval; {'; '.join(counts)}; {effort.steps} steps, "
            f"{effort.restarts} restart. {date.today()}, {timing.machine(device='cpu')}. Command: "
            f"`python -m benchmarks.hijack_radii --images {options.images}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, "hijack radii", text)


def rate(hits: torch.Tensor) -> str:
    found = clopper_pearson(int(hits.sum()), len(hits), level=0.95)
    return f"{found.point:.2f} [{found.low:.2f}, {found.high:.2f}]"


if __name__ == "__main__":
    main()
