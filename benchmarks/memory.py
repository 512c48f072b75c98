"""Peak memory of a run over few and over many images: it should not depend on how many there are.

`python -m benchmarks.memory --write docs/performance.md`: `pytest audits --audit-profile pr` over a folder of n drawn
JPEGs, each n in a process of its own, which measures all of them (`--audit-full`, and a policy that grants as many).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from benchmarks import timing

ROOT = Path(__file__).parents[1]
SIDE = 96  # pixels of a picture
CLASSES = 10
AUDITS = "test_"  # all of them
# small, so that the images are what memory would go to
MODEL = """
from torch import nn

from camcore.images import Geometry


class Small(nn.Module):
    geometry = Geometry(crop=(64, 64), resize=64)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


def small():
    return Small()
"""
POLICY = """
[profiles.pr]
images = {n}
seconds = 86400
"""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What one run took."""

    n: int
    megabytes: float  # resident, at most
    seconds: float
    results: float  # megabytes of results.json
    journal: float
    values: int  # measured, of all claims
    claims: int


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[250, 2000])
    parser.add_argument("--model", help="instead of a small one of one convolution")
    parser.add_argument("-k", dest="audits", default=AUDITS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    load = timing.load_average()
    peaks = [measured(n, options.model, options.audits) for n in options.images]
    text = table(peaks, options.model, options.audits, load)
    print(text)
    if options.write:
        timing.write_section(options.write, "memory", text)


def measured(n: int, model: str | None, audits: str) -> Peak:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        draw(folder / "photos", n)
        (folder / "policy.toml").write_text(POLICY.format(n=n), encoding="utf-8")
        (folder / "model.py").write_text(MODEL, encoding="utf-8")
        report = folder / "report"
        words = [sys.executable, "-m", "pytest", "audits", "--model", model or f"py:{folder / 'model.py'}:small"]
        words += ["--data", str(folder / "photos")]
        words += ["--audit-profile", "pr", "--audit-policy", str(folder / "policy.toml"), "--audit-full"]
        words += ["--audit-device", "cpu", "--audit-batch-size", "32", "--audit-report", str(report), "-k", audits]
        started = time.monotonic()
        with (folder / "output").open("wb") as output:
            run = subprocess.Popen([*words, "-q"], cwd=ROOT, stdout=output, stderr=output)
            _, status, used = os.wait4(run.pid, 0)  # of this child alone; this process is smaller than any of them
        if os.waitstatus_to_exitcode(status) not in (0, 1, 6):
            raise SystemExit((folder / "output").read_text(encoding="utf-8", errors="replace"))
        claims = json.loads((report / "results.json").read_text(encoding="utf-8"))["claims"]
        return Peak(
            n=n,
            megabytes=used.ru_maxrss / 1024,
            seconds=time.monotonic() - started,
            results=(report / "results.json").stat().st_size / 2**20,
            journal=(report / "results.jsonl").stat().st_size / 2**20,
            values=sum(len(claim["values"]) for claim in claims),
            claims=sum(bool(claim["values"]) for claim in claims),
        )


def draw(folder: Path, n: int) -> None:
    """Blurred noise in a sub-folder per class."""
    for index in range(n):
        coarse = np.random.default_rng(index).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        file = folder / str(index % CLASSES) / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(coarse).resize((SIDE, SIDE), Pillow.Resampling.BICUBIC).save(file, quality=85)


def table(peaks: list[Peak], model: str | None, audits: str, load: str) -> str:
    """In Markdown, with how it was made."""
    rows = [
        f"| {one.n:,} | {one.values:,} values of {one.claims} claims | {one.megabytes:.0f} | {one.results:.1f} | "
        f"{one.journal:.1f} | {one.seconds:.0f} |"
        for one in peaks
    ]
    grown = peaks[-1].megabytes - peaks[0].megabytes
    between = peaks[-1].n - peaks[0].n
    command = " ".join(["python -m benchmarks.memory", "--images", *(str(one.n) for one in peaks)])
    command += f" --model {model}" if model else ""
    return "\n".join(
        [
            "| images | measured | peak MB resident | MB of results.json | MB of results.jsonl | s |",
            "|---:|---|---:|---:|---:|---:|",
            *rows,
            "",
            f"{grown:+.0f} MB over {between:,} more images, {1024 * grown / max(between, 1):+.1f} kB each. "
            f"{date.today()}, {timing.machine(device='cpu')}; load average {load} at the start, "
            f"{timing.load_average()} at the end. "
            f"Command: `{command} -k '{audits}'`",
        ]
    )


if __name__ == "__main__":
    main()
