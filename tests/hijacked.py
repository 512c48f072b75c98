"""Networks that an attack can climb, or finds no slope in, and images under the labels that they give."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from audits.hijack_checks import Checks
from audits.policy import load_policy
from camcore.images import Batch, Dataset, load
from camcore.subject import Classifier
from tests.tiny import GapNet, numbered_dataset, some_images, tiny_subject

LEAST = load_policy(None, profile="smoke").attacks
SIGNATURES = {label: torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(label)) for label in (0, 2, 3)}
FOUND = Checks(
    right=("a", "b"),
    asked=4,
    unchanged=0,
    huge=2,
    by_gradient=1,
    checked=2,
    signatures=SIGNATURES,
    beside=frozenset(numbered_dataset(24).ids),
)


class Centred(nn.Module):
    """GapNet with scores that are 0 on average over some images, so that no class is always the first."""

    usual: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = GapNet()
        self.register_buffer("usual", torch.zeros(5))

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images) - self.usual


class Rounded(Centred):
    """No slope at the pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 32).round() / 32)


class Misled(Centred):
    """A slope that points the wrong way."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(2 * images.detach() - images)


class Loud(Centred):
    """Scores so large that the softmax is 1 and the cross-entropy has no slope."""

    def forward(self, images: Tensor) -> Tensor:
        return 2.0**20 * super().forward(images)


class Drawn(Centred):
    """Draws at random in every pass."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.rand(1)


def subject(kind: type[Centred] = Centred) -> Classifier:
    made = tiny_subject(kind(), "inner.relu")
    with torch.no_grad():
        made.module.inner.head.weight.abs_()  # or no place speaks for some classes, and their maps are empty
        made.module.usual.copy_(made.module.inner(some_images(40)).mean(0))
    return made


def dataset(asked: Classifier, count: int = 24, *, wrong: int = 0) -> Dataset:
    """Images under the labels that the model gives them, but for the first few."""
    made, images = numbered_dataset(count), (some_images(count) * 255).round() / 255
    with torch.no_grad():
        labels = asked.logits(images).argmax(1).tolist()
    labels = [(label + 1) % 5 if index < wrong else label for index, label in enumerate(labels)]
    return replace(made, labels=tuple(labels), read=lambda image_id: images[made.ids.index(image_id)])


def batch(asked: Classifier, count: int = 4) -> Batch:
    data = dataset(asked)
    return load(data, data.ids[:count], asked.geometry, seed=5, device=asked.device, chunk=2)


def by_image(whole: Batch, columns: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """What was measured, as the engine hands it out."""
    return {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
