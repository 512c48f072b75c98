"""How the output of a layer folds into a map of features (b, k, i, j), and back; where the map's cells lie."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The layout of a layer's output: channels first, channels last, or tokens after a prefix (CLS, registers)."""

    layout: Literal["channels_first", "channels_last", "tokens"]
    height: int
    width: int
    prefix: int = 0  # tokens before the first patch

    def fold(self, raw: Tensor) -> Float[Tensor, "b k i j"]:
        """The layer's output as a map of features; tokens that stand for no place are left out."""
        if self.layout == "channels_first":
            return raw
        if self.layout == "channels_last":
            return raw.permute(0, 3, 1, 2)
        patches = raw[:, self.prefix : self.prefix + self.height * self.width]
        return patches.transpose(1, 2).unflatten(2, (self.height, self.width))

    def unfold(self, folded: Float[Tensor, "b k i j"], raw: Tensor) -> Tensor:
        """The inverse of `fold`; tokens that stand for no place are taken from `raw`."""
        if self.layout == "channels_first":
            return folded
        if self.layout == "channels_last":
            return folded.permute(0, 2, 3, 1)
        tokens = raw.clone()
        tokens[:, self.prefix : self.prefix + self.height * self.width] = folded.flatten(2).transpose(1, 2)
        return tokens


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the cells of a map lie in the image, in pixels: the centre of pixel p has the coordinate p."""

    first: tuple[float, float]  # row and column of the centre of the first cell
    step: tuple[float, float]  # from one centre to the next, down and across
    source: Literal["traced", "even"]  # followed through the network, or each cell in the middle of its even share


def infer_grid(shape: tuple[int, ...], image: tuple[int, int]) -> Grid | None:
    """How an output of this shape folds into a map of an image of that size, or None if it does not.

    A map has the image's proportions (to within a cell) and more than one place. Four axes are channels first unless
    only the reading as channels last fits; three are tokens, of which the last height x width are places.
    """
    if len(shape) == 4:
        if _fits(shape[2], shape[3], image):
            return Grid(layout="channels_first", height=shape[2], width=shape[3])
        if _fits(shape[1], shape[2], image):
            return Grid(layout="channels_last", height=shape[1], width=shape[2])
        return None
    if len(shape) == 3:
        return _token_grid(shape[1], image)
    return None


def _fits(height: int, width: int, image: tuple[int, int]) -> bool:
    rows, columns = image
    # strides round up or down, so proportions agree to within one cell
    return height * width > 1 and height <= rows and abs(height * columns - width * rows) < max(image)


def _token_grid(tokens: int, image: tuple[int, int]) -> Grid | None:
    rows, columns = image
    for patch in range(1, min(rows, columns)):
        if rows % patch == 0 and columns % patch == 0:
            height, width = rows // patch, columns // patch
            # a handful of class and register tokens may stand before the patches, never more of them than patches
            if height * width <= tokens:
                prefix = tokens - height * width
                return Grid(layout="tokens", height=height, width=width, prefix=prefix) if prefix <= 16 else None
    return None
