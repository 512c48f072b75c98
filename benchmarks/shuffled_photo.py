"""The shuffled dog: one photograph cut into patches that change places, many times over.

Run from the checkout: `python -m benchmarks.shuffled_photo PHOTO --label 207 --model squeezenet1_1 --weights FILE`. For
every grid stands what the model says of the photograph in pieces, and of the photograph with the same cuts drawn in and
nothing moved. The observation that this grew from: ResNet-50 gives a golden retriever 46.34 %, and 99.00 % after one
4 x 4 shuffle.
"""

import argparse
from datetime import date
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import timing
from camcore.perturbations import cut_lines, dealt, derangements
from camcore.seeds import generator
from camcore.subject import Classifier
from fixtures.datasets.folder import decode
from fixtures.subjects.spec import find_subject

SEED = 0
GRIDS = (2, 4, 7, 8, 14)
CHUNK = 20
KINDS = {"pieces": "patches shuffled", "cuts": "cuts drawn, nothing moved"}


@torch.no_grad()
def scores(subject: Classifier, images: Tensor) -> Tensor:
    """Logits of all versions."""
    return torch.cat([subject.logits(part) for part in images.split(CHUNK)])


def versions(image: Tensor, cells: int, shuffles: int) -> dict[str, Tensor]:
    draws = [generator(SEED, "shuffled photo", str(cells), str(index)) for index in range(shuffles)]
    many = image.expand(shuffles, -1, -1, -1)
    pieces = dealt(many, derangements(cells**2, generators=draws), cells)
    return {"pieces": pieces, "cuts": cut_lines(many, pieces, cells)}


def plot(whole: float, found: dict[tuple[int, str], Tensor], name: str, path: Path) -> None:
    """Median, middle half and extremes over the shuffles."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "shuffled photo", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for kind, shift, colour in (("pieces", -0.12, "#0b5fa5"), ("cuts", 0.12, "#c8501e")):
            at = [place + shift for place in range(len(GRIDS))]
            quantiles = torch.stack(
                [found[cells, kind].quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])) for cells in GRIDS]
            ).T.tolist()
            axes.vlines(at, quantiles[0], quantiles[4], color=colour, linewidth=1)
            axes.vlines(at, quantiles[1], quantiles[3], color=colour, linewidth=5, alpha=0.5)
            axes.plot(at, quantiles[2], "o", markersize=4, color=colour, label=KINDS[kind])
        axes.axhline(whole, color="black", linewidth=1, linestyle="--", label="whole")
        axes.set_xticks(range(len(GRIDS)), [f"{cells} x {cells}" for cells in GRIDS])
        axes.set(xlabel="patches", ylabel=f"probability of {name}", ylim=(-0.02, 1.02))
        axes.grid(color="#e4e2dc", linewidth=0.8, axis="y")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shuffled_photo", description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--label", type=int, required=True, help="index of what it shows")
    parser.add_argument("--model", default="resnet50", help="(default: resnet50)")
    parser.add_argument("--weights", help="instead of the published ones")
    parser.add_argument("--shuffles", type=int, default=200, help="of each grid (default: 200)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put table and figure into this Markdown page")
    options = parser.parse_args()
    subject = find_subject(options.model, weights=options.weights, device="cpu")
    image = subject.geometry.fit(decode(options.photo.read_bytes()))[None]
    name = subject.classes[options.label]
    (logits,) = scores(subject, image)
    whole = float(logits.softmax(0)[options.label])
    lines = [
        f"| patches | version | probability of {name}: median (least, most) | called {name} | surer than whole "
        "| highest logit |",
        "|---|---|---|---|---|---|",
        f"| whole | | {whole:.4f} | {'yes' if int(logits.argmax()) == options.label else 'no'} | | "
        f"{float(logits[options.label]):.2f} |",
    ]
    found = {}
    for cells in GRIDS:
        for kind, shown in versions(image, cells, options.shuffles).items():
            each = scores(subject, shown)
            probability = found[cells, kind] = each.softmax(1)[:, options.label]
            lines.append(
                f"| {cells} x {cells} | {KINDS[kind]} | {probability.median():.4f} ({probability.min():.4f}, "
                f"{probability.max():.4f}) | {int((each.argmax(1) == options.label).sum())} of {options.shuffles} | "
                f"{int((probability > whole).sum())} of {options.shuffles} | {each[:, options.label].max():.2f} |"
            )
    text = "\n".join(
        [
            *lines,
            "",
            f"{options.model}, {options.photo.name}, {options.shuffles} shuffles of each grid, seed {SEED}. "
            f"{date.today()}, {timing.machine(device='cpu')}. Command: `python -m benchmarks.shuffled_photo "
            f"{options.photo.name} --label {options.label} --model {options.model} --shuffles {options.shuffles}`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, "shuffled photo", text)
        plot(whole, found, name, options.write.parent / "shuffled_photo.svg")


if __name__ == "__main__":
    main()
