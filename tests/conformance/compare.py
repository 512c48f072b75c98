"""Comparing maps: what they are scaled to, how far apart they may be, and what the message says."""

import torch
from torch import Tensor
from torch.nn import functional

from tests.conformance.adapter import Adapter

# Fixed before anything was measured, as shares of the expected map's largest magnitude. A map of the suite's nets is a
# sum of some hundred products in fp32, each rounded to 6e-8; the errors the suite is for are of 1e-2 to 1.
EQUATION = 1e-5  # between an implementation and the paper's equation
RELATION = 1e-4  # between two maps of one implementation: the error of both, and other kernels for another batch size


def finished(saliency: Tensor, gives: str, size: tuple[int, int] | None = None) -> Tensor:
    """What an adapter that `gives` such maps makes of a signed one; enlarged bilinearly if it gives another size."""
    if gives != "signed":
        saliency = saliency.relu()
    if gives == "unit_range":
        saliency = _stretched(saliency)
    if size is not None and saliency.shape[1:] != size:
        saliency = functional.interpolate(saliency[:, None], list(size), mode="bilinear", align_corners=False)[:, 0]
        if gives == "unit_range":
            saliency = _stretched(saliency)
    return saliency


def _stretched(saliency: Tensor) -> Tensor:
    low, high = saliency.amin((1, 2), keepdim=True), saliency.amax((1, 2), keepdim=True)
    return torch.where(high > low, (saliency - low) / (high - low), 0)


def largest(saliency: Tensor) -> Tensor:
    """The largest magnitude of each map: (b, 1, 1)."""
    return saliency.abs().amax((1, 2), keepdim=True)


def at_one(saliency: Tensor) -> Tensor:
    """Each map times the positive factor that makes its largest magnitude 1; an empty map stays empty."""
    return saliency / torch.where(largest(saliency) > 0, largest(saliency), 1)


def is_telling(expected: Tensor, gives: str) -> bool:
    """Whether what is left of every map, once finished, is more than its rounding."""
    left = largest(finished(expected, "signed" if gives == "signed" else "rectified"))
    return bool((left > 0.01 * largest(expected)).all() and (left > 0).all())


def map_of(adapter: Adapter, *args: object) -> Tensor:
    """What the implementation gives, as fp64.

    Raises:
        AssertionError: It is no batch of finite maps.
    """
    found = adapter.explain(*args)
    images = args[3]
    what = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else f"{found!r}"
    if not isinstance(found, Tensor) or found.ndim != 3 or len(found) != len(images):
        raise AssertionError(f"expected a map (b, i, j) for each of {len(images)} images, observed {what}")
    if not found.isfinite().all():
        raise AssertionError(f"expected finite maps, observed {int((~found.isfinite()).sum())} numbers that are not")
    return found.detach().double().cpu()


def assert_same(found: Tensor, expected: Tensor, tolerance: float = RELATION) -> None:
    """Each map equal to the expected one, to within a share of that one's largest magnitude.

    Raises:
        AssertionError: With the worst place, what was expected and observed there, and the largest difference.
    """
    if found.shape != expected.shape:
        raise AssertionError(f"expected maps of shape {tuple(expected.shape)}, observed {tuple(found.shape)}")
    scale = torch.where(largest(expected) > 0, largest(expected), 1)
    difference = ((found - expected) / scale).abs()
    if difference.max() > tolerance:
        index, row, column = torch.unravel_index(difference.argmax(), difference.shape)
        place = f"image {int(index)}, row {int(row)}, column {int(column)}"
        raise AssertionError(
            f"expected {float(expected[index, row, column]):.6g}, observed {float(found[index, row, column]):.6g} "
            f"({place}); max abs difference {float(difference.max()):.2g} of the map's largest value, "
            f"allowed {tolerance:g}"
        )


def assert_same_up_to_scale(found: Tensor, expected: Tensor, tolerance: float = RELATION) -> None:
    """As `assert_same`, after each map is divided by its own largest magnitude."""
    assert_same(at_one(found), at_one(expected), tolerance)
