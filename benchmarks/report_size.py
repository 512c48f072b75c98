"""How long a report takes to write, how large it is, and what memory that takes, as claims and pictures grow.

    python -m benchmarks.report_size

makes runs of up to 300 claims, each with its own photographs and maps of 224 pixels, and writes their reports.
"""

import base64
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reports import html
from reports.schema import Results

SIDE = 224
RANKS = ("worst", "worst", "worst", "typical", "typical", "best")
VERDICTS = ("FAIL", "PASS", "PASS", "INCONCLUSIVE", "PASS")
VALUES = 256  # images behind each claim
X = tuple(share / 10 for share in range(11))
SHA = "0" * 64


def photographs(count: int, seed: int = 0) -> Iterator[str]:
    """JPEGs of noise with the spectrum of photographs (power falls with the square of the frequency), each another."""
    rng = np.random.default_rng(seed)
    across, down = np.fft.rfftfreq(SIDE), np.fft.fftfreq(SIDE)
    size = np.maximum(np.hypot(down[:, None], across), 1 / SIDE)
    noise = np.fft.rfft2(rng.standard_normal((3, SIDE, SIDE))) / size
    base = np.fft.irfft2(noise, s=(SIDE, SIDE))
    base = (np.clip(base / base.std() / 5 + 0.5, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    for _ in range(count):
        yield _coded(np.roll(base, tuple(rng.integers(SIDE, size=2)), axis=(0, 1)), "JPEG", quality=85)


def maps(count: int, seed: int = 0) -> Iterator[str]:
    """PNGs of maps of 7 x 7 cells, upsampled."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        cells = Image.fromarray((255 * rng.random((7, 7)) ** 2).astype(np.uint8))
        yield _coded(np.asarray(cells.resize((SIDE, SIDE), Image.Resampling.BILINEAR)), "PNG")


def _coded(pixels: NDArray[np.uint8], kind: str, **options: Any) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def run(claims: int, ranks: Sequence[str] = RANKS) -> Results:
    """A run with so many claims, each with pictures that no other claim has, a curve and a table.

    Args:
        claims: How many.
        ranks: Of the pictures of each.
    """
    images, saliency = photographs(claims * len(ranks)), maps(claims * len(ranks))
    made = [_claim(number, ranks, images, saliency) for number in range(claims)]
    family = {"level": 0.95, "per_claim_level": 0.99, "claims": claims}
    how = {"id": "made", "utc": "2026-01-01T00:00:00+00:00", "command": "pytest audits", "git": None, "seed": 0}
    how |= {"profile": "release", "policy_sha256": SHA, "policy_path": "policy.toml", "device": "cpu", "versions": {}}
    subject = {"spec": "made", "id": "made", "sha256": SHA, "weights": "none", "arch": "none", "n_params": 1}
    subject |= {"kind": "classifier", "target_layer": None, "preprocess": "none", "unsafe": []}
    return Results.model_validate(
        {
            "schema_version": "1.1",
            "run": how | {"family": family, "seconds": 1.0, "interrupted": False},
            "subjects": [subject],
            "data": [],
            "audits": [],
            "claims": made,
            "not_tested": [],
            "verdict": "FAIL",
            "exit_code": 1,
        }
    )


def _claim(number: int, ranks: Sequence[str], images: Iterator[str], saliency: Iterator[str]) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    name, verdict = f"audit{number % 20}/claim{number}", VERDICTS[number % len(VERDICTS)]
    gates = number % 3 == 0
    estimate = {"point": 0.4, "low": 0.3, "high": 0.5, "level": 0.99, "n": VALUES, "interval": "betting"}
    overlays = [
        {
            "type": "overlay",
            "unit": f"photographs/{number}-{place}.jpg",
            "role": role,
            "value": 0.4,
            "caption": "tench (0.97)",
            "image": next(images),
            "saliency": next(saliency),
            "dead_from_row": None,
        }
        for place, role in enumerate(ranks)
    ]
    series = {line: [float(one) for one in rng.random(len(X))] for line in ("map", "random", "edges", "centre")}
    labels = {"title": "Deletion", "x_label": "share removed", "y_label": "class probability"}
    curve = {"type": "curve", **labels, "x": list(X), "series": series}
    columns, rows = ["map", "deletion", "insertion"], [[line, *map(float, rng.random(2))] for line in series]
    return {
        "id": name,
        "node_id": f"audits/test_made.py::test_{number}",
        "subject": "made",
        "audit": name.partition("/")[0],
        "audit_version": "1",
        "kind": "DIR",
        "sentence": f"deleting what the map marks costs more than deleting something else, for the {number}th time",
        "severity": "gate" if gates else "warn",
        "gates": gates,
        "verdict": verdict,
        "reason": "the whole interval lies above 0.05",
        "measure": {"name": "probability lost", "unit": "class probability", "direction": "above"},
        "estimate": estimate,
        "bounds": [-1.0, 1.0],
        "margin": 0.05,
        "margin_source": "made",
        "p": 0.01,
        "p_holm": 0.02,
        "n_needed": None,
        "cost": {"seconds": 1.0, "forwards": 100, "backwards": 10},
        "values": [float(one) for one in rng.normal(0.4, 0.1, VALUES)],
        "units": [f"photographs/{number}-{place}.jpg" for place in range(VALUES)],
        "evidence": [*overlays, curve, {"type": "table", "title": "Areas", "columns": columns, "rows": rows}],
        "controls": ["clean"],
        "rerun": f'pytest "audits/test_made.py::test_{number}" --model made',
    }


def main() -> None:
    """Print a line for each size of run."""
    print("| claims | pictures | results.json | report | written in (CPU) | peak memory beyond the results |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        for claims in (75, 150, 300, 600):
            results = run(claims)
            started = time.process_time()
            html.write(results, path)
            seconds = time.process_time() - started
            tracemalloc.start()
            html.write(results, path)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            holds, size = len(results.model_dump_json()), path.stat().st_size
            print(
                f"| {claims} | {claims * len(RANKS)} | {holds / 1e6:.1f} MB | {size / 1e6:.1f} MB | {seconds:.1f} s "
                f"| {peak / 1e6:.0f} MB |"
            )


if __name__ == "__main__":
    main()
