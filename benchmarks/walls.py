"""What methods mark behind walls: the walls paper's table on another network, and its open questions in numbers.

Run from the checkout: `python -m benchmarks.walls head --weights FILE --data FOLDER` for the table of all methods
behind a head wall (SqueezeNet 1.1), `covers` for walls before the target layer, `models` for other networks with random
weights. The folder holds stacked pictures of 224 x 224 pixels, which are taken as they are.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from audits.test_wall import behind_cover, wall_leakage
from benchmarks import timing
from camcore.cam import METHODS, RECORDED, CamMethod
from camcore.images import Batch, Geometry
from camcore.layers import with_target_layer
from camcore.subject import Classifier
from camcore.wall import build_wall
from camcore.wall_cover import cover_input, cover_layer
from fixtures.datasets.folder import decode
from fixtures.subjects.spec import find_subject
from fixtures.subjects.torchvision import load

SIDE = 224
RECORDED_AT_ONCE = 20  # images
CHUNK = 8  # images per forward of methods that ask
FEW = 4  # images that the slowest methods are tried on, none of them in the paper
SLOWEST = ("occlusion", "rise", "smoothgrad", "integrated_gradients")
RISE_MASKS = 500  # of the 4000 that it takes by default
# Taimeskhanov et al. 2024, their slides: percent of the norm behind the wall of VGG16, mean and standard deviation.
PAPER = {
    "gradcam": (22.7, 13.4),
    "gradcam_plus_plus": (28.8, 8.1),
    "xgradcam": (23.8, 9.0),
    "scorecam": (19.9, 10.3),
    "opticam": (32.7, 7.9),
    "ablationcam": (21.0, 9.9),
    "eigencam": (51.7, 19.7),
    "hirescam": (0.0, 0.0),
}
QUICK = (*RECORDED, "cam", "gradient", "gradient_times_input", "guided_backprop", "guided_gradcam", "hirescam_spread")
COVERED = (*RECORDED, "hirescam_spread", "gradient", "guided_backprop")
MODELS = ("vgg16", "alexnet", "resnet18", "resnet50")


def pictures(folder: Path, images: int) -> Batch:
    files = sorted(folder.glob("*.png"))[:images]
    if not files:
        raise SystemExit(f"no PNG in {str(folder)!r}; give a folder of stacked pictures")
    return Batch(
        images=torch.stack([decode(file.read_bytes()) for file in files]),
        labels=torch.zeros(len(files), dtype=torch.long),
        ids=tuple(file.name for file in files),
        seed=0,
        chunk=CHUNK,
    )


def part(batch: Batch, first: int, last: int) -> Batch:
    cut = slice(first, last)
    return replace(batch, images=batch.images[cut], labels=batch.labels[cut], ids=batch.ids[cut])


def measured(
    measure: Callable[..., Mapping[str, Tensor]],
    subject: Classifier,
    batch: Batch,
    cams: Mapping[str, CamMethod],
    asked: int = 0,
) -> dict[str, Tensor]:
    """The columns over all images, over `asked` for methods that ask many times, and over few for the slowest.

    A method that the network has no map of has none.
    """
    quick = {name: cam for name, cam in cams.items() if name in QUICK}
    found: dict[str, list[Tensor]] = {}
    for group in (quick, *({name: cam} for name, cam in cams.items() if name not in quick)):
        images = len(batch) if group is quick else min(asked, FEW if set(group) & set(SLOWEST) else asked)
        for first in range(0, images, RECORDED_AT_ONCE):
            some = part(batch, first, min(first + RECORDED_AT_ONCE, images))
            for key, column in measure(subject, some, cams=group).items():
                found.setdefault(key, []).append(column)
        for key in (f"{name}:{what}" for name in group for what in ("paper", "leakage", "varies")):
            if key in found:
                print(key, spread(torch.cat(found[key])), file=sys.stderr, flush=True)
    return {key: torch.cat(columns) for key, columns in found.items()}


def squeezenet(weights: str) -> Classifier:
    subject = find_subject("squeezenet1_1", weights=weights, device="cpu")
    return with_target_layer(replace(subject, geometry=Geometry(crop=(SIDE, SIDE))))


def spread(column: Tensor, scale: float = 100) -> str:
    """Mean and unbiased standard deviation over the maps that are not empty."""
    seen = column[column.isfinite()] * scale
    return "-" if not len(seen) else f"{seen.mean():.1f} ± {seen.std() if len(seen) > 1 else 0:.1f}"


def mean(column: Tensor) -> str:
    return f"{column.nanmean():.2f}" if column.isfinite().any() else "-"


def head(subject: Classifier, batch: Batch, methods: list[str], asked: int) -> list[str]:
    wall = build_wall(subject, batch.images[:4], seed=0)
    if wall.dead_from is None:
        raise SystemExit(f"no pixel is dead behind the wall of {subject.name}")
    chosen = {name: METHODS[name] for name in methods}
    if "rise" in chosen:
        chosen["rise"] = partial(METHODS["rise"], masks=RISE_MASKS)  # type: ignore[call-arg]
    found = measured(partial(wall_leakage, wall=wall), subject, batch, chosen, asked)
    lines = [
        f"The wall hides feature rows {wall.kept_rows} to {wall.rows - 1} of `{subject.target_layer}`; pixel rows from "
        f"{wall.dead_from} are dead ({1 - wall.dead_from / wall.pixels:.2f} of the picture). A constant map: "
        f"{100 * (1 - wall.dead_from / wall.pixels) ** 0.5:.1f} (the paper's: {100 * (54 / 224) ** 0.5:.1f}).",
        "",
        "| method | μ, as in the paper | μ, raw | paper, VGG16 | zero | over-blanking | pictures |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    judged = [name for name in chosen if f"{name}:leakage" in found]
    for name in sorted(judged, key=lambda name: (-found[f"{name}:paper"].nanmean(), name)):
        paper = "{} ± {}".format(*PAPER[name]) if name in PAPER else "-"
        zero, over = (mean(found[f"{name}:{key}"]) for key in ("zero", "over"))
        lines.append(
            f"| {name} | {spread(found[f'{name}:paper'])} | {spread(found[f'{name}:leakage'])} | {paper} "
            f"| {zero} | {over} | {int(found[f'{name}:paper'].isfinite().sum())} |"
        )
    absent = [name for name in chosen if name not in judged]
    return [*lines, "", f"Not defined behind this wall: {', '.join(absent) or 'none'}."]


def covers(subject: Classifier, batch: Batch) -> list[str]:
    lines = []
    for build, where in ((cover_layer, "At an earlier layer"), (cover_input, "On the picture")):
        cover = build(subject, batch.images[:4], seed=0)
        found = measured(partial(behind_cover, cover=cover), subject, batch, {name: METHODS[name] for name in COVERED})
        at = f"`{cover.layer}`" if cover.layer else "the pixels"
        lines += [
            f"{where}: rows from {cover.open_rows} of {at} are covered, pixel rows from {cover.dead_from} are dead; "
            f"judged from {cover.judged_from}, in cells that see {'nothing' if cover.sealed else 'something'} before "
            f"the wall. A constant map: {100 * cover.constant_line:.1f}.",
            "",
            "| method | μ behind | ν: of it changes | μ, all dead pixels | ν, all dead pixels | zero |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name in COVERED:
            if f"{name}:behind" in found:
                keys = ("behind", "varies", "dead", "dead_varies")
                numbers = " | ".join(spread(found[f"{name}:{key}"]) for key in keys)
                lines.append(f"| {name} | {numbers} | {mean(found[f'{name}:zero'])} |")
        lines.append("")
    return lines[:-1]


def masked_vgg16() -> Classifier:
    """The walls paper's network, not trained: no last pooling, 256 features, a dense layer on 14 x 14 of them."""
    from torchvision.models import vgg16

    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = vgg16(weights=None)
        body = plain.features[:30]
        body[28] = nn.Conv2d(512, 256, 3, padding=1)
        dense = nn.Linear(256 * 14 * 14, 4096)
        module = nn.Sequential(body, nn.Flatten(), nn.Sequential(dense, *plain.classifier[1:])).eval()
    names = tuple(map(str, range(1000)))
    return with_target_layer(
        Classifier(name="vgg16", spec="vgg16", module=module, geometry=Geometry(crop=(SIDE, SIDE)), classes=names)
    )


