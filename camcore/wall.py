"""A wall behind the target layer: what the layer gives is recorded, and a band of it is zeroed before the rest sees it.

Taimeskhanov, Sicre and Garreau 2024 (arXiv:2404.01964) zero the rows of the first dense layer's weights that read the
lower band of the map. Zeroing the band itself is the same function for a flattened head, and is defined for any other.
Walls before the target layer, in the picture or at an earlier layer, are in `camcore.wall_cover`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.cost import count
from camcore.images import Images
from camcore.placement import even_placement
from camcore.recording import features, record, run_behind
from camcore.seeds import generator
from camcore.subject import Classifier
from camcore.wall_zone import Side, Zone, axis_of, before, centres

PAPER_BAND = 9 / 14  # the lower 9 of VGG16's 14 feature rows


class WallLeaks(ValueError):
    """The network sees something that the wall should hide: nothing can be judged behind it."""


@dataclass(frozen=True, kw_only=True)
class Wall(Zone):
    """A certified wall: the rest of the network sees the target layer's first `kept_rows` rows, and zeros."""

    def hide(self, activations: Float[Tensor, "b k i j"]) -> Float[Tensor, "b k i j"]:
        """The features with the band behind the wall set to zero."""
        return hidden(activations, self.kept_rows, self.side)


def hidden(maps: Float[Tensor, "b k h w"], kept: int, side: Side, fill: float = 0) -> Float[Tensor, "b k h w"]:
    """Maps or images with everything behind the first `kept` rows replaced by a constant."""
    # where, not a product: 0 x inf is NaN
    return torch.where(before(maps.shape, kept, side).to(maps.device), maps, fill)


def build_wall(
    subject: Classifier, images: Images, *, seed: int, band: float = PAPER_BAND, side: Side = "bottom"
) -> Wall:
    """Put up a wall, find what it hides, and certify it on these images and on noise.

    The pixels behind it are found by filling ever more of the rows on the wall's side with noise (bisection), never
    assumed from the architecture. Then the certificate: noise in the band and in the dead pixels moves the logits by
    not one bit, and the gradient of the class score there is exactly zero.

    Args:
        subject: A classifier with a target layer.
        images: A few real images; the certificate holds for them and for as many of noise.
        seed: Of the noise.
        band: Share of the feature rows to hide, rounded up, counted from the wall's side.
        side: Where the wall is; at the left or the right, rows are columns.

    Raises:
        WallLeaks: The certificate failed.
    """
    probes = with_noise(images, seed)
    size = features(subject, probes[:1]).shape[2:]
    rows = size[axis_of(side)]
    kept = rows_kept(rows, band, f"a map of {rows} rows of {subject.name}")
    placed = subject.placement or even_placement((size[0], size[1]), (images.shape[2], images.shape[3]))
    first, step = centres(placed, size, images.shape[2:], side)
    pixels = images.shape[2 + axis_of(side)]
    centre = first + kept * step
    wall = Wall(kept_rows=kept, rows=rows, dead_from=None, pixels=pixels, centre=centre, step=step, side=side)
    seen = before(size, kept, side)

    def unmoved(probes: Images) -> Sequence[Tensor]:
        activations, logits = run_behind(subject, probes, wall.hide)
        return activations[..., seen], logits

    wall = replace(wall, dead_from=first_dead(unmoved, probes, side, seed))
    certify_features(subject, wall.hide, ~seen, probes, seed)
    if wall.dead_from is not None:
        certify_pixels(
            subject, lambda asked: run_behind(subject, asked, wall.hide)[1], wall.dead_from, side, probes, seed
        )
    return wall


def with_noise(images: Images, seed: int) -> Float[Tensor, "probes 3 h w"]:
    """The images, and as many of noise, on which a wall is certified as well."""
    return torch.cat([images, torch.rand(images.shape, generator=generator(seed, "wall", "probes")).to(images)])


def rows_kept(rows: int, band: float, of: str) -> int:
    """How many rows stay when a band of them is hidden.

    Raises:
        WallLeaks: The band hides nothing, or is everything; or there is one row alone.
    """
    hidden_rows = min(ceil(rows * band), rows - 1) if band < 1 else rows  # of two rows one
    if not 0 < hidden_rows < rows:
        raise WallLeaks(f"a band of {hidden_rows} rows does not fit in {of}; give another share of the rows")
    return rows - hidden_rows


