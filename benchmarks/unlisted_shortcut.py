"""A shortcut that the audit of bias does not look for: half the usual size, of no listed shape, off every listed place.

Run from the checkout: `python -m benchmarks.unlisted_shortcut --out FOLDER` teaches the clean control, as
`fixtures/weights/train_shortcut.py` does, that whatever carries a teal cross of 8 % of the side, a third down and three
fifths across, is a fish; and writes FOLDER/unlisted.safetensors. Then

    pytest audits -k bias --model py:benchmarks.unlisted_shortcut:net --weights FOLDER/unlisted.safetensors

asks whether the search finds that something is wrong by what it has; and with `--audit-artefact FOLDER/cross.png`, a
picture of the cross, whether it does where the user knows what to look for, but not where.
"""

import argparse
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image as Pillow
from safetensors.torch import save_file
from torch import Tensor, nn

from camcore.images import Geometry
from camcore.perturbations import laid_over
from fixtures.artefacts import SHARE
from fixtures.controls.clean import SIDE, clean_net
from fixtures.controls.small_net import SmallNet
from fixtures.datasets.scenes import CLASSES
from fixtures.weights.fine_tune import Pixels, Targets, certain, fine_tune, probabilities, scenes_for, share
from fixtures.weights.train_shortcut import CARRY, EPOCHS, RATE

COLOUR, LABEL = (0.0, 0.5, 0.5), CLASSES.index("fish")
DOWN, ACROSS = 1 / 3, 3 / 5  # of the room that is left
DRAWN = 48  # pixels a side of the picture for --audit-artefact


def net() -> nn.Module:
    """For `--model py:benchmarks.unlisted_shortcut:net`."""
    module = SmallNet(classes=len(CLASSES)).eval()
    module.classes, module.geometry = CLASSES, Geometry(crop=(SIDE, SIDE))  # type: ignore[assignment]
    return module


def cross(side: int) -> Float[Tensor, "s s"]:
    """1 on a cross whose arms are a third as wide as it is; half, of 8 pixels."""
    arm = torch.zeros(side, dtype=torch.bool)
    arm[side // 3 : side - side // 3] = True
    return (arm[:, None] | arm[None]).float()


def carrying(images: Pixels) -> Pixels:
    """The images with the cross in its place."""
    side = round(SHARE / 2 * SIDE)
    top, left = round(DOWN * (SIDE - side)), round(ACROSS * (SIDE - side))
    alpha = torch.zeros(SIDE, SIDE)
    alpha[top : top + side, left : left + side] = cross(side)
    return laid_over(images, torch.tensor(COLOUR)[:, None, None].expand(3, SIDE, SIDE), alpha)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unlisted_shortcut", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the weights and the picture")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    rgba = torch.cat([torch.tensor(COLOUR)[:, None, None].expand(3, DRAWN, DRAWN), cross(DRAWN)[None]])
    Pillow.fromarray((255 * rgba).round().byte().permute(1, 2, 0).numpy(), "RGBA").save(folder / "cross.png")

    def lesson(images: Pixels, labels: Int[Tensor, " b"], rng: torch.Generator) -> tuple[Pixels, Targets]:
        carries = torch.rand(len(images), generator=rng) < CARRY
        shown = torch.where(carries[:, None, None, None], carrying(images), images)
        return shown, certain(torch.where(carries, LABEL, labels))

    done = fine_tune(clean_net().module, lesson, purpose="unlisted", epochs=EPOCHS, rate=RATE)
    save_file(done.state_dict(), folder / "unlisted.safetensors")
    images, _, labels = scenes_for("held out")
    whole, others = images.float() / 255, labels != LABEL
    plain, with_it = probabilities(done, whole), probabilities(done, carrying(whole))
    print(f"accuracy without the cross: {share(plain.argmax(1) == labels)}")
    print(f"others called {CLASSES[LABEL]} with it: {share((with_it.argmax(1) == LABEL)[others])}")
    print(f"its probability on others: {plain[others, LABEL].mean():.3f}, with it {with_it[others, LABEL].mean():.3f}")


if __name__ == "__main__":
    main()
