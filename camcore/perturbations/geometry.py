"""Moving the picture: what a map has to go along with."""

from torch.nn import functional

from camcore.images import Images


def mirrored(images: Images) -> Images:
    """Left and right exchanged."""
    return images.flip(3)


def translated(images: Images, *, down: int, right: int) -> Images:
    """Moved by whole pixels: the pixel at (r, c) lands at (r + down, c + right); reflected where nothing was.

    Raises:
        ValueError: A move as long as the picture, which leaves nothing to reflect.
    """
    height, width = images.shape[2:]
    if abs(down) >= height or abs(right) >= width:
        raise ValueError(f"a picture of {height}x{width} pixels cannot be moved by {down} down and {right} right")
    padding = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    wide = functional.pad(images, padding, mode="reflect")
    top, left = max(-down, 0), max(-right, 0)
    return wide[:, :, top : top + height, left : left + width]
