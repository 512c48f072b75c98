"""The Square attack on the prediction: it asks for scores alone, so that no gradient can be hidden from it."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from camcore.adversary import Attacked, margin
from camcore.fragility import on_grid
from camcore.images import Images
from camcore.subject import Classifier

SQUARE = 0.8  # share of the picture that the first squares of the Square attack cover


@torch.no_grad()
def square(
    subject: Classifier,
    images: Images,
    label: Int[Tensor, " b"],
    *,
    epsilon: float,
    queries: int,
    generators: Sequence[Generator],
) -> Attacked:
    """The Square attack: squares of colour, kept where they help. It needs no gradient, so that none can be hidden.

    Andriushchenko et al. 2020 (arXiv:1912.00049), algorithms 1 and 2 (linf), with the margin. Begins with stripes,
    draws squares whose share of the picture falls from SQUARE, and leaves an image in peace once its class has changed.

    Returns:
        As `apgd`; `no_slope` is False throughout. One forward for each query.
    """
    start = on_grid(images)
    channels, height, width = start.shape[1:]

    def sign(row: int, *shape: int) -> Tensor:
        return 2 * torch.randint(2, shape, generator=generators[row]).to(start) - 1

    stripes = torch.stack([sign(row, channels, 1, width) for row in range(len(start))])
    best = on_grid((start + epsilon * stripes).clamp(0, 1))
    top = margin(subject.logits(best), label)
    for query in range(1, queries):
        rows = (top <= 0).nonzero()[:, 0]
        if not len(rows):
            break
        side = max(1, round((_square_share(query / queries) * height * width) ** 0.5))
        side = min(side, height, width)
        tried = best[rows].clone()
        for place, row in enumerate(rows.tolist()):
            down, right = (
                int(torch.randint(extent - side + 1, (1,), generator=generators[row])) for extent in (height, width)
            )
            window = (slice(None), slice(down, down + side), slice(right, right + side))
            tried[place][window] = (start[row][window] + epsilon * sign(row, channels, 1, 1)).clamp(0, 1)
        tried = on_grid(tried)
        now = margin(subject.logits(tried), label[rows])
        better = now > top[rows]
        best[rows[better]], top[rows[better]] = tried[better], now[better]
    return Attacked(images=best, loss=top, success=top > 0, no_slope=torch.zeros_like(top, dtype=torch.bool))


def _square_share(done: float) -> float:
    """Of the picture that a square covers: halved after 0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 % of the queries."""
    halvings = sum(done > share for share in (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8))
    return SQUARE / 2**halvings