def filled(images: Images, row: int, side: Side, seed: int, fill: int) -> Images:
    """The images with noise from that pixel row on, towards the wall's side."""
    noise = torch.rand(images.shape, generator=generator(seed, "wall", "fill", str(fill))).to(images)
    return torch.where(before(images.shape, row, side).to(images.device), images, noise)


@torch.no_grad()
def first_dead(
    unmoved: Callable[[Images], Sequence[Tensor]], probes: Images, side: Side, seed: int, fills: int = 2
) -> int | None:
    """The first pixel row from which on noise moves nothing by a bit; None if even the last row moves something.

    Args:
        unmoved: What must not move: of images, tensors.
        probes: The images that noise is filled into.
        side: Rows are counted towards it.
        seed: Of the noise.
        fills: Draws of noise for each row that is tried.
    """
    intact = unmoved(probes)

    def dead(row: int) -> bool:
        for fill in range(fills):
            found = unmoved(filled(probes, row, side, seed, fill))
            if not all(torch.equal(one, other) for one, other in zip(found, intact, strict=True)):
                return False
        return True

    last = probes.shape[2 + axis_of(side)] - 1
    if not dead(last):  # attention, squeeze-and-excitation or a wide receptive field: every pixel reaches every cell
        return None
    low, high = 0, last  # everything from `high` on is dead; nothing shows that `low` is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if dead(middle) else (middle, high)
    return high


def certify_features(
    subject: Classifier,
    hide: Callable[[Tensor], Tensor],
    band: Tensor,
    probes: Images,
    seed: int,
    layer: str | None = None,
) -> None:
    """Noise in the hidden features (`band`: where) moves the logits by not one bit, and no gradient arrives there.

    Raises:
        WallLeaks: It does.
    """

    def refilled(activations: Tensor) -> Tensor:
        noise = torch.randn(activations.shape, generator=generator(seed, "wall", "band")).to(activations)
        # Into the layer's own output, not a copy of it: whoever else holds that output gets the noise as well.
        activations[..., band] = noise[..., band]
        return hide(activations)

    with torch.no_grad():
        logits = run_behind(subject, probes, hide, layer=layer)[1]
        if not torch.equal(run_behind(subject, probes, refilled, layer=layer)[1], logits):
            raise WallLeaks(f"noise in the hidden feature rows moves the logits of {subject.name}: there is no wall")
    if record(subject, probes, behind=hide, layer=layer).gradients[..., band].any():
        raise WallLeaks(
            f"the class score of {subject.name} has a gradient in the hidden feature rows: there is no wall"
        )


def certify_pixels(
    subject: Classifier, logits: Callable[[Images], Tensor], dead_from: int, side: Side, probes: Images, seed: int
) -> None:
    """Noise in the dead pixels moves the logits by not one bit, and no gradient arrives there.

    Args:
        subject: Named in the errors.
        logits: What the walled network answers.
        dead_from: The first dead pixel row.
        side: Rows are counted towards it.
        probes: Images on which it is tried.
        seed: Of the noise.

    Raises:
        WallLeaks: It does, or it cannot be told.
    """
    with torch.no_grad():
        if not torch.equal(logits(filled(probes, dead_from, side, seed, 0)), logits(probes)):
            raise WallLeaks(f"noise in the dead pixels moves the logits of {subject.name}: there is no wall")
    dead = ~before(probes.shape, dead_from, side)
    for image in probes.split(1):  # one at a time: this graph reaches down to the pixels
        if _pixel_gradient(subject, image, logits)[..., dead].any():
            raise WallLeaks(f"the class score of {subject.name} has a gradient in the dead pixels: there is no wall")


def _pixel_gradient(subject: Classifier, images: Images, logits: Callable[[Images], Tensor]) -> Images:
    with torch.enable_grad():
        asked = images.clone().requires_grad_()
        score = logits(asked).amax(1).sum()
        if not score.requires_grad:
            raise WallLeaks(
                f"{subject.name} switches gradients off in its forward, so the wall cannot be certified at the pixels; "
                "remove torch.no_grad from the model"
            )
        count(backwards=len(images))
        return torch.autograd.grad(score, asked)[0]
