"""Captions to choose from: whether a picture's true caption scores above the others, and how much of that is luck."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.images import Images
from camcore.metrics.binding import check_numbers, in_double
from camcore.subject import ImageText

Offered = Sequence[Sequence[int]]  # for each picture, the captions that it is to choose from: the true one first


def scored(subject: ImageText, images: Images, wordings: Sequence[Sequence[str]]) -> Float[Tensor, "pictures captions"]:
    """Every picture's score with every caption, the mean over the caption's wordings, in double precision.

    Raises:
        ValueError: The model scores in half precision.
    """
    flat = in_double(subject.similarity(images, [said for caption in wordings for said in caption]))
    parts = flat.split([len(caption) for caption in wordings], dim=1)
    return torch.stack([part.mean(1) for part in parts], 1)


def chosen(scores: Float[Tensor, "pictures captions"], offered: Offered) -> Float[Tensor, " pictures"]:
    """1 where the true caption scores strictly above every other that is offered, 0 elsewhere.

    Strictly, as Winoground's and SugarCrepe's authors do; the code of What'sUp and of ARO's orders takes `argmax == 0`
    with the true caption first, by which a scorer that is level on everything is always right.

    Raises:
        ValueError: As many lists of captions as pictures are needed, each with two at least.
    """
    _check(scores, offered)
    right = [bool((scores[row, list(others)] < scores[row, true]).all()) for row, (true, *others) in enumerate(offered)]
    return torch.tensor(right, dtype=torch.float64)


def by_luck(scores: Float[Tensor, "pictures captions"], offered: Offered) -> Float[Tensor, " pictures"]:
    """The probability of the true caption if what is level is drawn for: 1/k where k captions share the highest score.

    What `chosen` gives on the average, were levels broken by lot; so a scorer that says nothing gets what luck gives.

    Raises:
        ValueError: See `chosen`.
    """
    _check(scores, offered)
    found = []
    for row, captions in enumerate(offered):
        best = scores[row, list(captions)] == scores[row, list(captions)].max()
        found.append(float(best[0]) / int(best.sum()))
    return torch.tensor(found, dtype=torch.float64)


def beyond_luck(right: Float[Tensor, " pictures"], offered: Offered) -> Float[Tensor, " pictures"]:
    """(r - 1/k) / (1 - 1/k) for k captions: 0 is luck, 1 always right; two captions and four on one scale."""
    luck = torch.tensor([1 / len(captions) for captions in offered], dtype=right.dtype)
    return (right - luck) / (1 - luck)


def _check(scores: Tensor, offered: Offered) -> None:
    if len(offered) != len(scores) or any(len(set(captions)) < 2 for captions in offered):
        raise ValueError(
            f"expected two captions or more for each of {len(scores)} pictures, got {[len(one) for one in offered]}"
        )
    check_numbers(scores)
