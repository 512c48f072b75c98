"""Walls before the target layer: a cover on the picture itself, or on the features of an earlier layer.

What is covered reaches nothing, but the network goes on computing behind the cover: cells there have the features of a
constant picture, and these may carry weight. A map may mark them without having seen anything, which a head wall
(`camcore.wall`) does not allow; so what lies behind a cover is judged by whether it changes with the picture.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcore.errors import Undefined
from camcore.grid import infer_grid
from camcore.hooks import Hook, bare, hooked, replace_first
from camcore.images import Images
from camcore.placement import even_placement
from camcore.recording import edited, features, grid_of, run_behind, target_layer
from camcore.subject import Classifier, first_tensor
from camcore.wall import (
    PAPER_BAND,
    WallLeaks,
    certify_features,
    certify_pixels,
    filled,
    first_dead,
    hidden,
    rows_kept,
    with_noise,
)
from camcore.wall_zone import Side, Zone, axis_of, before, centres

GREY = 0.5  # c, what a covered pixel is


@dataclass(frozen=True, kw_only=True)
class Covered(Classifier):
    """The classifier f'(x) = f(x⊙M + (1-M)c): it covers whatever image it is given."""

    cover: Callable[[Images], Images]

    def logits(self, images: Images) -> Float[Tensor, "rows classes"]:
        """The class scores of the covered images."""
        return super().logits(self.cover(images))


