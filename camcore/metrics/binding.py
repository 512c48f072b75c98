"""Groups of two pictures and two captions: whether the right caption goes with the right picture, and with what."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from camcore.subject import refuse_half

Scores = Float[Tensor, "groups pictures captions"]  # two of each; caption i is true of picture i


class Right(NamedTuple):
    """What is right in each group; what is level is wrong."""

    text: Bool[Tensor, " groups"]  # of either picture, its own caption scores higher
    image: Bool[Tensor, " groups"]  # of either caption, its own picture scores higher
    group: Bool[Tensor, " groups"]  # both
    one: Float[Tensor, " groups"]  # share of the two pictures whose own caption scores higher


def interaction(scores: Scores) -> Float[Tensor, " groups"]:
    """s(I,T) - s(I,T') - s(I',T) + s(I',T'): above 0 where captions go with their pictures, whatever else is preferred.

    A preference for a caption or for a picture adds the same to two terms of opposite sign, and cancels. That is what
    tells binding from a prior: a scorer that always prefers "left" is right on every picture where that is true.
    """
    check(scores)
    return scores[:, 0, 0] - scores[:, 0, 1] - scores[:, 1, 0] + scores[:, 1, 1]


def priors(scores: Scores) -> tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]:
    """How much the first caption is preferred whatever the picture, and the first picture whatever the caption."""
    check(scores)
    mean = scores.mean(1), scores.mean(2)
    return mean[0][:, 0] - mean[0][:, 1], mean[1][:, 0] - mean[1][:, 1]


def right(scores: Scores) -> Right:
    """Text, image and group score of Thrush et al. 2022 (Winoground, arXiv:2204.03162), strictly.

    At chance a quarter, a quarter and a sixth of the groups are right. Level scores are wrong: with `argmax` a scorer
    that always says the same would be right wherever the true caption comes first.
    """
    check(scores)
    first, second = scores[:, 0, 0] > scores[:, 0, 1], scores[:, 1, 1] > scores[:, 1, 0]
    image = (scores[:, 0, 0] > scores[:, 1, 0]) & (scores[:, 1, 1] > scores[:, 0, 1])
    text = first & second
    return Right(text=text, image=image, group=text & image, one=(first.double() + second.double()) / 2)


def decided_alone(scores: Scores, alone: Float[Tensor, "groups captions"]) -> Bool[Tensor, " groups"]:
    """Where the captions decide without the pictures: both prefer the same caption, the one preferred with neither.

    Of what pictures decide without the captions: the same of `scores.mT`.

    Args:
        scores: Of the groups.
        alone: The captions' scores with a picture that shows nothing.
    """
    check(scores)
    preferred = torch.cat([scores, alone[:, None]], 1).diff(dim=2)[:, :, 0].sign()
    return (preferred != 0).all(1) & (preferred == preferred[:, :1]).all(1)


def check(scores: Tensor) -> None:
    """Refuse what is no group of two and two, and half precision."""
    if scores.dim() != 3 or scores.shape[1:] != (2, 2):
        raise ValueError(f"expected scores of shape (groups, 2, 2), got {tuple(scores.shape)}")
    check_numbers(scores)


def check_numbers(scores: Tensor) -> None:
    """Refuse half precision, NaN and infinity."""
    in_double(scores)
    if not scores.isfinite().all():
        raise ValueError("expected finite scores, got NaN or infinity")


def in_double(scores: Tensor) -> Tensor:
    """Scores in double precision, in which their means are taken.

    Raises:
        ValueError: They come in half precision, in which scores are level that are not; to raise them now is too late.
    """
    refuse_half(scores)
    return scores.double()
