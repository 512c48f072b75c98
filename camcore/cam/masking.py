"""Methods that hide parts of the image and watch the score: maps at the image's resolution, no gradient.

What is hidden is replaced in pixel units, before normalisation: black is black, not the mean of the data set.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from camcore.ask import pairs, rerun, score_of, scores
from camcore.cam.registry import register_asking
from camcore.images import Images
from camcore.perturbations import black, mean_colour
from camcore.recording import Recording
from camcore.seeds import generator
from camcore.subject import check_images

PixelMap = Float[Tensor, "b h w"]
Baseline = Callable[[Images], Images] | Tensor | Sequence[float] | float


def background(images: Images, baseline: Baseline) -> Images:
    """What stands in place of each image.

    Args:
        images: In [0, 1].
        baseline: A function of `camcore.perturbations` (black, mean_colour, blur), a grey, a colour, or an image
            for each.

    Raises:
        ValueError: A colour without three numbers, images of another shape, or anything outside [0, 1].
    """
    if callable(baseline):
        filled = baseline(images)
    else:
        given = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
        filled = given.view(-1, 1, 1).expand_as(images) if given.shape in ((), (3,)) else given
    if filled.shape != images.shape:
        raise ValueError(
            f"a baseline is a function of images, a grey or a colour of three numbers, or images of shape "
            f"{tuple(images.shape)}; "
            f"got shape {tuple(filled.shape)}"
        )
    check_images(filled)
    return filled


@register_asking
@torch.no_grad()
def occlusion(
    rec: Recording, *, window: float = 1 / 7, stride: float = 1 / 14, baseline: Baseline = mean_colour
) -> PixelMap:
    """Occlusion sensitivity: by how much the score drops, on average, when a square that covers the pixel is hidden.

    Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2; they plot the score at the square's position, which leaves the
    pixels at the edges without a value. Here a pixel's value is the mean over the squares that cover it. Where
    the stride does not end flush with the image, one more square does: every pixel is covered. One forward per square
    and image: 13 x 13 of them at 224 pixels as it stands.

    Args:
        rec: A recording that knows its model.
        window: Side of the square: below 1 a share of the image's shorter side, from 1 on in pixels.
        stride: From one square to the next, likewise; at most the window.
        baseline: What is put there (see `background`); each image's own mean colour if not given.

    Raises:
        ValueError: A window larger than the image, a stride larger than the window, neither a share nor whole pixels.
    """
    height, width = rec.images.shape[2:]
    shorter = min(height, width)
    side, step = _in_pixels("window", window, shorter), _in_pixels("stride", stride, shorter)
    if side > shorter:
        raise ValueError(f"a window of {side} pixels does not fit in an image of {height}x{width}; give a smaller one")
    if step > side:
        raise ValueError(
            f"a stride of {step} pixels with a window of {side} leaves pixels uncovered; give at most {side}"
        )
    rows_hidden = _squares(height, side, step).to(rec.images.device)
    columns_hidden = _squares(width, side, step).to(rec.images.device)
    behind = background(rec.images, baseline)
    whole = score_of(rec, rec.logits, torch.arange(len(rec.images), device=rec.images.device))
    drops = torch.zeros_like(rec.images[:, 0], dtype=whole.dtype)
    for rows, squares, _ in pairs(rec, len(rows_hidden) * len(columns_hidden)):
        down, across = squares // len(columns_hidden), squares % len(columns_hidden)
        hidden = rows_hidden[down][:, :, None] & columns_hidden[across][:, None, :]
        asked = torch.where(hidden[:, None], behind[rows], rec.images[rows])
        drop = whole[rows] - scores(rec, asked, rows)
        drops.index_add_(0, rows, drop[:, None, None] * hidden)
    return drops / (rows_hidden.sum(0)[:, None] * columns_hidden.sum(0))


def _in_pixels(name: str, length: float, shorter: int) -> int:
    if not (0 < length < 1 or (length >= 1 and length == int(length))):
        raise ValueError(
            f"{name} must be a share of the shorter side below 1, or a whole number of pixels, got {length}"
        )
    return max(1, round(length * shorter)) if length < 1 else int(length)


def _squares(side: int, window: int, stride: int) -> Bool[Tensor, "positions side"]:
    """Which pixels along one side each position of the window hides; the last position ends with the side."""
    first = torch.arange(0, side - window + stride, stride).clamp_max(side - window)[:, None]
    pixels = torch.arange(side)
    return (pixels >= first) & (pixels < first + window)


@register_asking
@torch.no_grad()
def rise(
    rec: Recording,
    *,
    masks: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    baseline: Baseline = black,
    weighting: str = "probability",
    coverage: str = "expected",
    seed: int = 0,
) -> PixelMap:
    """RISE: the mean probability of the class over random masks, each counted by how much of the pixel it leaves.

    Petsiuk et al. 2018, arXiv:1806.07421, eq. 6 and section 3.2: grids of cells, each kept with probability p = `keep`,
    upsampled bilinearly and shifted by a random part of a cell; S = 1/(N p) Σ f(x ∘ M) M. The cell is rounded up, as in
    the authors' code (rounded down as in the text, a mask would not always cover the image and its shift). All images
    share the masks. One forward per mask and image; the paper takes 4000 for VGG-16, 8000 for ResNet-50.

    Not centred: where nothing matters the map is at the mean probability, and it is never negative but for a
    contrast. So a pixel that the N masks happen to leave more often than N p times is raised in proportion to that
    mean: where masking hardly moves the score, the map shows nothing but that. `coverage="drawn"` divides by the
    sum of the masks at the pixel instead, which has the same limit and no such noise.

    Args:
        rec: A recording that knows its model.
        masks: N. The map's noise falls with its root.
        cells: Along each side of a grid.
        keep: The share of cells that are left to be seen.
        baseline: What is seen elsewhere (see `background`); black in pixel units, where the authors' code multiplies
            the normalised image, which puts the mean of the data set there.
        weighting: "probability" as in the paper, or "logit": the explained score itself.
        coverage: What the sum is divided by: "expected" as in the paper, N p, or "drawn", Σ M at the pixel.
        seed: Of the masks.

    Raises:
        ValueError: No masks, no cells, a share of kept cells outside (0, 1], an unknown weighting or coverage.
    """
    if masks < 1 or cells < 1 or not 0 < keep <= 1:
        raise ValueError(
            f"rise needs masks >= 1, cells >= 1 and 0 < keep <= 1, got masks={masks}, cells={cells}, keep={keep}"
        )
    if weighting not in ("probability", "logit"):
        raise ValueError(f"weighting must be 'probability' or 'logit', got {weighting!r}")
    if coverage not in ("expected", "drawn"):
        raise ValueError(f"coverage must be 'expected' or 'drawn', got {coverage!r}")
    height, width = rec.images.shape[2:]
    grids, shifts = (drawn.to(rec.images.device) for drawn in _draw(masks, cells, keep, (height, width), seed))
    behind = background(rec.images, baseline)
    total = torch.zeros_like(rec.images[:, 0], dtype=rec.logits.dtype)
    covered = torch.zeros_like(total)
    for rows, numbers, _ in pairs(rec, masks):
        visible = smooth_masks(grids[numbers].to(total.dtype), shifts[numbers], (height, width))
        seen = torch.lerp(behind[rows], rec.images[rows], visible[:, None].to(rec.images.dtype))
        logits = rerun(rec, seen)
        found = score_of(rec, logits.softmax(1) if weighting == "probability" else logits, rows)
        total.index_add_(0, rows, found[:, None, None] * visible)
        if coverage == "drawn":
            covered.index_add_(0, rows, visible)
    if coverage == "drawn":
        return torch.where(covered > 0, total / covered, 0)  # a pixel that no mask left says nothing
    return total / (masks * keep)


def _draw(
    masks: int, cells: int, keep: float, size: tuple[int, int], seed: int
) -> tuple[Bool[Tensor, "masks cells cells"], Int[Tensor, "masks 2"]]:
    """The grids and the shifts of all masks: some fifty bytes each, so all at once; the masks themselves are not."""
    grids = torch.rand(masks, cells, cells, generator=generator(seed, "rise", "grids")) < keep
    draws = generator(seed, "rise", "shifts")
    shifts = [torch.randint(-(-side // cells), (masks,), generator=draws) for side in size]
    return grids, torch.stack(shifts, 1)


def smooth_masks(
    grids: Float[Tensor, "n cells cells"], shifts: Int[Tensor, "n 2"], size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Grids upsampled to one cell more than the image each way, less the shift in pixels at the top left."""
    cells = grids.shape[1]
    height, width = size
    larger = [(cells + 1) * -(-side // cells) for side in size]
    upsampled = functional.interpolate(grids[:, None], larger, mode="bilinear", align_corners=False)[:, 0]
    down = shifts[:, :1] + torch.arange(height, device=grids.device)
    across = shifts[:, 1:] + torch.arange(width, device=grids.device)
    each = torch.arange(len(grids), device=grids.device)
    return upsampled[each[:, None, None], down[:, :, None], across[:, None, :]]
