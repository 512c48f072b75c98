"""Maps of several methods for the same images, from one recording, and how they are shown."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from camcore.cam import CamMethod, find_cam
from camcore.cam.gradients import weigh
from camcore.cam.scoring import effective_channels, scorecam_weights
from camcore.errors import BadInput
from camcore.explain.classes import class_label, find_class
from camcore.explain.overlay import blend, enlarged, fitted, share_of
from camcore.explain.sheet import Tile, draw_sheet
from camcore.grid import Placement
from camcore.images import Images
from camcore.maps import is_constant, is_empty, upsample
from camcore.recording import Recording, record
from camcore.subject import Classifier

LONGEST = 48  # letters of a class's name on a sheet; ImageNet's take up to 30
IN_A_NOTEBOOK = 8  # images that a notebook shows; `sheet()` shows all
Class = int | str | Tensor  # one for all images by index or name, or (b,) indices


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation:
    """Signed maps of each method for each image, on the CPU; a notebook shows them as a sheet."""

    images: Images
    maps: Mapping[str, Float[Tensor, "b h w"]]  # upsampled to the images' size
    cells: Mapping[str, Float[Tensor, "b i j"]]  # as the method gave them
    logits: Float[Tensor, "b classes"]
    target: Int[Tensor, " b"]
    against: Int[Tensor, " b"] | None  # the class that the target is contrasted with
    classes: tuple[str, ...]
    names: tuple[str, ...]  # of the images; empty: they have none
    model: str
    layer: str
    placement: Placement | None  # where the cells lie; None: each in the middle of its even share
    notes: Mapping[str, tuple[str, ...]]  # of a method, one for each image; of some methods only

    @property
    def probabilities(self) -> Float[Tensor, "b classes"]:
        """Softmax of the logits."""
        return self.logits.softmax(1)

    @property
    def predicted(self) -> Int[Tensor, " b"]:
        """The class of the largest logit."""
        return self.logits.argmax(1)

    @property
    def title(self) -> str:
        """The model and the layer, for the head of a sheet."""
        return f"{self.model}, layer {self.layer}"

    def __repr__(self) -> str:
        count = len(self.images)
        return f"Explanation of {count} image{'' if count == 1 else 's'}, {self.title}, by {', '.join(self.maps)}"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the sheet of the first images."""
        buffer = io.BytesIO()
        self.sheet(range(min(IN_A_NOTEBOOK, len(self.images)))).save(buffer, "PNG")
        return buffer.getvalue()

    def sheet(self, indices: Sequence[int] | None = None) -> Image.Image:
        """The images (all, or those at the indices) beside their overlays, with a legend."""
        shown = range(len(self.images)) if indices is None else indices
        note = f"{len(shown)} of {len(self.images)} images." if len(shown) < len(self.images) else ""
        return draw_sheet([self.tiles(index) for index in shown], title=self.title, note=note)

    def tiles(self, index: int) -> dict[str, Tile]:
        """One row of the sheet: the image as the model sees it, then each method's overlay."""
        name = self.names[index] if self.names else f"image {index}"
        photo = Tile(picture=fitted(enlarged(self._pixels(index))), name=name, lines=self.says(index))
        overlays = {
            cam: Tile(picture=fitted(self.overlay(index, cam)), lines=self.says_of_map(index, cam)) for cam in self.maps
        }
        return {"as the model sees it": photo, **overlays}

    def overlay(self, index: int, cam: str) -> Image.Image:
        """The positive part of one map over its image, relative to `full_colour`.

        A map that marks nothing, or every place alike, leaves the image as it is.
        """
        pixels = self._pixels(index)
        if marks_something(self.cells[cam][index]):
            share = share_of(self.maps[cam][index].double().numpy(), self.full_colour(index, cam))
            pixels = blend(pixels, share)
        return enlarged(pixels)

    def full_colour(self, index: int, cam: str) -> float:
        """The value from which a map has the last colour: its largest, but for pixels that stand out from all others.

        A gradient's largest pixel is many times its typical one: relative to it, nothing at all would be seen. Where a
        map has a value for every pixel, and the largest 1 % of its marks reach over twice as high as the others, it is
        these others' largest.
        """
        cells = self.cells[cam][index]
        largest = float(cells.max())
        if cells.shape != self.images.shape[-2:] or not marks_something(cells):
            return largest
        others = float(cells[cells > 0].double().quantile(0.99))
        return others if others < largest / 2 else largest

    def says_of_map(self, index: int, cam: str) -> tuple[str, ...]:
        """A map's extremes, or why nothing is to be seen, where its colours end before its values do, and its note."""
        cells, full = self.cells[cam][index], self.full_colour(index, cam)
        ends = (f"full colour from {full:.3g} on (top 1 %)",) if full < float(cells.max()) else ()
        return (describe(cells), *ends, *self.notes.get(cam, ())[index : index + 1])

    def says(self, index: int) -> tuple[str, ...]:
        """What the model predicts, and what is explained where that is something else, with probabilities."""
        predicted, target = int(self.predicted[index]), int(self.target[index])
        lines = [f"predicted: {self._with_probability(index, predicted)}"]
        if target != predicted or self.against is not None:
            lines.append(f"explained: {self._with_probability(index, target)}")
        if self.against is not None:
            lines.append(f"rather than: {self._with_probability(index, int(self.against[index]))}")
        return tuple(lines)

    def _with_probability(self, index: int, wanted: int) -> str:
        label = class_label(wanted, self.classes)
        label = label if len(label) <= LONGEST else label[: LONGEST - 1].rstrip() + "…"  # so that the number is seen
        return f"{label}, {percent(float(self.probabilities[index, wanted]))}"

    def _pixels(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return (self.images[index].float() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def explain(
    subject: Classifier,
    images: Images,
    *,
    cams: Sequence[str] = ("hirescam",),
    target: Class | None = None,
    against: Class | None = None,
    layer: str | None = None,
    names: Sequence[str] = (),
) -> Explanation:
    """Maps of several methods from one recording.

    Args:
        subject: A classifier in eval mode.
        images: In [0, 1], before normalisation; a few at a time, since activations of all are held at once.
        cams: Registered methods.
        target: The class that is explained, by index or name, or one index per image; the predicted one if not given.
        against: A class to contrast it with: what speaks for the target rather than for this one.
        layer: Instead of the subject's target layer.
        names: Of the images, for the sheet.

    Raises:
        BadInput: An unknown method or class, a class contrasted with itself, names that are not one per image.
        ValueError: Whatever `camcore.record` or a method refuses.
    """
    methods = {name: find_cam(name) for name in cams}
    recording = recorded(subject, images, target=target, against=against, layer=layer)
    maps = {name: drawn(name, method, recording) for name, method in methods.items()}
    return explanation(recording, maps, subject, names=names)


Drawn = tuple[Float[Tensor, "b i j"], tuple[str, ...]]  # a map, and a note for each image or none


def drawn(name: str, method: CamMethod, recording: Recording) -> Drawn:
    """A method's map, and for Score-CAM how many channels it rests on."""
    if name != "scorecam":
        return method(recording), ()
    weights = scorecam_weights(recording)  # asked for once: the map is their sum
    rests_on = effective_channels(weights).tolist()
    notes = tuple(f"rests on {number:.3g} of {weights.shape[1]} channels" for number in rests_on)
    return weigh(weights, recording.activations), notes


def recorded(
    subject: Classifier, images: Images, *, target: Class | None, against: Class | None, layer: str | None = None
) -> Recording:
    """The recording that the maps are made from, its classes looked up."""
    chosen = None if target is None else _per_image(target, subject, len(images))
    if against is None:
        return record(subject, images, chosen, layer=layer)
    other = _per_image(against, subject, len(images))
    if chosen is None:
        with torch.no_grad():
            chosen = subject.logits(images).argmax(1)
    same = [index for index, one in enumerate(chosen.tolist()) if one == other[index]]
    if same:
        label = class_label(int(other[same[0]]), subject.classes)
        raise BadInput(f"image {same[0]} would be explained as {label!r} rather than as {label!r}; name two classes")
    return record(subject, images, chosen, against=other, layer=layer)


def explanation(
    recording: Recording, maps: Mapping[str, Drawn], subject: Classifier, *, names: Sequence[str] = ()
) -> Explanation:
    """What is known of a recording's images, with the maps that methods gave for them and their notes."""
    if names and len(names) != len(recording.images):
        raise BadInput(f"expected one name per image, got {len(names)} names for {len(recording.images)} images")
    size = tuple(recording.images.shape[-2:])
    return Explanation(
        images=recording.images.detach().cpu(),
        maps={name: upsample(cells, size, recording.placement).detach().cpu() for name, (cells, _) in maps.items()},
        cells={name: cells.detach().cpu() for name, (cells, _) in maps.items()},
        logits=recording.logits.detach().cpu(),
        target=recording.target.cpu(),
        against=None if recording.against is None else recording.against.cpu(),
        classes=subject.classes,
        names=tuple(names),
        model=subject.spec or subject.name,
        layer=recording.layer,
        placement=recording.placement,
        notes={name: notes for name, (_, notes) in maps.items()},
    )


def marks_something(cells: Float[Tensor, "i j"]) -> bool:
    """Whether a map prefers some place and speaks for the class there."""
    return bool(cells.isfinite().all()) and not bool(is_constant(cells[None])) and not bool(is_empty(cells[None]))


def describe(cells: Float[Tensor, "i j"]) -> str:
    """A map's largest and smallest value, or why there is nothing to see."""
    if not cells.isfinite().all():
        return "marks nothing: holds values that are no numbers"
    low, high = float(cells.min()) + 0.0, float(cells.max()) + 0.0  # + 0.0: -0 is written 0
    if high <= 0 and low == 0:
        return "marks nothing: 0 everywhere"
    if bool(is_constant(cells[None])):
        return f"marks no place: constant, {high:.3g} everywhere"
    if high <= 0:
        return f"marks nothing: max {high:.3g}, min {low:.3g}"
    return f"max {high:.3g}, min {low:.3g}"


def percent(probability: float) -> str:
    """A probability as people read it; never a round 0 or 100 that it is not."""
    if 0 < probability < 0.0005:
        return "<0.1 %"
    if 0.9995 <= probability < 1:
        return ">99.9 %"
    return f"{100 * probability:.1f} %"


def _per_image(wanted: Class, subject: Classifier, count: int) -> Int[Tensor, " b"]:
    if isinstance(wanted, Tensor):
        return wanted.cpu()
    index = find_class(wanted, subject.classes) if isinstance(wanted, str) else wanted
    return torch.full((count,), index)
