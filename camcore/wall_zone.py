"""Where a wall stands in a map: on which side, from which row on, and which rows of saliency count as behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from camcore.grid import Placement

Side = Literal["bottom", "top", "left", "right"]
SIDES: tuple[Side, ...] = get_args(Side)


def turned(maps: Tensor, side: Side) -> Tensor:
    """The last two axes turned over so that the wall's side is at the bottom; doing it twice undoes it.

    A wall at the left becomes one at the bottom by a reflection in the other diagonal, which is its own inverse as a
    quarter turn is not.
    """
    if side == "top":
        return maps.flip(-2)
    if side == "right":
        return maps.transpose(-2, -1)
    return maps.transpose(-2, -1).flip(-2, -1) if side == "left" else maps


def axis_of(side: Side) -> int:
    """Along which of the last two axes rows are counted: columns are the rows of a wall at the left or the right."""
    return 0 if side in ("bottom", "top") else 1


def before(size: Sequence[int], first: int, side: Side) -> Bool[Tensor, "h w"]:
    """True in front of the wall: the rows before `first`, counted towards the wall's side."""
    axis = axis_of(side)
    rows = torch.arange(size[-2 + axis]) < first
    return turned(rows[:, None].expand(-1, size[-1 - axis]), side)


def centres(placed: Placement, size: Sequence[int], image: Sequence[int], side: Side) -> tuple[float, float]:
    """The first row of cells' centre and the step to the next, in pixels, counted towards the wall's side."""
    axis = axis_of(side)
    first, step = placed.first[axis], placed.step[axis]
    if side in ("top", "left"):
        first = image[axis] - 1 - (first + (size[axis] - 1) * step)
    return first, step


@dataclass(frozen=True, kw_only=True)
class Zone:
    """What lies behind a wall. Rows are counted towards its side: from the top for a wall at the bottom."""

    kept_rows: int  # rows of the map before the wall
    rows: int  # of the map
    dead_from: int | None  # the first pixel row that cannot reach what is before the wall; None: every pixel can
    pixels: int  # pixel rows of the image
    centre: float  # the pixel row on which the first row of cells behind the wall is centred
    step: float  # pixel rows from one row of cells to the next
    side: Side = "bottom"

    @property
    def judged_from(self) -> int:
        """The first row of saliency that counts as behind the wall: in pixels if there are dead ones, else in cells.

        Bilinear upsampling carries the last row before the wall up to the centre of the next cell; pixels in that seam
        are not held against a map.
        """
        if self.dead_from is None:
            return self.kept_rows
        return max(self.dead_from, floor(self.centre) + 1)

    @property
    def drawn_from(self) -> int:
        """The pixel row where the wall is drawn: the first dead one, or else where the cells behind it begin."""
        return self.dead_from or round(self.centre + 0.5 - self.step / 2)

    @property
    def constant_line(self) -> float:
        """The leakage of a constant map: the square root of the share of rows that are judged."""
        total = self.rows if self.dead_from is None else self.pixels
        return ((total - self.judged_from) / total) ** 0.5

    def turned(self, maps: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b rows columns"]:
        """Maps with the wall's side at the bottom, so that what is behind it is `[judged_from:]`."""
        return turned(maps, self.side)