@dataclass(frozen=True, kw_only=True)
class Cover(Zone):
    """A certified cover. `kept_rows` and what follows are of the target layer's map."""

    layer: str | None  # whose features are covered; None: the pixels
    open_rows: int  # rows of that layer, or of pixels, that are left open
    sealed: bool  # no cell behind it sees anything before it; else they are those centred on dead pixels
    fill: float  # what stands in place of the picture, for a cover of pixels and for the empty picture

    def hide(self, maps: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """Images, or the layer's features, with the cover on."""
        return hidden(maps, self.open_rows, self.side, self.fill if self.layer is None else 0)

    @contextmanager
    def on(self, subject: Classifier) -> Iterator[Classifier]:
        """The subject behind the cover, for the length of the block."""
        if self.layer is None:
            yield Covered(**vars(subject), cover=self.hide)
            return
        name, inner = self.layer, bare(subject)

        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            raw = first_tensor(output)
            return replace_first(output, edited(raw, self.hide, grid_of(inner, name, raw)))

        with hooked(inner.module, {name: hook}):
            yield subject


def cover_input(
    subject: Classifier,
    images: Images,
    *,
    seed: int,
    band: float = PAPER_BAND,
    side: Side = "bottom",
    fill: float = GREY,
) -> Cover:
    """Cover a band of the picture with a constant: a wall for any architecture, transformers included.

    Certified on these images and on noise: noise in the covered pixels moves the logits by not one bit, and the
    gradient of the class score there is exactly zero.

    Args:
        subject: A classifier with a target layer.
        images: A few real images.
        seed: Of the noise.
        band: Share of the pixel rows to cover, rounded up, counted from the wall's side.
        side: Where the cover is; at the left or the right, rows are columns.
        fill: c, in pixel units.

    Raises:
        WallLeaks: The certificate failed, or no cell is centred behind the cover.
    """
    rows = images.shape[2 + axis_of(side)]
    open_rows = rows_kept(rows, band, f"an image of {rows} pixel rows")
    return _certified(subject, with_noise(images, seed), None, open_rows, open_rows, side, fill, seed)


def cover_layer(
    subject: Classifier,
    images: Images,
    *,
    seed: int,
    band: float = PAPER_BAND,
    side: Side = "bottom",
    layer: str | None = None,
    fill: float = GREY,
) -> Cover:
    """Cover a band of an earlier layer's features with zeros: the wall at a convolution instead of at the head.

    Certified as a head wall is: noise in the covered features and in the pixels that reach only them (found by
    bisection) moves the logits by not one bit, and no gradient arrives there.

    Args:
        subject: A classifier with a target layer.
        images: A few real images.
        seed: Of the noise.
        band: Share of the layer's rows to cover, rounded up, counted from the wall's side.
        side: Where the cover is.
        layer: If not given, the last one before the target layer with a larger map that everything passes and behind
            which pixels are dead.
        fill: The grey of an empty picture, which maps are compared with (`camcore.metrics.variation`).

    Raises:
        Undefined: There is no such layer, or every pixel reaches what the given one leaves open.
        WallLeaks: The certificate failed.
    """
    probes = with_noise(images, seed)
    for name in (layer,) if layer else _bottlenecks(subject, probes[:2]):
        size = features(subject, probes[:1], layer=name).shape[2:]
        rows = size[axis_of(side)]
        open_rows = rows_kept(rows, band, f"the {rows} rows of {name!r} of {subject.name}")
        hide = partial(hidden, kept=open_rows, side=side)
        seen = before(size, open_rows, side)
        dead_from = first_dead(partial(_left_open, subject, name, hide, seen), probes, side, seed)
        if dead_from is not None:
            certify_features(subject, hide, ~seen, probes, seed, name)
            return _certified(subject, probes, name, open_rows, dead_from, side, fill, seed)
    raise Undefined(
        f"{subject.name} has no layer with a larger map than {subject.target_layer!r} that all information passes and "
        "that leaves pixels dead when a band of it is covered; use the wall in the picture"
    )


def _left_open(
    subject: Classifier, layer: str, hide: Callable[[Tensor], Tensor], seen: Tensor, images: Images
) -> tuple[Tensor, Tensor]:
    """What a covered layer passes on, and the scores: dead pixels move neither."""
    activations, logits = run_behind(subject, images, hide, layer=layer)
    return activations[..., seen], logits


def _certified(
    subject: Classifier,
    probes: Images,
    layer: str | None,
    open_rows: int,
    dead_from: int,
    side: Side,
    fill: float,
    seed: int,
) -> Cover:
    """The cover with what lies behind it on the target layer's map, certified at the pixels."""
    size = features(subject, probes[:1]).shape[2:]
    image = (probes.shape[2], probes.shape[3])
    first, step = centres(subject.placement or even_placement((size[0], size[1]), image), size, image, side)
    rows = size[axis_of(side)]

    def cover(kept_rows: int, *, sealed: bool) -> Cover:
        return Cover(
            kept_rows=kept_rows,
            rows=rows,
            dead_from=dead_from,
            pixels=image[axis_of(side)],
            centre=first + kept_rows * step,
            step=step,
            side=side,
            layer=layer,
            open_rows=open_rows,
            sealed=sealed,
            fill=fill,
        )

    draft = cover(0, sealed=False)
    with draft.on(subject) as covered:
        certify_pixels(covered, covered.logits, dead_from, side, probes, seed)
        moved = _rows_moved_by_the_open_part(covered, probes, draft, seed)
    if moved < rows:
        return cover(moved, sealed=True)
    centred = sum(first + row * step < dead_from for row in range(rows))
    if centred == rows:
        raise WallLeaks(f"no cell of {subject.name}'s map is centred behind the wall; cover more than that")
    return cover(centred, sealed=False)


@torch.no_grad()
def _rows_moved_by_the_open_part(covered: Classifier, probes: Images, draft: Cover, seed: int) -> int:
    """How many rows of cells, up to the last one, change by a bit when what is left of the picture is noise."""
    intact = draft.turned(features(covered, probes))
    moved = torch.zeros(draft.rows, dtype=torch.bool)
    for fill in range(2):
        other = filled(probes, 0, draft.side, seed, fill)  # what is behind the cover is covered anyway
        moved |= (draft.turned(features(covered, other)) != intact).any(3).any(1).any(0).cpu()
    return int(moved.nonzero().max()) + 1 if moved.any() else 0


@torch.no_grad()
def _bottlenecks(subject: Classifier, probes: Images) -> Iterator[str]:
    """Layers before the target layer with a larger map that everything passes on its way; the last ones first."""
    for name in _larger_maps(subject, probes[:1]):
        # With its output zeroed, two different pictures give the same scores: nothing goes round it.
        one, other = (run_behind(subject, probe, torch.zeros_like, layer=name)[1] for probe in probes.split(1))
        if torch.equal(one, other):
            yield name


@torch.no_grad()
def _larger_maps(subject: Classifier, probe: Images) -> list[str]:
    """Layers that run once, before the target layer, and give a map with more cells than its; the last ones first."""
    ran: dict[str, list[int]] = {}  # cells of every output, in the order in which layers first finished

    def keep(name: str) -> Hook:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple | list) and output else output
            grid = infer_grid(tuple(tensor.shape), subject.geometry.crop) if isinstance(tensor, Tensor) else None
            ran.setdefault(name, []).append(0 if grid is None else grid.height * grid.width)

        return hook

    inner, target = bare(subject), target_layer(subject, None)
    with hooked(inner.module, {name: keep(name) for name, _ in inner.module.named_modules() if name}):
        inner.logits(probe)
    names = list(ran)
    earlier = names[: names.index(target)]
    return [name for name in reversed(earlier) if len(ran[name]) == 1 and ran[name][0] > ran[target][0]]
