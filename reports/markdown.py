"""A run in Markdown, as CI services show it beside a job or in a pull request: the verdict, and what does not pass.

Whatever a model, a file name or a caption brings along stands in code spans, where it links nowhere, names nobody and
sets nothing.
"""

import re
from collections.abc import Sequence

from reports import wording
from reports.schema import Claim, Results
from reports.terminal import printable

SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "NOT_APPLICABLE": "➖", "ERROR": "❗"}
MOST = (50, 20, 8)  # rows: a summary is read in one look, the report has the rest
LONGEST = 65_000  # letters: GitHub takes no comment of more than 65,536
WIDEST = 240  # letters of one span


def summary(results: Results) -> str:
    """The verdict sentence, what keeps the run from passing, and then everything else in a folded table.

    As many rows as fit into a comment of a pull request.
    """
    texts = (_summary(results, most) for most in MOST)
    return next((text for text in texts if len(text) <= LONGEST), _summary(results, MOST[-1]))


def _summary(results: Results, most: int) -> str:
    several = len(results.subjects) > 1
    held: list[Claim] = []
    open_: list[Claim] = []
    for claim in results.claims:
        if claim.counts != "NOT_APPLICABLE":
            (held if claim.verdict == claim.counts == "PASS" else open_).append(claim)
    sign = SIGNS["ERROR" if wording.failed_elsewhere(results) else results.verdict]
    lines = [
        f"## {sign} Model audit: {code(wording.verdict_sentence(results))}",
        "",
        wording.exit_sentence(results),
        "",
    ]
    if results.run.interrupted:
        lines += ["**The run was interrupted:** what is missing was not tested.", ""]
    gating = [claim for claim in open_ if claim.gates]
    lines += _table("What gates and does not pass", gating, several=several, most=most)
    lines += _table(
        "What warns or informs and does not pass", [c for c in open_ if not c.gates], several=several, most=most
    )
    lines += _folded(f"{len(held)} claims that hold", _table("", held, several=several, most=most))
    for (_, reason), claims in list(wording.asides(results.claims).items())[:most]:
        lines += [f"{SIGNS['NOT_APPLICABLE']} {len(claims)} claims do not apply: {code(reason)}", ""]
    lines += _folded(f"{len(results.not_tested)} not tested", [f"- {code(line)}" for line in results.not_tested[:most]])
    run = results.run
    subjects = ", ".join(f"{code(one.id)} (sha256 {code(one.sha256[:12])})" for one in results.subjects)
    lines += [
        f"{subjects}; profile {code(run.profile)}, seed {run.seed}, policy {code(run.policy_path)} "
        f"(sha256 {code(run.policy_sha256[:12])}), {wording.duration(run.seconds)}.",
        "",
    ]
    return "\n".join(lines)


def _table(title: str, claims: Sequence[Claim], *, several: bool, most: int) -> list[str]:
    if not claims:
        return []
    lines = [f"### {title}", ""] if title else []
    lines += ["| | claim | estimate | needs | n | |", "|---|---|---|---|---:|---|"]
    for claim in claims[:most]:
        name = f"{claim.subject}: {claim.id}" if several else claim.id
        estimate = f"{wording.point(claim)} {wording.interval(claim)}".strip()
        n = str(claim.estimate.n) if claim.estimate else ""
        severity = "waived" if claim.waived else wording.SEVERITY_WORDS[claim.severity]
        shown = f"{SIGNS[claim.shown]} {wording.VERDICT_WORDS[claim.shown]} {wording.where(claim)}".rstrip()
        lines.append(
            f"| {shown} | {code(name)}<br>{code(claim.sentence)} "
            f"| {estimate} | {wording.needs(claim)} | {n} | {severity} |"
        )
        said = [claim.reason] * (claim.verdict in ("INCONCLUSIVE", "ERROR")) + [wording.waiver(claim)]
        said.append(wording.compared(claim))
        lines += [f"| | {code(text)} | | | | |" for text in said if text]
    if len(claims) > most:
        lines.append(f"| | and {len(claims) - most} more, in the report | | | | |")
    return [*lines, ""]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "</details>", ""] if lines else []


def code(text: str) -> str:
    """A code span that nothing in the text can end, in a table or out of it.

    A pipe would end the cell, escaped or not where a backslash stands before it: a broken bar stands for it.
    """
    inside = printable(text).replace("|", "¦").strip() or " "
    inside = inside if len(inside) <= WIDEST else f"{inside[: WIDEST - 3]}..."
    fence = "`" * (1 + max(map(len, re.findall("`+", inside)), default=0))
    room = " " if inside.startswith("`") or inside.endswith("`") or len(fence) > 1 else ""
    return f"{fence}{room}{inside}{room}{fence}"
