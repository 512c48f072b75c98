"""The verdict table that pytest prints below its own summary."""

from collections.abc import Sequence
from textwrap import wrap

from reports import wording
from reports.schema import Claim, Results

WIDTH = 120
COLUMNS = ("verdict", "claim", "estimate [low, high]", "needs", "n", "severity")
MOST = (14, 46, 31, 13, 7, 8)  # with the gaps at most WIDTH
COLOURS = {"PASS": "32", "FAIL": "31;1", "INCONCLUSIVE": "33", "NOT_APPLICABLE": "2", "ERROR": "35;1"}


def table(results: Results, *, colour: bool = False) -> str:
    """Aligned columns, at most 120 characters wide; the last line is the verdict sentence.

    Args:
        results: The run.
        colour: Whether to wrap verdicts in ANSI colours.
    """
    judged = [claim for _, claim in wording.judged(results.claims)]
    rows = [_cells(claim, several=len(results.subjects) > 1) for claim in judged]
    widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    lines = [_line(COLUMNS, widths), "-" * (sum(widths) + 2 * (len(widths) - 1))]
    for claim, row in zip(judged, rows, strict=True):
        line = _line(row, widths)
        lines.append(_painted(line, claim.shown, len(row[0])) if colour else line)
        if wanted := wording.wanted(claim):
            lines.append(f"{' ' * widths[0]}  {wanted}")
        also = [wording.waiver(claim), wording.compared(claim)]
        for text in filter(None, map(printable, also)):
            lines += [f"{' ' * widths[0]}  {line}" for line in wrap(text, WIDTH - widths[0] - 2)]
    for (_, reason), claims in wording.asides(results.claims).items():
        told = f"NOT APPLICABLE  {len(claims)} claims of {wording.audits_of(claims)}: {reason}"
        lines += wrap(printable(told), WIDTH, subsequent_indent=" " * 16)
    return "\n".join([*lines, "", *wrap(printable(wording.verdict_sentence(results)), WIDTH, break_on_hyphens=False)])


def printable(text: str) -> str:
    """One line without control characters: a file name must not be able to move the cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cells(claim: Claim, *, several: bool) -> list[str]:
    name = f"{claim.subject}: {claim.id}" if several else claim.id
    cells = [
        claim.shown.replace("_", " "),  # beside a baseline too: the line below says so
        printable(name),
        f"{wording.point(claim)} {wording.interval(claim)}".strip(),
        wording.needs(claim),
        f"{claim.estimate.n}" if claim.estimate else "-",
        claim.severity,
    ]
    cells[2:4] = [cell.replace("−", "-").replace("–", "-") for cell in cells[2:4]]  # copied numbers must parse
    return [_short(cell, most) for cell, most in zip(cells, MOST, strict=True)]


def _short(text: str, most: int) -> str:
    """Cut in the middle: the audit stands at the front of an id, the parameters at its end."""
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    right = {4}  # n
    padded = (
        cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def _painted(line: str, verdict: str, length: int) -> str:
    return f"\033[{COLOURS[verdict]}m{line[:length]}\033[0m{line[length:]}"
