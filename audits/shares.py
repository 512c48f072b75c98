"""A share of images with its 95 % interval, as tables show it."""

from torch import Tensor

from camcore.statistics import Estimate, clopper_pearson, confidence_sequence

LEVEL = 0.95  # of one line of a table; claims share the level of their family


def share_so_far(hits: Tensor, *, digits: int = 2) -> str:
    """`0.25 [0.09, 0.50]`: the share of ones, with the interval that holds wherever the measuring stopped.

    For images that were measured until a verdict was certain: their number hangs on what was found, and an interval for
    a number fixed beforehand would hold less often than it says (docs/statistics.md).

    Args:
        hits: 1 or 0 for each image; NaN where there was nothing to judge.
        digits: After the point.

    Returns:
        The text; "none" where nothing was judged.
    """
    judged = hits[~hits.isnan()].double()
    return _text(confidence_sequence(judged.tolist(), level=LEVEL), digits) if len(judged) else "none"


def exact_share(hits: Tensor, *, digits: int = 2) -> str:
    """The same with the exact interval (Clopper and Pearson 1934), for images whose number was fixed beforehand."""
    judged = hits[~hits.isnan()]
    return _text(clopper_pearson(int(judged.sum()), len(judged), level=LEVEL), digits) if len(judged) else "none"


def _text(found: Estimate, digits: int) -> str:
    return f"{found.point:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
