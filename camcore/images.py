"""What an audit looks at: a data set that reads single images, and the batches that measures are given."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from camcore.seeds import generator

Images = Float[Tensor, "b 3 h w"]  # in [0, 1], before normalisation
Image = Float[Tensor, "3 h w"]
Mask = Float[Tensor, "h w"]  # 1 on the object, 0 elsewhere; NaN everywhere where nobody has marked it
Boxes = Float[Tensor, "n 4"]  # x0, y0, x1, y1 in pixels: the edges, so that the whole picture is 0, 0, width, height
Progress = Callable[[int, int], None]  # images done, images planned


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a photograph of any size becomes the model's input: short side to `resize`, then the central `crop`.

    Or, where a question is about sides and none may be lost: the whole picture squashed into `crop`.
    """

    crop: tuple[int, int]
    resize: int | None = None  # None: the picture must already have the crop's size
    interpolation: str = "bilinear"  # or "bicubic"; always antialiased, as torchvision's presets are
    squash: bool = False  # instead of resize and crop: both sides to the crop's, whatever becomes of the proportions

    def __post_init__(self) -> None:
        if self.squash and self.resize is not None:
            raise ValueError(f"a picture is squashed or its short side resized, got both: {self}; leave resize out")

    @property
    def cuts_sides(self) -> bool:
        """Whether a picture of other proportions than the crop's loses what lies at its edges."""
        return not self.squash

    def window(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a picture of this size that the model sees: x0, y0, x1, y1 in the picture's pixels."""
        if self.squash:
            return 0.0, 0.0, float(width), float(height)
        (high, wide), (rows, columns) = self.resized(height, width), self.crop
        down, across = height / high, width / wide
        top, left = round((high - rows) / 2), round((wide - columns) / 2)
        return left * across, top * down, (left + columns) * across, (top + rows) * down

    def keeps(self, boxes: Boxes, height: int, width: int) -> Bool[Tensor, " n"]:
        """Which boxes, in pixels of a picture of this size, the model sees whole."""
        x0, y0, x1, y1 = boxes.new_tensor(self.window(height, width))
        slack = 1e-3  # pixels, for rounding
        inside = (boxes[:, 0] >= x0 - slack) & (boxes[:, 1] >= y0 - slack)
        return inside & (boxes[:, 2] <= x1 + slack) & (boxes[:, 3] <= y1 + slack)

    def fit(self, image: Image) -> Float[Tensor, "3 rows columns"]:
        """Resize and crop one image; values stay in [0, 1] (bicubic overshoot is clipped)."""
        return self._fitted(image, self.interpolation)

    def fit_mask(self, mask: Mask) -> Float[Tensor, "rows columns"]:
        """The same for a mask: a pixel is the object's where at least half of it is.

        Bilinear whatever the images' interpolation: bicubic rings, and torch's "nearest" moves edges by up to a pixel.
        """
        share = self._fitted(mask[None], "bilinear")[0]
        return torch.where(share.isnan(), share, (share >= 0.5).to(share))

    def _fitted(self, planes: Float[Tensor, "k h w"], interpolation: str) -> Float[Tensor, "k rows columns"]:
        size = self.resized(*planes.shape[-2:])
        if size != tuple(planes.shape[-2:]):
            planes = functional.interpolate(
                planes[None], size, mode=interpolation, align_corners=False, antialias=True
            )[0].clamp(0, 1)
        height, width = planes.shape[-2:]
        rows, columns = self.crop
        if height < rows or width < columns:
            raise ValueError(
                f"an image of {height}x{width} is smaller than the model's {rows}x{columns} input; "
                "give larger images or a Geometry with resize"
            )
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        return planes[:, top : top + rows, left : left + columns]

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size of a picture of this size before it is cropped."""
        if self.squash:
            return self.crop
        if self.resize is None:
            return height, width
        short = min(height, width)
        # truncated, and the crop's corner rounded, as torchvision does: a pixel off costs a percent of top-1
        return int(height * self.resize / short), int(width * self.resize / short)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images that can be read one at a time, by id. `ids` is in reading order; the engine shuffles with a seed."""

    spec: str  # as the user wrote it
    ids: tuple[str, ...]
    labels: tuple[int, ...]  # the model's class index of each id
    classes: tuple[str, ...]  # names of the classes; empty when unknown
    sha256: str  # of the ids, the labels and the content
    read: Callable[[str], Image]  # id -> image in [0, 1], at its own size
    skipped: tuple[tuple[str, str], ...] = ()  # (file, reason) of what could not be read
    mask: Callable[[str], Mask] | None = None  # id -> where the object is, of the image's own size; None: unknown

    def __len__(self) -> int:
        return len(self.ids)

    def label(self, image_id: str) -> int:
        """The class index of one image."""
        return self.labels[self.ids.index(image_id)]

    def called(self, label: int) -> str:
        """The class's name, or its number where names are unknown."""
        return self.classes[label] if label < len(self.classes) else f"class {label}"


def only(dataset: Dataset, ids: Sequence[str]) -> Dataset:
    """The data set with these of its images alone, in this order."""
    labels = dict(zip(dataset.ids, dataset.labels, strict=True))
    digest = hashlib.sha256("\0".join((dataset.sha256, *ids)).encode()).hexdigest()
    return replace(dataset, ids=tuple(ids), labels=tuple(labels[image_id] for image_id in ids), sha256=digest)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a measure is given: fitted images on the subject's device, their labels, their ids and the run's seed."""

    images: Images
    labels: Int[Tensor, " b"]
    ids: tuple[str, ...]
    seed: int
    chunk: int = 32  # images per forward that the device takes well, for measures that ask many times per image
    look_up: Callable[[], Float[Tensor, "b h w"]] | None = None  # how `masks` come about

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def masks(self) -> Float[Tensor, "b h w"] | None:
        """Where the objects are, fitted as the images are; None if the data set does not know.

        Read when first asked for: most measures never do, and to draw or decode a mask costs as much as an image.
        """
        return None if self.look_up is None else self.look_up()

    def generators(self, purpose: str) -> list[torch.Generator]:
        """One generator per image, from (run seed, purpose, image id): the same whatever the batch."""
        return [generator(self.seed, purpose, image_id) for image_id in self.ids]


def load(
    dataset: Dataset, ids: Sequence[str], geometry: Geometry, *, seed: int, device: torch.device, chunk: int = 32
) -> Batch:
    """Read, fit and stack the named images; their masks when the batch is asked for them."""
    position = {image_id: index for index, image_id in enumerate(dataset.ids)}
    mask = dataset.mask

    def masks(read: Callable[[str], Mask]) -> Float[Tensor, "b h w"]:
        return torch.stack([geometry.fit_mask(read(image_id)) for image_id in ids]).to(device)

    return Batch(
        images=torch.stack([geometry.fit(dataset.read(image_id)) for image_id in ids]).to(device),
        labels=torch.tensor([dataset.labels[position[image_id]] for image_id in ids], device=device),
        ids=tuple(ids),
        seed=seed,
        chunk=chunk,
        look_up=None if mask is None else partial(masks, mask),
    )


def batches(
    dataset: Dataset,
    ids: Sequence[str],
    geometry: Geometry,
    *,
    seed: int,
    device: torch.device,
    size: int,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """As `load`, the named images `size` at a time; progress is told when each batch has been dealt with."""
    for start in range(0, len(ids), size):
        yield load(dataset, ids[start : start + size], geometry, seed=seed, device=device)
        if progress is not None:
            progress(min(start + size, len(ids)), len(ids))
