"""Where cells lie, from what a network is made of, and from what its cells see: nothing here knows how it is traced.

`centres` counts input positions window by window, with no formula for a stack. `seen_rows` asks the network itself.
"""

from math import nan

import torch
from torch import Tensor, nn

Window = tuple[int, int, int]  # kernel, stride, padding of one layer

# The layers that a pixel passes on the way to the last map, as torchvision's pages and the papers list them. Blocks of
# stride 1 are left out where their windows are odd and padded by half, since cells stay where they are.
VGG16 = [*[(3, 1, 1)] * 2, (2, 2, 0), *[(3, 1, 1)] * 2, (2, 2, 0)]
VGG16 += [*[(3, 1, 1)] * 3, (2, 2, 0), *[(3, 1, 1)] * 3, (2, 2, 0), *[(3, 1, 1)] * 3]  # features.0 to .29
RESNET = [(7, 2, 3), (3, 2, 1), *[(3, 1, 1)] * 4, *[(3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1)] * 3]
DENSENET = [(7, 2, 3), (3, 2, 1), (2, 2, 0), (2, 2, 0), (2, 2, 0)]
CONVNEXT = [(4, 4, 0), (7, 1, 3), (2, 2, 0), (7, 1, 3), (2, 2, 0), (7, 1, 3), (2, 2, 0), (7, 1, 3)]
MOBILENET_V2 = [(3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1)]
MOBILENET_V3_SMALL = [(3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 1, 1), (5, 2, 2), (5, 1, 2), (5, 2, 2), (5, 1, 2)]
EFFICIENTNET_B0 = [(3, 2, 1), (3, 1, 1), (3, 2, 1), (5, 2, 2), (3, 2, 1), (5, 1, 2), (5, 2, 2), (3, 1, 1)]
SQUEEZENET1_1 = [(3, 2, 0), (3, 2, 0), (3, 1, 1), (3, 2, 0), (3, 1, 1), (3, 2, 0), (3, 1, 1)]  # pools with ceil_mode
GOOGLENET = [(7, 2, 3), (3, 2, 0), (3, 1, 1), (3, 2, 0), (3, 1, 1), (3, 2, 0), (3, 1, 1), (2, 2, 0), (3, 1, 1)]
ALEXNET = [(11, 4, 2), (3, 2, 0), (5, 1, 2), (3, 2, 0), *[(3, 1, 1)] * 3]
CIFAR_RESNET = [(3, 1, 1), *[(3, 1, 1)] * 2, *[(3, 2, 1), (3, 1, 1)] * 2]
SWIN = [(4, 4, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)]  # patches, and merges of two by two
VIT16 = [(16, 16, 0)]


def centres(stack: list[Window], cells: int) -> list[float]:
    """The middle of the input positions below each cell, on an image without borders."""
    found = []
    for cell in range(cells):
        below = {cell}
        for kernel, stride, padding in reversed(stack):
            below = {stride * one - padding + tap for one in below for tap in range(kernel)}
        found.append((min(below) + max(below)) / 2)
    return found


def seen_rows(module: nn.Module, size: tuple[int, int], *, across: bool = False) -> dict[int, tuple[int, int]]:
    """Of each row (or column) of cells that loses nothing to the border: the first and the last row of pixels it sees.

    One image per row of pixels, undefined in that row and nowhere else: whatever cell sees it is undefined too. In an
    image larger than a cell's view, those lose nothing that see the most.
    """
    pixels = size[1] if across else size[0]
    images = torch.zeros(pixels, 3, *size, dtype=torch.float64)
    for pixel in range(pixels):
        images.select(3 if across else 2, pixel)[pixel] = nan
    with torch.no_grad():
        features: Tensor = module(images)
    reached = features.isnan().any(1).any(1 if across else 2)  # (pixels, cells)
    seen = [reached[:, cell].nonzero().flatten().tolist() for cell in range(reached.shape[1])]
    most = max(map(len, seen))
    return {cell: (rows[0], rows[-1]) for cell, rows in enumerate(seen) if len(rows) == most}
