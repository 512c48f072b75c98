"""A share of images with its exact interval, as tables show it."""

from torch import Tensor

from camcore.statistics import clopper_pearson

LEVEL = 0.95  # of one line of a table; claims share the level of their family


def exact_share(hits: Tensor, *, digits: int = 2) -> str:
    """`0.25 [0.11, 0.45]`: the share of ones with its exact 95 % interval (Clopper and Pearson 1934).

    Args:
        hits: 1 or 0 for each image; NaN where there was nothing to judge.
        digits: After the point.

    Returns:
        The text; "none" where nothing was judged.
    """
    judged = hits[~hits.isnan()]
    if not len(judged):
        return "none"
    found = clopper_pearson(int(judged.sum()), len(judged), level=LEVEL)
    return f"{found.point:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
