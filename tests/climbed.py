"""Networks that an attack can climb, or that hide their gradient, and images under the labels that they give."""

import torch
from torch import Tensor, nn

from camcore.subject import Classifier
from tests.tiny import GapNet, some_images, tiny_subject

EPSILON = 8 / 255


class Centred(nn.Module):
    """GapNet with scores that are 0 on average: no class is always the first, and a few 8-bit steps change some."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = GapNet()

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            usual = self.inner(some_images(50)).mean(0)
        return self.inner(images) - usual


class Rounded(nn.Module):
    """Rounds its input, so that no gradient comes through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Centred()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner((images * 64).round() / 64)


def subject() -> Classifier:
    return tiny_subject(Centred(), "inner.relu")


def draws(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + index) for index in range(count)]


def asked(count: int = 6) -> tuple[Classifier, Tensor, Tensor]:
    one, images = subject(), some_images(count)
    with torch.no_grad():
        return one, images, one.logits((images * 255).round() / 255).argmax(1)
