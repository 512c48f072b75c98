"""The hijacked dog: photographs of dogs that are to be called a cat, by changes where Grad-CAM looks.

Run from the checkout: `python -m benchmarks.dog_to_cat --model squeezenet1_1 --weights FILE --data FOLDER`. The dogs
are the folder's photographs of ImageNet's classes 151 to 268 that the model has right; the target is the tabby (281).
APGD with the steps and restarts of the profile `release`, within the 20 % of the pixels that Grad-CAM marks; beside it
the same in as many pixels of a random map, in those that Grad-CAM marks least, and everywhere.
"""

import argparse
import sys
from datetime import date
from pathlib import Path

import torch
from PIL import Image as Pillow

from audits.hijack_attacks import WHERE, masks
from audits.policy import JUDGED, load_policy
from benchmarks import timing
from camcore.adversary import Budget, apgd
from camcore.fragility import LEVELS, on_grid
from camcore.images import load
from camcore.recording import record
from camcore.statistics import clopper_pearson
from fixtures.datasets.find import find_dataset
from fixtures.subjects.spec import find_subject

DOGS, CAT = range(151, 269), 281


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dog_to_cat", description=__doc__)
    parser.add_argument("--model", default="resnet50", help="an ImageNet classifier (default: resnet50)")
    parser.add_argument("--weights", help="instead of the published ones")
    parser.add_argument("--data", required=True, help="a folder of photographs")
    parser.add_argument("--out", type=Path, help="folder for the hijacked photographs, as PNG")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    subject = find_subject(options.model, weights=options.weights, device="cpu")
    data = find_dataset(options.data, subject=subject)
    dogs = [image_id for image_id, label in zip(data.ids, data.labels, strict=True) if label in DOGS]
    every = load(data, dogs, subject.geometry, seed=0, device=subject.device)
    with torch.no_grad():
        right = subject.logits(on_grid(every.images)).argmax(1) == every.labels
    kept = [image_id for image_id, hit in zip(dogs, right.tolist(), strict=True) if hit]
    batch = load(data, kept, subject.geometry, seed=0, device=subject.device)
    effort = load_policy(None, profile="release").attacks
    where = masks(record(subject, on_grid(batch.images), chunk=8), batch, area=effort.area)
    target = torch.full_like(batch.labels, CAT)
    lines = ["| where | largest change | called a tabby | exact 95 % interval |", "|---|---|---|---|"]
    for name, text in WHERE.items():
        for radius in effort.sizes if name == "top" else (JUDGED,):
            found = apgd(
                subject,
                batch.images,
                batch.labels,
                budget=Budget(epsilon=radius / LEVELS, steps=effort.steps, restarts=effort.restarts),
                mask=where[name],
                target=target,
                generators=batch.generators(f"dog to cat {name} {radius}"),
            )
            hits = int(found.success.sum())
            rate = clopper_pearson(hits, len(kept), level=0.95)
            lines.append(f"| {text} | {radius}/255 | {hits} of {len(kept)} | [{rate.low:.2f}, {rate.high:.2f}] |")
            print(lines[-1], file=sys.stderr)  # the whole takes about an hour
            if options.out is not None and (name, radius) == ("top", JUDGED):
                options.out.mkdir(parents=True, exist_ok=True)
                for image_id, image in zip(kept, found.images, strict=True):
                    pixels = (image.permute(1, 2, 0) * LEVELS).round().to(torch.uint8).numpy()
                    Pillow.fromarray(pixels).save(options.out / f"{Path(image_id).stem}.png")
    text = "\n".join(
        [
            *lines,
            "",
            f"{options.model}; {len(kept)} of {len(dogs)} photographs of dogs are right; {effort.area:.0%} of the "
            f"pixels, but in the last row; {effort.steps} steps, {effort.restarts} restarts. {date.today()}, "
            f"{timing.machine(device='cpu')}. Command: `python -m benchmarks.dog_to_cat --model {options.model} "
            f"--data {Path(options.data).name}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, "dog to cat", text)


if __name__ == "__main__":
    main()
