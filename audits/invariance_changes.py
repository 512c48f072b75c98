"""What the invariance audit does to images, and how the maps before and after are compared."""

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor

from camcore.grid import Placement
from camcore.images import Batch, Images
from camcore.metrics.invariance import likeness, mirror_likeness, translation_likeness
from camcore.perturbations import down_up, jpeg, mirrored, translated, uniform_noise

RADIUS = 0.02  # of the noise, in pixel units: the default of captum's sensitivity_max
MOVE = 16  # the picture moves by its shorter side divided by this, down and to the right

Compared = Callable[[Tensor, Tensor, Placement | None], Tensor]  # a map, the map after, where they lie


def moved_by(batch: Batch) -> int:
    """Pixels."""
    return max(1, round(min(batch.images.shape[2:]) / MOVE))


def changed(batch: Batch) -> dict[str, Callable[[], Images]]:
    """The changed images, made when they are asked for."""
    pixels = moved_by(batch)
    return {
        "flip": partial(mirrored, batch.images),
        "translation": partial(translated, batch.images, down=pixels, right=pixels),
        "jpeg": partial(jpeg, batch.images),
        "resize": partial(down_up, batch.images),
    }


def comparisons(batch: Batch) -> dict[str, Compared]:
    """How alike the maps of the images and of the changed images are, in [-1, 1]."""
    size, pixels = (batch.images.shape[2], batch.images.shape[3]), moved_by(batch)
    return {
        "flip": lambda one, other, placement: mirror_likeness(one, other, size, placement),
        "translation": lambda one, other, placement: translation_likeness(
            one, other, size, placement, down=pixels, right=pixels
        ),
        "jpeg": lambda one, other, _: likeness(one, other),
        "resize": lambda one, other, _: likeness(one, other),
    }


def noisy(batch: Batch, draws: int) -> Iterator[Images]:
    """Images with noise, one draw after the other."""
    for draw in range(draws):
        yield uniform_noise(batch.images, radius=RADIUS, generators=batch.generators(f"invariance noise {draw}"))
