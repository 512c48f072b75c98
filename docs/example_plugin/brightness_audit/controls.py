"""A model with the planted defect, and its clean twin: what the audit itself is audited with."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from camcore.subject import Classifier, Normalise
from fixtures.controls.clean import clean_net
from fixtures.controls.registry import Control

STEP = 0.05  # of the range of values


class DimmerSteps(nn.Module):
    """The clean network, whose answer moves on to the next class with every twentieth of mean brightness."""

    def __init__(self, clean: Classifier) -> None:
        super().__init__()
        self.network, self.normalise = clean.module, clean.preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Scores of classes, in an order that depends on the light."""
        logits = self.network(self.normalise(images))
        steps = (images.mean((1, 2, 3)) / STEP).floor().long()
        order = (torch.arange(logits.shape[1], device=images.device) - steps[:, None]) % logits.shape[1]
        return logits.gather(1, order)


class DimmerIgnored(nn.Module):
    """The clean network, which is shown every picture at the same mean brightness."""

    def __init__(self, clean: Classifier) -> None:
        super().__init__()
        self.network, self.normalise = clean.module, clean.preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Scores of classes."""
        return self.network(self.normalise(images - images.mean((1, 2, 3), keepdim=True) + 0.5))


def built(around: type[nn.Module]) -> Classifier:
    """The clean network inside another, which takes pictures in [0, 1]."""
    clean = clean_net()
    as_they_are = Normalise(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return replace(clean, module=around(clean).eval(), preprocess=as_they_are)


DIMMER_STEPS = Control(
    name="dimmer_steps",
    defect="every twentieth of mean brightness moves the answer on to the next class",
    build=lambda: built(DimmerSteps),
    caught_by={"brightness/stays": "FAIL"},
)
DIMMER_IGNORED = Control(
    name="dimmer_ignored", defect=None, build=lambda: built(DimmerIgnored), spared_by=frozenset({"brightness"})
)
