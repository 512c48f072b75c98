"""A wall behind the target layer: what the layer gives is recorded, and a band of it is zeroed before the rest sees it.

Taimeskhanov, Sicre and Garreau 2024 (arXiv:2404.01964) zero the rows of the first dense layer's weights that read the
lower band of the map. Zeroing the band itself is the same function for a flattened head, and is defined for any other.
"""

from dataclasses import dataclass, replace
from math import ceil, floor

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.cost import count
from camcore.images import Images
from camcore.placement import even_placement
from camcore.record import Edit, features, record, run_behind
from camcore.seeds import generator
from camcore.subject import Classifier

PAPER_BAND = 9 / 14  # the lower 9 of VGG16's 14 feature rows


class WallLeaks(ValueError):
    """The network sees something that the wall should hide: nothing can be judged behind it."""


@dataclass(frozen=True, kw_only=True)
class Wall:
    """A certified wall."""

    kept_rows: int  # feature rows the rest of the network still sees
    rows: int  # of the map
    dead_from: int | None  # the first pixel row that cannot reach the kept rows; None: every pixel can
    pixels: int  # pixel rows of the image
    centre: float  # the pixel row on which the first hidden row of cells is centred
    step: float  # pixel rows from one row of cells to the next

    @property
    def judged_from(self) -> int:
        """The first row of saliency that counts as behind the wall: in pixels if there are dead ones, else in cells.

        Bilinear upsampling carries the last kept row up to the centre of the next cell; pixels in that seam are not
        held against a map.
        """
        if self.dead_from is None:
            return self.kept_rows
        return max(self.dead_from, floor(self.centre) + 1)

    @property
    def drawn_from(self) -> int:
        """The pixel row where the wall is drawn: the first dead one, or else where the hidden cells begin."""
        return self.dead_from or round(self.centre + 0.5 - self.step / 2)

    @property
    def constant_line(self) -> float:
        """The leakage of a constant map: the square root of the share of rows that are judged."""
        total = self.rows if self.dead_from is None else self.pixels
        return ((total - self.judged_from) / total) ** 0.5

    def hide(self, activations: Float[Tensor, "b k i j"]) -> Float[Tensor, "b k i j"]:
        """The features with the band behind the wall set to zero."""
        seen = torch.arange(activations.shape[2], device=activations.device) < self.kept_rows
        # where, not a product: 0 x inf is NaN
        return torch.where(seen[:, None], activations, 0)


def build_wall(subject: Classifier, images: Images, *, seed: int, band: float = PAPER_BAND) -> Wall:
    """Put up a wall, find what it hides, and certify it on these images and on noise.

    The pixels behind it are found by filling ever more of the lower rows with noise (bisection), never assumed from the
    architecture. Then the certificate: noise in the band and in the dead pixels moves the logits by not one bit, and
    the gradient of the class score there is exactly zero.

    Args:
        subject: A classifier with a target layer.
        images: A few real images; the certificate holds for them and for as many of noise.
        seed: Of the noise.
        band: Share of the feature rows to hide, rounded up, counted from below.

    Raises:
        WallLeaks: The certificate failed.
    """
    noise = torch.rand(images.shape, generator=generator(seed, "wall", "probes")).to(images)
    probes = torch.cat([images, noise])
    rows, columns = features(subject, probes[:1]).shape[2:]
    hidden = ceil(rows * band)
    if not 0 < hidden < rows:
        raise WallLeaks(f"a band of {hidden} rows does not fit in a map of {rows} rows of {subject.name}")
    kept = rows - hidden
    placed = subject.placement or even_placement((rows, columns), (images.shape[2], images.shape[3]))
    centre = placed.first[0] + kept * placed.step[0]
    wall = Wall(kept_rows=kept, rows=rows, dead_from=None, pixels=images.shape[2], centre=centre, step=placed.step[0])
    wall = replace(wall, dead_from=_dead_from(subject, wall, probes, seed))
    _certify(subject, wall, probes, seed)
    return wall


def _filled(images: Images, row: int, seed: int, fill: int) -> Images:
    """The images with noise from that pixel row down."""
    noise = torch.rand(images.shape, generator=generator(seed, "wall", "fill", str(fill))).to(images)
    below = torch.arange(images.shape[2], device=images.device) >= row
    return torch.where(below[:, None], noise, images)


@torch.no_grad()
def _dead_from(subject: Classifier, wall: Wall, probes: Images, seed: int) -> int | None:
    """The first pixel row from which noise changes neither the kept features nor the logits by a bit."""
    intact, logits = run_behind(subject, probes, wall.hide)

    def dead(row: int) -> bool:
        for fill in range(2):
            noisy, noisy_logits = run_behind(subject, _filled(probes, row, seed, fill), wall.hide)
            kept = slice(wall.kept_rows)
            if not (torch.equal(noisy[:, :, kept], intact[:, :, kept]) and torch.equal(noisy_logits, logits)):
                return False
        return True

    last = wall.pixels - 1
    if not dead(last):  # attention, squeeze-and-excitation or a wide receptive field: every pixel reaches every cell
        return None
    low, high = 0, last  # everything from `high` down is dead; nothing shows that `low` is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if dead(middle) else (middle, high)
    return high


def _certify(subject: Classifier, wall: Wall, probes: Images, seed: int) -> None:
    def refilled(activations: Tensor) -> Tensor:
        noise = torch.randn(activations.shape, generator=generator(seed, "wall", "band")).to(activations)
        # Into the layer's own output, not a copy of it: whoever else holds that output gets the noise as well.
        activations[:, :, wall.kept_rows :] = noise[:, :, wall.kept_rows :]
        return wall.hide(activations)

    with torch.no_grad():
        logits = run_behind(subject, probes, wall.hide)[1]
        if not torch.equal(run_behind(subject, probes, refilled)[1], logits):
            raise WallLeaks(f"noise in the hidden feature rows moves the logits of {subject.name}: there is no wall")
    rec = record(subject, probes, behind=wall.hide)
    if rec.gradients[:, :, wall.kept_rows :].any():
        raise WallLeaks(
            f"the class score of {subject.name} has a gradient in the hidden feature rows: there is no wall"
        )
    if wall.dead_from is not None:
        for image in probes.split(1):  # one at a time: this graph reaches down to the pixels
            if _pixel_gradient(subject, image, wall.hide)[:, :, wall.dead_from :].any():
                raise WallLeaks(
                    f"the class score of {subject.name} has a gradient in the dead pixels: there is no wall"
                )


def _pixel_gradient(subject: Classifier, images: Images, behind: Edit) -> Images:
    with torch.enable_grad():
        asked = images.clone().requires_grad_()
        score = run_behind(subject, asked, behind)[1].amax(1).sum()
        if not score.requires_grad:
            raise WallLeaks(
                f"{subject.name} switches gradients off in its forward, so the wall cannot be certified at the pixels; "
                "remove torch.no_grad from the model"
            )
        count(backwards=len(images))
        return torch.autograd.grad(score, asked)[0]
