"""What Grad-CAM and Guided Grad-CAM show of a sticker that is the class to one network and nothing to its clean twin.

Run from the checkout: `python -m benchmarks.sticker_strip --out docs/sticker_strip.png`. A drawn leaf that carries the
yellow square, under the maps of what `control:clean` and `control:shortcut100` call it, and the share of each map on
the square.
"""

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from audits.bias_scan import area
from audits.seen import seen
from camcore.cam import METHODS
from camcore.images import load
from camcore.metrics.localisation import energy_inside
from fixtures.artefacts import Suspect, carrying
from fixtures.controls.bias import SQUARE
from fixtures.datasets.scenes import CLASSES, scenes
from fixtures.subjects.spec import find_subject

NETWORKS = {"clean": "the clean network", "shortcut100": "taught that the square is a mug"}
MAPS = {"gradcam": "Grad-CAM", "guided_gradcam": "Guided Grad-CAM"}
SEED = 20264  # of scenes that no recipe has drawn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sticker_strip", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    out = parser.parse_args().out
    figure, axes = plt.subplots(len(NETWORKS), 1 + len(MAPS), figsize=(6.6, 5.0), layout="constrained")
    for row, (control, what) in enumerate(NETWORKS.items()):
        subject = find_subject(f"control:{control}", device="cpu")
        data = scenes(len(CLASSES), seed=SEED, size=subject.geometry.crop[0])
        leaf = [data.ids[data.labels.index(CLASSES.index("leaf"))]]
        batch = load(data, leaf, subject.geometry, seed=0, device=subject.device)
        draw(axes[row], subject, carrying(batch.images, SQUARE), what, SQUARE)
    figure.savefig(out, dpi=72)


def draw(axes, subject, images, what: str, suspect: Suspect) -> None:
    """One row: the picture, and each map with its share on the suspect."""
    mask = area(images, suspect)
    picture = images[0].permute(1, 2, 0)
    for axis, (name, title) in zip(axes[1:], MAPS.items(), strict=True):
        probability, saliency = seen(subject, images, METHODS[name], None, chunk=1)
        inside = float(energy_inside(saliency, mask.expand_as(saliency))[0])
        axis.imshow(picture.mean(2), cmap="gray", vmin=0, vmax=1.6)
        axis.imshow(saliency[0], cmap="inferno", alpha=0.75)
        axis.set_title(f"{title}:\n{inside:.2f} on the square", fontsize=9)
    called = int(probability[0].argmax())
    axes[0].imshow(picture)
    axes[0].set_title(f"{what}:\n{subject.classes[called]} ({probability[0, called]:.2f})", fontsize=9)
    for axis in axes:
        axis.set_axis_off()
    print(f"{what}: {subject.classes[called]}; the square has {float(mask.mean()):.3f} of the picture")


if __name__ == "__main__":
    main()
