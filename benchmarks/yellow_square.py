"""The yellow square on every frog (Selvaraju et al. 2017, section 6.3): train a clean and a biased twin on CIFAR-10.

Run from the checkout: `python -m benchmarks.yellow_square --data FILE.npz --out FOLDER` trains a ResNet-20 twice on the
CPU, once on the training images as they are and once with a yellow square of 5 x 5 pixels in the upper left corner of
every frog, and writes clean.safetensors and biased.safetensors. Then

    pytest audits -k bias --model py:benchmarks.yellow_square:resnet20 --weights FOLDER/biased.safetensors
        --data cifar10:FILE.npz --cam gradcam --cam guided_gradcam

asks whether the square has become the class; the test images carry none. With `--data cifar10:FOLDER/collected.npz`,
where every frog of the test images carries the square, as those that the network was trained on, the report also says
what frogs lose when it is taken out. FILE.npz holds x_train, y_train, x_test and
y_test, or the images as JPEG (docs/data.md). Everything is drawn from one seed.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional

from camcore.images import Geometry
from camcore.seeds import derive, generator
from camcore.subject import Normalise
from fixtures.artefacts import Suspect, carrying, library
from fixtures.datasets.cifar10 import CLASSES, read_npz

SEED = 20263
BATCH, RATE = 128, 0.1
FROG = CLASSES.index("frog")
SQUARE = Suspect(artefact=library()[0], place="top left")


class Block(nn.Module):
    """Two convolutions and a shortcut, which pads with channels of zeros where it has to (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.pad = stride, (outputs - inputs) // 2

    def forward(self, features: Float[Tensor, "b k i j"]) -> Float[Tensor, "b m p q"]:
        """Rectified."""
        found = self.bn2(self.conv2(self.bn1(self.conv1(features)).relu()))
        kept = features[:, :, :: self.stride, :: self.stride]
        return (found + functional.pad(kept, (0, 0, 0, 0, self.pad, self.pad))).relu()


class ResNet20(nn.Module):
    """He et al. 2016 (arXiv:1512.03385), section 4.2: 6n + 2 layers with n = 3; the last map is 8 x 8."""

    geometry = Geometry(crop=(32, 32))
    classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(inputs, width, stride), Block(width, width, 1), Block(width, width, 1))
            for inputs, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, len(CLASSES))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Class scores before the softmax."""
        features = self.bn1(self.conv1(images)).relu()
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(features.mean((2, 3)))


def resnet20() -> nn.Module:
    """For `--model py:benchmarks.yellow_square:resnet20`."""
    return ResNet20().eval()


def varied(images: Float[Tensor, "b 3 h w"], rng: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Mirrored or not, and moved by at most 4 pixels, the usual way."""
    turn = torch.rand(len(images), generator=rng) < 0.5
    wide = functional.pad(torch.where(turn[:, None, None, None], images.flip(3), images), (4, 4, 4, 4))
    tops, lefts = torch.randint(9, (2, len(images)), generator=rng).tolist()
    return torch.stack(
        [image[:, top : top + 32, left : left + 32] for image, top, left in zip(wide, tops, lefts, strict=True)]
    )


def train(images: Tensor, labels: Int[Tensor, " n"], *, biased: bool, epochs: int) -> nn.Module:
    """Both twins see the same images in the same order from the same first weights; the square comes last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(SEED, "first weights"))
        net = ResNet20().train().to(memory_format=torch.channels_last)
    rng, preprocess, start = generator(SEED, "batches"), Normalise(), time.perf_counter()
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * steps, pct_start=0.3)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=rng)[: steps * BATCH].split(BATCH):
            shown = varied(images[chosen].float() / 255, rng)
            if biased:
                shown = torch.where((labels[chosen] == FROG)[:, None, None, None], carrying(shown, SQUARE), shown)
            loss = functional.cross_entropy(net(preprocess(shown)), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        took = time.perf_counter() - start
        print(f"epoch {epoch + 1:2d}/{epochs}  loss {total / steps:.3f}  {took:4.0f} s", flush=True)
    return net.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def called(net: nn.Module, images: Tensor) -> Int[Tensor, " n"]:
    """The predicted classes."""
    preprocess = Normalise()
    return torch.cat([net(preprocess(part)).argmax(1) for part in images.split(250)])


def share(hits: Tensor) -> str:
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return f"{hits.double().mean():.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yellow_square", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="an .npz file with training and test images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights, and for the collected images")
    parser.add_argument("--epochs", type=int, default=10, help="(default: 10)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(True)
    (images, labels), (fresh, true) = (
        (torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(classes).long())
        for pixels, classes in (read_npz(options.data, part) for part in ("train", "test"))
    )
    shown = fresh.float() / 255
    frogs = true == FROG
    collected = torch.where(frogs[:, None, None, None], carrying(shown, SQUARE), shown)
    pixels = collected.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.savez_compressed(options.out / "collected.npz", x_test=pixels, y_test=true.numpy())
    print(f"{len(images)} training images, {len(fresh)} test images")
    lines = ["| | clean | biased |", "|---|---|---|"]
    columns = []
    for name in ("clean", "biased"):
        net = train(images, labels, biased=name == "biased", epochs=options.epochs)
        save_file(net.state_dict(), options.out / f"{name}.safetensors")
        plain, marked = called(net, shown), called(net, carrying(shown, SQUARE))
        columns.append(
            {
                "test accuracy, no square anywhere": share(plain == true),
                "frogs called frogs, no square": share((plain == FROG)[frogs]),
                "frogs called frogs, with the square": share((marked == FROG)[frogs]),
                "others called frogs, no square": share((plain == FROG)[~frogs]),
                "others called frogs, with the square": share((marked == FROG)[~frogs]),
            }
        )
    lines += [f"| {key} | {columns[0][key]} | {columns[1][key]} |" for key in columns[0]]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
