"""Who does what the papers say: the suite of tests/conformance put to camcore and to its peers, as two tables.

Run from the checkout: `python -m benchmarks.conformance [--write docs/conformance.md]`. Peers that are not installed
have empty columns; `pip install -e '.[bench]'` brings them. The exit code is 1 if camcore itself fails a property.
"""

import argparse
import contextlib
import io
import sys
import warnings
from datetime import date
from pathlib import Path

from benchmarks import pixel_peers, timing
from tests.conformance import compare, formulas, manners, mechanisms, symmetries  # noqa: F401  (properties register)
from tests.conformance.adapter import METHODS, Adapter, find_adapter
from tests.conformance.suite import PROPERTIES, Outcome, Property, ask

LIBRARIES = ("camcore", "pytorch_grad_cam", "torchcam", "captum")
DISTRIBUTIONS = ("camcore", "grad-cam", "torchcam", "captum")
DRAWS = 10  # networks per number of the second table
COMPARED = {
    **{method: (method, formulas.PLAIN) for method in METHODS},
    "gradcam_plus_plus, gradients of 1e-4 and less": ("gradcam_plus_plus", formulas.SMALL_GRADIENTS),
    "scorecam, a map of half the image's size": ("scorecam", formulas.HALF_SIZE),
    "ablationcam, features of both signs": ("ablationcam", formulas.BOTH_SIGNS),
}

Answers = dict[str, dict[str, Outcome]]  # by property, by method


def answers(adapter: Adapter) -> Answers:
    return {name: {method: ask(adapter, name, method) for method in one.methods} for name, one in PROPERTIES.items()}


def cell(asked: Property, outcomes: dict[str, Outcome]) -> str:
    """One property for one library: what became of the methods that it offers."""
    kinds = {
        kind: [method for method, outcome in outcomes.items() if outcome.kind == kind]
        for kind in ("ok", "FAILS", "exception", "not asked", "not offered")
    }
    if len(kinds["not offered"]) == len(asked.methods):
        return "not offered"
    if kinds["FAILS"] and not kinds["ok"] and len(kinds["FAILS"]) > 2:
        kinds["FAILS"] = [f"all {len(kinds['FAILS'])}"]
    said = [f"{kind}: {', '.join(kinds[kind])}" for kind in ("FAILS", "exception", "not asked") if kinds[kind]]
    return "; ".join(said) if kinds["FAILS"] or not kinds["ok"] else "; ".join(["ok", *said])


def difference(adapter: Adapter, method: str, case: formulas.Case) -> str:
    """The largest over networks, images and places, each map scaled to a largest value of 1; bold beyond the bound."""
    if method not in adapter.methods:
        return ""
    worst = 0.0
    for seed in range(DRAWS):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            both = formulas.pair(adapter, method, case, seed)
        if both is not None:
            found, expected = (compare.at_one(saliency) for saliency in both)
            worst = max(worst, float((found - expected).abs().max()))
    return f"**{worst:.0e}**" if worst > compare.EQUATION else f"{worst:.0e}"


def unexplained(adapter: Adapter, mechanism: mechanisms.Mechanism) -> str:
    """As `difference`, to the library's own formula as retold here."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        left = [mechanisms.left_unexplained(adapter, mechanism, seed) for seed in range(DRAWS)]
    return f"{max(one for one in left if one is not None):.0e}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def page(adapters: list[Adapter], found: dict[str, Answers]) -> str:
    names = [adapter.name for adapter in adapters]
    lines = ["### Properties", "", row("", *names), row("---", *("---" for _ in names))]
    for name, one in PROPERTIES.items():
        cells = [cell(one, found[library][name]) if library in found else "not installed" for library in names]
        lines.append(row(f"`{name}`: {one.sentence}", *cells))
    lines += ["", "### Largest difference from the paper's equation", ""]
    lines += [row("", *names), row("---", *("---:" for _ in names))]
    for label, (method, case) in COMPARED.items():
        cells = [difference(adapter, method, case) if adapter.name in found else "" for adapter in adapters]
        lines.append(row(label, *cells))
    lines += ["", "### What explains a difference", ""]
    lines += [row("", "instead of the equation, it", "left unexplained"), row("---", "---", "---:")]
    for one in mechanisms.MECHANISMS:
        adapter = next(adapter for adapter in adapters if adapter.name == one.peer)
        label = next(label for label, compared in COMPARED.items() if compared == (one.method, one.case))
        left = unexplained(adapter, one) if one.peer in found else "not installed"
        lines.append(row(f"{one.peer}, {label}", one.instead, left))
    lines += ["", "### Methods of pixels, largest difference from captum's", ""]
    lines += [row("", "captum"), row("---", "---:")]
    if "captum" in found:
        lines += [row(label, f"{worst:.0e}") for label, worst in pixel_peers.differences().items()]
    lines += ["", "### What was observed", ""]
    for library, by_property in found.items():
        for name, outcomes in by_property.items():
            failed = {method: one.detail for method, one in outcomes.items() if one.kind == "FAILS"}
            if failed:
                method, detail = next(iter(failed.items()))
                lines.append(f"- {library}, `{name}`, {method}: {detail}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also put the tables into this Markdown page")
    options = parser.parse_args()

    warnings.simplefilter("ignore")  # what peers warn about is theirs
    adapters = [find_adapter(library) for library in LIBRARIES]
    found = {}
    for adapter in adapters:
        if reason := adapter.missing():
            print(f"skipped: {adapter.name}: {reason}", file=sys.stderr)
        else:
            found[adapter.name] = answers(adapter)
    text = "\n\n".join(
        [
            page(adapters, found),
            f"{date.today()}, {timing.machine(device='cpu')}; {timing.versions(*DISTRIBUTIONS)}. Command: "
            "`python -m benchmarks.conformance --write docs/conformance.md`",
        ]
    )
    print(text)
    if options.write is not None:
        timing.write_section(options.write, "conformance", text)
    ours = [outcome for outcomes in found["camcore"].values() for outcome in outcomes.values()]
    return int(any(outcome.kind == "FAILS" for outcome in ours))


if __name__ == "__main__":
    sys.exit(main())
