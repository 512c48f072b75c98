"""Which of several categories a model decides for, where each category is a set of its classes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def decisions(logits: Float[Tensor, "b classes"], categories: Sequence[Sequence[int]]) -> Int[Tensor, " b"]:
    """The category whose classes have the highest mean probability; -1 where several have it.

    Geirhos et al. 2019 (arXiv:1811.12231), with the mean of their published evaluation (bethgelab/model-vs-human); a
    sum would favour categories of many classes. A tie is no decision: an argmax would prefer one for its place.

    Args:
        logits: Class scores before the softmax.
        categories: The classes of each; classes that are in none count for none.
    """
    probability = logits.double().softmax(1)
    means = torch.stack([probability[:, list(classes)].mean(1) for classes in categories], 1)
    highest = means == means.amax(1, keepdim=True)
    return torch.where(highest.sum(1) == 1, highest.long().argmax(1), -1)
