"""The model under audit, with everything the questions need to know about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcore.cost import count
from camcore.grid import Grid, Placement
from camcore.images import Geometry, Image, Images

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Normalise:
    """(image - mean) / std per channel: the last thing before the model, so that everything above is in pixel units."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(self, images: Images) -> Images:
        """Normalise images in [0, 1]."""
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        return (images - mean) / std


def first_tensor(output: Any) -> Tensor:
    """The logits of a plain module: its output, or the first element or value of a collection."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict) and output:
        return first_tensor(output["logits"] if "logits" in output else next(iter(output.values())))
    if isinstance(output, tuple | list) and output:
        return first_tensor(output[0])
    raise TypeError(
        f"the model returned {type(output).__name__}, expected a tensor of logits; give Subject an output selector"
    )


def refuse_half(scores: Tensor) -> None:
    """Refuse scores in half precision.

    Raises:
        ValueError: In it scores are level that are not; to raise them now is too late.
    """
    if scores.dtype.itemsize < 4:
        raise ValueError(
            f"expected scores in single precision at least, got {scores.dtype}, in which scores are level that are "
            "not; compute embeddings and their product in float32"
        )


def at_least_fp32(tensor: Tensor) -> Tensor:
    """Half precision raised to fp32, in which sums over places keep their digits; fp64 is left as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, how it is fed, and where its last map of features is.

    Images given to a subject are in [0, 1] and have the size of `geometry.crop`; normalisation happens inside.
    """

    name: str  # short, free of slashes: used in ids and file names
    spec: str  # as the user wrote it
    module: nn.Module
    geometry: Geometry
    preprocess: Callable[[Images], Tensor] = field(default_factory=Normalise)
    select: Callable[[Any], Tensor] = first_tensor  # the logits in whatever the module returns
    target_layer: str | None = None  # None: the model has no map of features
    grid: Grid | None = None  # how the target layer's output folds into a map
    placement: Placement | None = None  # where that map's cells lie in the image; None: spread evenly
    sha256: str = ""  # of the weights
    settings: str = ""  # a hash of what else its loader knows that answers depend on: its config, its tokeniser
    weights: str = ""  # where they came from
    unsafe: tuple[str, ...] = ()  # opt-ins that the report must show (remote code, pickles)

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a model that has none."""
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """What images are given in: double precision to a model in double precision, else single."""
        parameter = next(self.module.parameters(), None)
        return torch.float64 if parameter is not None and parameter.dtype == torch.float64 else torch.float32


@dataclass(frozen=True, kw_only=True)
class Classifier(Subject):
    """A subject that scores a fixed list of classes."""

    classes: tuple[str, ...]

    def logits(self, images: Images) -> Float[Tensor, "rows classes"]:
        """Class scores before the softmax, in fp32 at least; one forward per image.

        As many rows as images, unless a hook makes the batch grow inside (`camcore.recording.run_suffix`).
        """
        count(forwards=len(images))
        return at_least_fp32(self.select(self.module(self.preprocess(images))))


@runtime_checkable
class ImageText(Protocol):
    """A subject that scores pairs of an image and a caption."""

    def similarity(self, images: Images, captions: Sequence[str]) -> Float[Tensor, "b captions"]:
        """One score per image and caption, larger for a better match."""


@runtime_checkable
class Grounder(Protocol):
    """A subject that finds what a phrase of a caption names."""

    def ground(self, image: Image, caption: str, phrase: str) -> tuple[Float[Tensor, "n 4"], Float[Tensor, " n"]]:
        """Boxes (x0, y0, x1, y1 in pixels) and a score for each."""


Ability = Literal["classes", "captions", "boxes"]  # what a subject scores, or what it finds


def abilities(subject: object) -> tuple[Ability, ...]:
    """What a subject can do, what it was made for first."""
    able: list[Ability] = []
    if isinstance(subject, Classifier):
        able.append("classes")
    if isinstance(subject, ImageText):
        able.append("captions")
    if isinstance(subject, Grounder):
        able.append("boxes")
    return tuple(able)


def check_images(images: Tensor) -> None:
    """Refuse images outside [0, 1]: a pixel budget or a baseline means nothing on normalised input."""
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # written so that NaN is refused too
        raise ValueError(
            f"images must be in [0, 1], got [{low.item():.3g}, {high.item():.3g}]; "
            "pass them before normalisation, the subject applies it"
        )
