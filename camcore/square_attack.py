"""The Square attack on the prediction: it asks for scores alone, so that no gradient can be hidden from it."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from camcore.adversary import Attacked, Masks, margin, whole_steps
from camcore.fragility import LEVELS, on_grid
from camcore.images import Images
from camcore.subject import Classifier

SQUARE = 0.8  # share of the pixels that the first squares of the Square attack cover


@torch.no_grad()
def square(
    subject: Classifier,
    images: Images,
    label: Int[Tensor, " b"],
    *,
    epsilon: float,
    queries: int,
    mask: Masks | None = None,
    generators: Sequence[Generator],
) -> Attacked:
    """The Square attack: squares of colour, kept where they help. It needs no gradient, so that none can be hidden.

    Andriushchenko et al. 2020 (arXiv:1912.00049), algorithms 1 and 2 (linf), with the margin. Begins with stripes,
    draws squares whose share of the pixels that may be changed falls from SQUARE, and leaves an image in peace once its
    class has changed. With a mask, each square holds a pixel of it that is drawn, and changes what of it lies within.

    Returns:
        As `apgd`, but for the loss, which is the `margin`; `no_slope` and `stuck` are False throughout. One forward for
        each query.
    """
    start = on_grid(images)
    allowed = torch.ones_like(start[:, 0]) if mask is None else mask.to(start)
    radius = whole_steps(epsilon) / LEVELS
    channels, _, width = start.shape[1:]

    def sign(row: int, *shape: int) -> Tensor:
        return 2 * torch.randint(2, shape, generator=generators[row]).to(start) - 1

    stripes = torch.stack([sign(row, channels, 1, width) for row in range(len(start))])
    best = on_grid((start + radius * stripes * allowed[:, None]).clamp(0, 1))
    top = margin(subject.logits(best), label)
    inside = [None if mask is None else one.nonzero() for one in allowed]
    pixels = allowed.flatten(1).sum(1).tolist()
    for query in range(1, queries):
        rows = (top <= 0).nonzero()[:, 0]
        if not len(rows):
            break
        tried = best[rows].clone()
        for place, row in enumerate(rows.tolist()):
            side = max(1, round((_square_share(query / queries) * pixels[row]) ** 0.5))
            window = _window(inside[row], start.shape[2:], side, generators[row])
            change = radius * sign(row, channels, 1, 1) * allowed[row][window[1:]]
            tried[place][window] = (start[row][window] + change).clamp(0, 1)
        tried = on_grid(tried)
        now = margin(subject.logits(tried), label[rows])
        better = now > top[rows]
        best[rows[better]], top[rows[better]] = tried[better], now[better]
    never = torch.zeros_like(top, dtype=torch.bool)
    return Attacked(images=best, loss=top, success=top > 0, no_slope=never, stuck=never)


def _window(
    inside: Int[Tensor, "n 2"] | None, shape: Sequence[int], side: int, generator: Generator
) -> tuple[slice, slice, slice]:
    """A square that lies in the picture: wherever, or about a pixel that is drawn of those given."""
    side = min(side, *shape)
    if inside is None or not len(inside):
        corner = [int(torch.randint(extent - side + 1, (1,), generator=generator)) for extent in shape]
    else:
        pixel = inside[int(torch.randint(len(inside), (1,), generator=generator))].tolist()
        back = torch.randint(side, (2,), generator=generator).tolist()
        corner = [min(max(at - less, 0), extent - side) for at, less, extent in zip(pixel, back, shape, strict=True)]
    down, right = corner
    return slice(None), slice(down, down + side), slice(right, right + side)


def _square_share(done: float) -> float:
    """Of the pixels that a square covers: halved after 0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 % of the queries."""
    halvings = sum(done > share for share in (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8))
    return SQUARE / 2**halvings
