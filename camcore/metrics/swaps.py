"""Two changes that make a true caption false, kept apart: its relation turned round, its colours exchanged.

Of "red left of green" the side swap is "red right of green" and the colour swap "green left of red"; both are true of
the picture with the colours exchanged. Scores are of pairs of wordings that mean the same: one says the relation, of
the thing that the caption is about, and one its opposite, of the other thing ("green right of red"). So a caption's
side swap is the other caption in the opposite wording, and its colour swap the other caption in the same one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.metrics.binding import check_numbers, interaction

# two pictures, two captions, caption i true of picture i; last the two wordings of each pair
Worded = Float[Tensor, "groups pictures captions pairs wordings"]


class Preferred(NamedTuple):
    """What is preferred whatever the picture, in each group, as differences of the score."""

    word: Float[Tensor, " groups"]  # captions that say the relation, to those that say its opposite
    first: Float[Tensor, " groups"]  # captions that begin with the first caption's colour, to those with the other


def colour_swaps(scores: Worded) -> Float[Tensor, "groups swaps"]:
    """The interaction of every caption with the one in which the colours alone have changed places.

    Raises:
        ValueError: Not of two pictures, two captions and pairs of wordings, or not finite.
    """
    _check(scores)
    return _interactions(scores)


def side_swaps(scores: Worded) -> Float[Tensor, "groups swaps"]:
    """The interaction of every caption with the one in which the relation alone is turned round.

    Summed over a group it is that of the colour swaps, for both compare the same scores, paired otherwise. What tells
    them apart is how many are above 0, and how far they are from it: a scorer that does not read the relation has side
    swaps of 0, and as many colour swaps above 0 as below.

    Raises:
        ValueError: As `colour_swaps`.
    """
    _check(scores)
    return _interactions(torch.stack((scores[:, :, 0], scores[:, :, 1].flip(-1)), 2))


def preferred(scores: Worded) -> Preferred:
    """How much a relation is preferred to its opposite, and the colour that is named first to the other.

    With the preference for one caption (`priors`) that is all that captions alone can be preferred by: the three are
    the contrasts of four captions, and what adds to one of them leaves the others.

    Raises:
        ValueError: As `colour_swaps`.
    """
    _check(scores)
    mean = scores.mean((1, 3))  # groups captions wordings
    by_word, by_caption = (mean[..., 0] - mean[..., 1]).mean(1), mean[:, 0] - mean[:, 1]
    # in the opposite wording a caption begins with the other one's colour
    return Preferred(word=by_word, first=(by_caption[:, 0] - by_caption[:, 1]) / 2)


def _interactions(scores: Worded) -> Float[Tensor, "groups swaps"]:
    swaps = scores.permute(0, 3, 4, 1, 2)
    return interaction(swaps.flatten(0, 2)).unflatten(0, (len(scores), -1))


def _check(scores: Tensor) -> None:
    if scores.dim() != 5 or scores.shape[1:3] != (2, 2) or scores.shape[4] != 2 or 0 in scores.shape:
        raise ValueError(f"expected scores of shape (groups, 2, 2, pairs, 2), got {tuple(scores.shape)}")
    check_numbers(scores)