def random_network(name: str) -> Classifier:
    if name == "vgg16":
        return masked_vgg16()
    subject = load(name, "random:0")
    subject.module.eval()
    return with_target_layer(replace(subject, geometry=Geometry(crop=(SIDE, SIDE))))


def models(batch: Batch, names: list[str]) -> list[str]:
    methods = [*RECORDED, "hirescam_spread"]
    lines = [
        f"| network | judged on | a constant map | {' | '.join(methods)} |",
        f"|---|---|---:|{'---:|' * len(methods)}",
    ]
    for name in names:
        subject = random_network(name)
        wall = build_wall(subject, batch.images[:1], seed=0)
        found = measured(partial(wall_leakage, wall=wall), subject, batch, {one: METHODS[one] for one in methods})
        where = (
            f"feature rows {wall.kept_rows} to {wall.rows - 1} of {wall.rows}"
            if wall.dead_from is None
            else f"pixel rows {wall.judged_from} to {wall.pixels - 1} (dead from {wall.dead_from})"
        )
        numbers = " | ".join(spread(found[f"{one}:leakage"]) for one in methods)
        lines.append(f"| {name} | {where} | {100 * wall.constant_line:.1f} | {numbers} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walls", description=__doc__)
    parser.add_argument("table", choices=("head", "covers", "models"))
    parser.add_argument("--weights", metavar="FILE", help="SqueezeNet 1.1, ImageNet; not needed for models")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="stacked pictures")
    parser.add_argument("--images", type=int, default=40, help="of the folder's, in order (default: 40)")
    parser.add_argument("--asked", type=int, default=40, help="pictures for methods that ask many times (default: 40)")
    parser.add_argument("--cam", nargs="+", default=sorted(METHODS), help="methods of the first table (default: all)")
    parser.add_argument("--model", nargs="+", default=list(MODELS), help=f"networks (default: {MODELS})")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the table into this Markdown page")
    options = parser.parse_args()
    batch = pictures(options.data, options.images)
    if options.table == "models":
        lines = models(batch, options.model)
    elif options.weights is None:
        raise SystemExit("the tables head and covers need --weights FILE")
    elif options.table == "head":
        lines = head(squeezenet(options.weights), batch, options.cam, min(options.asked, len(batch)))
    else:
        lines = covers(squeezenet(options.weights), batch)
    weights = "" if options.weights is None else f" --weights {Path(options.weights).name}"
    measured_on = (
        f"Percent of the norm, mean ± standard deviation over {len(batch)} pictures. {date.today()}, "
        f"{timing.machine(device='cpu')}. Command: `python -m benchmarks.walls {options.table}{weights} "
        f"--data {options.data.name} --images {len(batch)}"
        f"{f' --asked {options.asked}' if options.table == 'head' else ''}`"
    )
    text = "\n".join([*lines, "", measured_on])
    print(text)
    if options.write is not None:
        timing.write_section(options.write, f"walls {options.table}", text)


if __name__ == "__main__":
    main()
