"""The real command in a process of its own, and what came out of it; models and folders for it to be run on."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from audits.policy import load_policy

ROOT = Path(__file__).parents[1]
# what a run says of itself, not of the model
OF_THE_RUN = ("id", "utc", "command", "seconds", "git")

FACTORIES = '''
"""Small models for 48 x 48 pictures, each odd in one way."""

import warnings

import torch
from torch import nn

from camcore.images import Geometry


class Convolutional(nn.Module):
    geometry = Geometry(crop=(48, 48))
    classes = [f"<script>alert({index})</script> & 'cat'" for index in range(10)]
    calls = 0

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


class Breaks(Convolutional):
    def forward(self, images):
        self.calls += 1
        if self.calls > 40:
            raise self.error
        return super().forward(images)


class Dense(nn.Module):
    geometry = Geometry(crop=(48, 48))

    def __init__(self):
        super().__init__()
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(3 * 48 * 48, 8), nn.ReLU(), nn.Linear(8, 10))

    def forward(self, images):
        return self.dense(images)


class Warns(Convolutional):
    def forward(self, images):
        warnings.warn("an old habit of the model's author")
        return super().forward(images)


class OneAtATime(Convolutional):
    def forward(self, images):
        return super().forward(images).view(1, 10)


def convolutional():
    return Convolutional()


def breaks():
    model = Breaks()
    model.error = RuntimeError("the forward broke\\nin the middle")
    return model


def breaks_oddly():
    model = Breaks()
    model.error = LookupError("no such thing")
    return model


def dense():
    return Dense()


def warns():
    return Warns()


def one_at_a_time():
    return OneAtATime()
'''


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished command."""

    code: int
    output: str  # stdout and stderr
    report: Path

    @cached_property
    def results(self) -> dict[str, Any]:
        """What results.json holds."""
        found: dict[str, Any] = json.loads((self.report / "results.json").read_text(encoding="utf-8"))
        return found

    @property
    def verdicts(self) -> dict[tuple[str, str], str]:
        """(subject, claim less its method) -> verdict."""
        return {(claim["subject"], claim["id"].partition("[")[0]): claim["verdict"] for claim in self.results["claims"]}

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(key, image id) of every row that was journalled, in order; half lines are left out."""
        return [(line["key"], line["id"]) for line in journalled(self.report) if line["type"] == "row"]


def command(report: Path, *arguments: str | Path, what: str = "audits") -> list[str]:
    """The command line; no time is spent on measuring a batch size, nor on hypothesis, which audits do not use."""
    words = [sys.executable, "-m", "pytest", what, "--audit-report", str(report), "--audit-batch-size", "8"]
    words += ["-p", "no:hypothesispytest"]
    return [*words, *map(str, arguments)]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without its own AUDIT_ variables; one thread, so that all runs add up alike.

    Bytecode is kept, whatever tox says: a run takes a third less to start if the audits need not be compiled again.
    """
    left_out = ("AUDIT_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, "OMP_NUM_THREADS": "1", **(extra or {})}


def in_the_way(folder: Path, target: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Options and environment of a run in which a folder comes to lie where a file is to be written at its end."""
    code = f"from pathlib import Path\n\n\ndef pytest_collection_finish():\n    Path({str(target)!r}).mkdir()\n"
    (folder / "obstacle.py").write_text(code, encoding="utf-8")
    return ("-p", "obstacle"), {"PYTHONPATH": str(folder)}


def finished(
    words: Sequence[str], *, cwd: Path = ROOT, extra: Mapping[str, str] | None = None, timeout: int = 600
) -> subprocess.CompletedProcess[str]:
    """A command run to its end; both of its outputs are in `stdout`."""
    return subprocess.run(
        words,
        cwd=cwd,
        env=environment(extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def run(report: Path, *arguments: str | Path, what: str = "audits", extra: Mapping[str, str] | None = None) -> Run:
    """Run `python -m pytest audits` with these arguments to its end."""
    done = finished(command(report, *arguments, what=what), extra=extra)
    return Run(code=done.returncode, output=done.stdout, report=report)


def journalled(report: Path) -> Iterator[dict[str, Any]]:
    """The lines of all journals in a report's folder that are whole."""
    for path in sorted(report.glob("results*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                continue


def factories(folder: Path) -> str:
    """A file of small models; returns the spec up to the factory's name."""
    file = folder / "models.py"
    file.write_text(FACTORIES, encoding="utf-8")
    return f"py:{file}:"


def only_gate(*claims: str) -> str:
    """A policy under which no other claim gates: with -k, a run of a few audits that can pass."""
    policy = load_policy(None, profile="smoke")
    others = (name for name, claim in policy.claims.items() if claim.severity == "gate" and name not in claims)
    return "".join(f'[claims."{name}"]\nseverity = "warn"\n' for name in others)


def overlay(folder: Path, text: str) -> Path:
    """A policy file."""
    file = folder / "policy.toml"
    file.write_text(text, encoding="utf-8")
    return file


def photographs(folder: Path, names: list[str], *, side: int = 60) -> Path:
    """A folder of noise pictures, each drawn from its place in the list."""
    for index, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(file, "PNG")
    return folder


def difference(one: Any, other: Any, *, tolerance: float, where: str = "results") -> str:
    """Where two results differ by more than the tolerance, in one line; empty if nowhere.

    Left out are times and what `OF_THE_RUN` lists. Pictures are decoded and may differ by a few grey levels where
    numbers may differ at all.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f"{where}: {sorted(one.keys() ^ other.keys())} is on one side only"
        ignored = {*OF_THE_RUN} if where == "results.run" else {"seconds"}
        pairs = [(f"{where}.{key}", one[key], other[key]) for key in one if key not in ignored]
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{where}: {len(one)} and {len(other)} entries"
        pairs = [(f"{where}.{index}", *both) for index, both in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, float) and isinstance(other, float):
        # logits are tens high, and a curve of them may cross zero
        close = isclose(one, other, rel_tol=tolerance, abs_tol=tolerance * (10 if ".series." in where else 1))
        return "" if close else f"{where}: {one} and {other}"
    elif ".rows." in where and tolerance and isinstance(one, str) and isinstance(other, str):
        return "" if told_alike(one, other) else f"{where}: {one!r} and {other!r}"
    elif where.endswith((".image", ".saliency")) and tolerance and one and other:
        apart = grey_levels_apart(one, other)
        return "" if apart <= 3 else f"{where}: pictures differ by {apart} grey levels"
    else:
        return "" if one == other and type(one) is type(other) else f"{where}: {one!r} and {other!r}"
    return next((found for at, a, b in pairs if (found := difference(a, b, tolerance=tolerance, where=at))), "")


def told_alike(one: str, other: str) -> bool:
    """Whether two cells of a table say the same but for the last digit of a number, which may round either way."""
    number = re.compile(r"[-+]?\d+\.\d+")
    if number.sub("", one) != number.sub("", other):
        return False
    pairs = zip(number.findall(one), number.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= 1.01 * 10.0 ** -len(a.partition(".")[2]) for a, b in pairs)


def grey_levels_apart(one: str, other: str) -> int:
    """The largest difference of two encoded pictures of one size; 255 if their sizes differ."""
    first, second = (np.asarray(Pillow.open(io.BytesIO(base64.b64decode(code)))).astype(int) for code in (one, other))
    return int(np.abs(first - second).max()) if first.shape == second.shape else 255
