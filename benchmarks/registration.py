"""How far a map's mark lies from the object it is for: registered upsampling beside the even one.

Run from the checkout: `python -m benchmarks.registration [--model resnet50 ...] [--positions 24]`. Nothing is trained
or fetched: every network is given weights that average, so that its map is brightness as each cell sees it, and where
a bright disc must show up is known by construction.
"""

import argparse
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import timing
from camcore.cam import METHODS
from camcore.grid import Placement
from camcore.hooks import hooked
from camcore.images import Geometry, Images
from camcore.layers import with_target_layer
from camcore.maps import upsample
from camcore.placement import even_placement, trace_placement
from camcore.recording import record
from camcore.seeds import generator
from camcore.subject import Classifier, first_tensor
from fixtures.subjects.torchvision import load

SIDE = 448  # pixels: room for a ResNet-50's receptive field around an object near the middle
NEAR = 64  # objects lie at most so far from the middle, down or across
RADIUS = 6
MODELS = ("vgg16", "squeezenet1_1", "densenet121", "resnet18", "resnet50", "mobilenet_v3_small", "efficientnet_b0")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network: where its cells lie, and the mean errors in pixels of the even and the registered map."""

    model: str
    layer: str
    placement: Placement
    even: Placement
    mass: tuple[float, float]
    peak: tuple[float, float]
    places: tuple[float, float]  # of the middle cell, even and traced
    seen: float  # the middle of what it sees with random weights


def prepare(name: str) -> Classifier:
    """Random weights, larger images, pixels as they are."""
    subject = load(name, "random:0")
    subject = replace(subject, geometry=Geometry(crop=(SIDE, SIDE)), preprocess=lambda images: images)
    subject.module.eval()
    return with_target_layer(subject)


@torch.no_grad()
def average(module: nn.Module) -> None:
    """Weights that average what they see; normalisation does nothing. All features become positive and alike."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.fill_(1 / part.weight[0].numel())
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.weight.fill_(1)
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and part.bias is not None:
            part.bias.zero_()


def draw(positions: int) -> tuple[Float[Tensor, "n 2"], Images, Images]:
    """Where the objects are; the backgrounds with them; the backgrounds alone."""
    draws = generator(0, "registration")
    places = torch.randint(SIDE // 2 - NEAR, SIDE // 2 + NEAR + 1, (positions, 2), generator=draws)
    texture = torch.rand(positions, 3, SIDE // 8, SIDE // 8, generator=draws) / 4
    grounds = functional.interpolate(texture, (SIDE, SIDE), mode="bilinear")
    pixels = torch.arange(SIDE)
    away = (pixels - places[:, :1])[:, :, None] ** 2 + (pixels - places[:, 1:])[:, None] ** 2
    return places.float(), torch.where((away <= RADIUS**2)[:, None], 1.0, grounds), grounds


def maps_of(subject: Classifier, images: Images) -> Float[Tensor, "n i j"]:
    target = torch.zeros(1, dtype=torch.long)
    return torch.cat([METHODS["gradcam"](record(subject, image[None], target)) for image in images])


def centre_of_mass(saliency: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2"]:
    pixels = torch.arange(SIDE, dtype=saliency.dtype)
    along = [saliency.sum(2), saliency.sum(1)]
    return torch.stack([(one * pixels).sum(1) / one.sum(1) for one in along], 1)


def highest(saliency: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2"]:
    """The mean place of the pixels that reach the maximum."""
    top = (saliency == saliency.amax((1, 2), keepdim=True)).to(saliency.dtype)
    return centre_of_mass(top)


def middle_of_view(subject: Classifier, cell: int, draws: int = 8) -> float:
    """The centre of mass of a cell's squared gradient at the pixels: the mean of row and column, and of noise images.

    The gradient is that of a random direction of the features.
    """
    kept: list[Tensor] = []
    random = generator(0, "middle of view")

    def keep(_module: nn.Module, _args: object, output: object) -> None:
        kept.append(first_tensor(output))

    mass = torch.zeros(1, SIDE, SIDE)
    for _ in range(draws):
        image = torch.rand(1, 3, SIDE, SIDE, generator=random).requires_grad_()
        with torch.enable_grad(), hooked(subject.module, {str(subject.target_layer): keep}):
            subject.logits(image)
        features = kept.pop()[0, :, cell, cell]
        (gradient,) = torch.autograd.grad(features @ torch.randn(len(features), generator=random), image)
        mass += gradient.square().sum(1) / gradient.square().sum()
    return centre_of_mass(mass).mean().item()


def measure(name: str, positions: int) -> Row:
    subject = prepare(name)
    if subject.target_layer is None or subject.grid is None:
        raise SystemExit(f"{name} has no map of features, so nothing to register; name another model")
    placement = trace_placement(subject)
    cells = (subject.grid.height, subject.grid.width)
    even = even_placement(cells, (SIDE, SIDE))
    middle = cells[0] // 2
    seen = middle_of_view(subject, middle)
    average(subject.module)
    places, images, grounds = draw(positions)
    marked, unmarked = maps_of(subject, images), maps_of(subject, grounds)
    mass, peak = [], []
    for one in (even, placement):
        added = upsample((marked - unmarked).double(), (SIDE, SIDE), one)
        drawn = upsample(marked.double(), (SIDE, SIDE), one)
        mass.append((centre_of_mass(added) - places).norm(dim=1).mean().item())
        peak.append((highest(drawn) - places).norm(dim=1).mean().item())
    return Row(
        model=name,
        layer=subject.target_layer,
        placement=placement,
        even=even,
        mass=(mass[0], mass[1]),
        peak=(peak[0], peak[1]),
        seen=seen,
        places=(even.first[0] + middle * even.step[0], placement.first[0] + middle * placement.step[0]),
    )


def tables(rows: list[Row]) -> list[str]:
    planted = [
        "| planted disc | layer | centre of mass off by: even | registered | peak off by: even | registered |",
        "|---|---|---:|---:|---:|---:|",
    ]
    looks = [
        "| the middle cell | first cell and step: even | traced | lies at: even | traced | sees, with random weights |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        numbers = " | ".join(f"{number:.1f}" for number in (*row.mass, *row.peak))
        planted.append(f"| {row.model} | `{row.layer}` | {numbers} |")
        lies = " | ".join(f"{one.first[0]:.4g} + {one.step[0]:.4g} i" for one in (row.even, row.placement))
        looks.append(f"| {row.model} | {lies} | {' | '.join(f'{number:.1f}' for number in (*row.places, row.seen))} |")
    return [*planted, "", *looks]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registration", description=__doc__)
    parser.add_argument("--model", nargs="+", default=MODELS, help=f"torchvision classifiers (default: {MODELS})")
    parser.add_argument("--positions", type=int, default=24, help="places of the object (default: 24)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    rows = [measure(name, options.positions) for name in options.model]
    chosen = "" if tuple(options.model) == MODELS else f" --model {' '.join(options.model)}"
    measured = (
        f"Pixels, of {SIDE} x {SIDE}; {options.positions} positions. {date.today()}, {timing.machine(device='cpu')}. "
        f"Command: `python -m benchmarks.registration --positions {options.positions}{chosen}`"
    )
    text = "\n".join([*tables(rows), "", measured])
    print(text)
    if options.write is not None:
        timing.write_section(options.write, "registration", text)


if __name__ == "__main__":
    main()
