"""The score of one class for many versions of each image: what every measure of faithfulness asks for."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.images import Images
from camcore.subject import Classifier

Perturb = Callable[[Int[Tensor, " n"], Int[Tensor, " n"]], Images]  # (which image, which step) -> what is shown


class Scores(NamedTuple):
    """Of one class, from the same forwards. Three scales, all of one shape."""

    logit: Tensor
    probability: Tensor
    log_odds: Tensor  # log p / (1 - p): ranks as the probability does, and does not saturate with it

    def drops(self, later: "Scores") -> "Scores":
        """By how much each is larger than later."""
        return Scores(*(before - after for before, after in zip(self, later, strict=True)))


def class_scores(logits: Float[Tensor, "n classes"], target: Int[Tensor, " n"]) -> Scores:
    """Logit, probability and log-odds of each row's class. With a single class the log-odds are infinite."""
    column = target[:, None]
    logit = logits.gather(1, column)
    others = logits.scatter(1, column, -torch.inf).logsumexp(1, keepdim=True)
    return Scores(*(score[:, 0] for score in (logit, logits.softmax(1).gather(1, column), logit - others)))


@torch.no_grad()
def perturbed_scores(
    subject: Classifier, target: Int[Tensor, " b"], perturb: Perturb, *, steps: int, chunk: int
) -> Scores:
    """The scores of every image at every step, each (b, steps).

    Images and steps are one long list, cut into forwards of equal size: a small batch needs no small forwards, and no
    more than `chunk` perturbed images exist at a time.
    """
    every = torch.arange(len(target) * steps, device=target.device)
    parts = []
    for part in every.split(chunk):
        image, step = part // steps, part % steps
        parts.append(class_scores(subject.logits(perturb(image, step)), target[image]))
    return Scores(*(torch.cat(scores).view(len(target), steps) for scores in zip(*parts, strict=True)))
