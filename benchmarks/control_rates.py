"""False alarms and power of every claim, measured over seeds by the real command.

    python -m benchmarks.control_rates --seeds 20 --write docs/controls.md

Each seed draws new scenes, a new walking order and new random maps; the networks stay the same. So the rates hold for
the audits as they judge these controls, over data; they say nothing of other networks.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from camcore.statistics import clopper_pearson
from fixtures.controls import CONTROLS

ROOT = Path(__file__).parents[1]


def run(seed: int, folder: Path) -> list[tuple[str, str, str, int]]:
    """(control, claim, verdict, images) of one run over all controls."""
    models = [argument for name in CONTROLS for argument in ("--model", f"control:{name}")]
    audit = [sys.executable, "-m", "pytest", "audits", "-q"]
    command = [*audit, *models, f"--audit-seed={seed}", f"--audit-report={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 6):
        said = done.stdout[-2000:] + done.stderr[-2000:]
        raise SystemExit(f"seed {seed} ended with exit code {done.returncode}:\n{said}")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return [
        (claim["subject"], claim["id"].partition("[")[0], claim["verdict"], len(claim["units"]))
        for claim in results["claims"]
    ]


def table(counts: Counter[tuple[str, str, str]], images: Counter[tuple[str, str]], seeds: int) -> str:
    """A row for each control and claim: how often it reached the verdict that it must reach."""
    lines = [
        "| control | claim | must be | reached | exact 95 % interval | otherwise | images, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, made in CONTROLS.items():
        for claim in sorted({claim for control, claim, _ in counts if control == name}):
            wanted = made.wanted(claim)
            if wanted is None:
                said = ", ".join(f"{one} {counts[name, claim, one]}" for one in ("PASS", "FAIL", "INCONCLUSIVE"))
                lines.append(f"| {name} | {claim} | open | - | - | {said} | {images[name, claim] / seeds:.0f} |")
                continue
            reached = counts[name, claim, wanted]
            rate = clopper_pearson(reached, seeds, level=0.95)
            others = ", ".join(
                f"{verdict} {count}"
                for (control, one, verdict), count in sorted(counts.items())
                if (control, one) == (name, claim) and verdict != wanted
            )
            lines.append(
                f"| {name} | {claim} | {wanted} | {reached} of {seeds} | [{rate.low:.2f}, {rate.high:.2f}] "
                f"| {others or '-'} | {images[name, claim] / seeds:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run the seeds, print the table, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    counts: Counter[tuple[str, str, str]] = Counter()
    images: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, arguments.seeds + 1):  # seed 0 is the one that the tests run
            for control, claim, verdict, n in run(seed, Path(folder)):
                counts[control, claim, verdict] += 1
                images[control, claim] += n
            print(f"{seed} of {arguments.seeds} seeds", file=sys.stderr)
    found = table(counts, images, arguments.seeds)
    print(found)
    if arguments.write:
        defects = "\n".join(f"- **{name}**: {made.defect or 'clean'}." for name, made in CONTROLS.items())
        page = (
            "# False alarms and power\n\n"
            "How often each claim reached the verdict that a control calls for, over seeds. On the clean twin\n"
            "anything but PASS is a false alarm; on a defective one anything but the verdict named is a miss. Made by\n"
            f"`python -m benchmarks.control_rates --seeds {arguments.seeds} --write docs/controls.md`, profile `pr`.\n"
            "Each seed draws new scenes; the networks are the same, so the rates hold for these controls only.\n\n"
            f"{found}\n\n## The controls\n\n{defects}\n"
        )
        arguments.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
