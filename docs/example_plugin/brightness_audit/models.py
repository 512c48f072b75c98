"""`gap:SEED`: a made-up kind of models, to show how a prefix of --model is taught."""

import torch
from torch import nn

from camcore import BadInput, Classifier, Geometry
from fixtures.datasets.scenes import CLASSES


class GapNet(nn.Module):
    """A convolution, a mean over places, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of classes."""
        return self.head(self.features(images).mean((2, 3)))


def load(rest: str, weights: str | None) -> Classifier:
    """The model of `gap:SEED`, on the CPU; the rest (device, hash, target layer) is done for it."""
    if not rest.isdigit():
        raise BadInput(f"expected gap:SEED with a whole number, got 'gap:{rest}'")
    if weights is not None:
        raise BadInput(f"gap:{rest} draws its own weights, got --weights {weights!r}; leave it out")
    with torch.random.fork_rng(devices=[]):  # the process's own generator is nobody's to move
        torch.manual_seed(int(rest))
        module = GapNet()
    return Classifier(
        name=f"gap-{rest}",
        spec=f"gap:{rest}",
        module=module,
        geometry=Geometry(crop=(48, 48)),
        classes=CLASSES,
        weights=f"drawn from seed {rest}",
    )
