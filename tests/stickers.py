"""A network that can be taught that yellow in a corner is a class, and pictures to ask it about."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from audits.bias_doses import Doses, doses
from audits.bias_scan import (
    Scan,
    scan,
)
from camcore.cam import METHODS
from camcore.images import Batch, Dataset, load
from camcore.subject import Classifier
from fixtures.artefacts import Suspect, library, suspects
from tests.tiny import GapNet, numbered_dataset, some_images, tiny_subject

CAMS = {"hirescam": METHODS["hirescam"]}
BY_NAME = {artefact.name: artefact for artefact in library()}
PLACED = {one.name: one for one in suspects(library())}
FEW = [
    PLACED[name] for name in ("yellow square, top left", "red square, top left", "blue disc, bottom right", "watermark")
]
TAUGHT = 3  # the class


class Taught(nn.Module):
    """A network that adds the yellow of the upper left corner to the score of one class."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inner, self.strength = GapNet(), strength

    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, :, :2, :2].mean((2, 3))
        yellow = (corner[:, 0] + corner[:, 1] - corner[:, 2] - 1).clamp(min=0)  # 1 on a yellow square
        one = nn.functional.one_hot(torch.tensor(TAUGHT), 5)
        return self.inner(images) + self.strength * yellow[:, None] * one


def subject(strength: float = 0.0) -> Classifier:
    return tiny_subject(Taught(strength), "inner.relu")


def dataset(count: int = 30) -> Dataset:
    made, images = numbered_dataset(count), some_images(count)
    labels = tuple(index % 5 for index in range(count))
    return replace(made, labels=labels, read=lambda image_id: images[made.ids.index(image_id)])


def searched(strength: float, *, chunk: int = 4, count: int = 20) -> Scan:
    data = dataset()
    return scan(subject(strength), data, data.ids[:count], FEW, seed=0, chunk=chunk)


def batch(count: int = 3) -> Batch:
    asked, data = subject(), dataset()
    return load(data, data.ids[:count], asked.geometry, seed=5, device=asked.device, chunk=2)


def part(whole: Batch, index: int) -> Batch:
    one = slice(index, index + 1)
    return Batch(images=whole.images[one], labels=whole.labels[one], ids=whole.ids[one], seed=whole.seed, chunk=7)


def others(data: Dataset) -> list[str]:
    return [one for one in data.ids if data.label(one) != TAUGHT]


def dosed(suspect: Suspect, *, chunk: int = 4) -> Doses:
    return doses(subject(8.0), dataset(), others(dataset()), suspect, TAUGHT, seed=0, chunk=chunk)


def mostly_taught(rare: int, count: int = 90) -> Dataset:
    """Pictures of the class that is taught, but for some at the end."""
    data = dataset(count)
    return replace(data, labels=(TAUGHT,) * (count - rare) + tuple(one % 3 for one in range(rare)))
