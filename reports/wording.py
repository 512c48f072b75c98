"""Numbers and verdicts in words. Plain text: whoever writes HTML escapes it."""

from collections.abc import Mapping, Sequence
from math import floor, log10
from statistics import fmean

from reports.schema import Calibration, Claim, Curve, Estimate, Results

VERDICTS = ("FAIL", "ERROR", "INCONCLUSIVE", "PASS", "NOT_APPLICABLE")  # what a reader must see first comes first
VERDICT_WORDS = {
    "PASS": "Pass",
    "FAIL": "Fail",
    "INCONCLUSIVE": "Inconclusive",
    "NOT_APPLICABLE": "Not applicable",
    "ERROR": "Error",
}
SEVERAL = 3  # claims that do not apply for one reason are told together from here on
READ = 4  # lines of a chart that are told in words
KIND_WORDS = {"MFT": "minimum functionality test", "INV": "invariance test", "DIR": "directional expectation test"}
SEVERITY_WORDS = {"gate": "gates", "warn": "warns", "info": "informs"}
NOT_SHOWN = 6
EXIT_CODES = {
    0: "every claim that gates was shown to hold, so a release pipeline goes on",
    1: "at least one claim that gates was shown not to hold, so a release pipeline stops",
    2: "the run was interrupted, so a release pipeline stops",
    3: "pytest itself broke, so a release pipeline stops",
    4: "the run was asked for wrongly (option, model or policy) and judged nothing, so a release pipeline stops",
    5: "no audit was collected, so a release pipeline stops",
    NOT_SHOWN: "nothing that gates failed, but not all of it was shown; what was not shown does not pass, "
    "so a release pipeline stops",
}


def verdict_sentence(results: Results) -> str:
    """The one sentence that a release manager reads, for example "resnet50 FAILS: 1 of 3 gating claims fails."."""
    judged = _judged_sentence(results)
    if failed_elsewhere(results):
        judged = f"{judged.removesuffix('.')}, but the run ended with exit code {results.exit_code}."
    return f"Incomplete, the run was interrupted: {judged}" if results.run.interrupted else judged


def failed_elsewhere(results: Results) -> bool:
    """Whether all that gates holds, and the run still does not end with 0: a test that is no claim failed, say."""
    return look(results.verdict, results.exit_code) != results.verdict


def look(verdict: str, exit_code: int) -> str:
    """The verdict as whose a run is coloured: one that passes and does not end with 0 looks undecided, not green."""
    return "INCONCLUSIVE" if verdict == "PASS" and exit_code != 0 else verdict


def incomplete(results: Results) -> bool:
    """Whether something that gates may be among what was not tested; what was not tested does not say its severity."""
    answered = sum(claim.gates and claim.verdict != "NOT_APPLICABLE" for claim in results.claims)
    return results.verdict != "PASS" and bool(results.not_tested) and answered < results.run.family.claims


def _judged_sentence(results: Results) -> str:
    gating = [c for c in results.claims if c.gates]
    binding = [c for c in gating if not (c.waived and c.counts == "PASS")]
    count = {verdict: sum(c.counts == verdict for c in binding) for verdict in VERDICTS}
    total, rest = f"{len(gating)} gating claim{'s' * (len(gating) != 1)}", ""
    if incomplete(results):
        total = f"the {total} that {'was' if len(gating) == 1 else 'were'} asked"
        rest = "; not everything was tested"
    undecided = [f"{count['INCONCLUSIVE']} inconclusive"] * (count["INCONCLUSIVE"] > 0)
    undecided += [f"{count['ERROR']} without an answer (error)"] * (count["ERROR"] > 0)
    asides = [f"{count['NOT_APPLICABLE']} not applicable"] * (count["NOT_APPLICABLE"] > 0)
    waived = len(gating) - len(binding)
    asides += [f"{waived} waived"] * (waived > 0)
    everyone = [subject.id for subject in results.subjects]
    guilty = [name for name in everyone if any(c.subject == name and c.counts == "FAIL" for c in binding)]
    open_ = [
        name for name in everyone if any(c.subject == name and c.counts in ("INCONCLUSIVE", "ERROR") for c in binding)
    ]
    if results.verdict == "PASS":
        shown = f"all {total} hold" if count["PASS"] > 1 else f"its {total} holds"
        if waived:
            shown = f"{count['PASS']} of {total} hold"
        elif asides:
            shown = f"what gates and applies holds, {count['PASS']} of {total}"
        what = ", ".join([shown, *asides])
        return f"{_said(everyone, 'PASSES', 'PASS')}: {what}."
    if results.verdict == "FAIL":
        fails = f"{count['FAIL']} of {total} {'fails' if count['FAIL'] == 1 else 'fail'}"
        what = ", ".join([fails, *undecided, *asides]) if count["FAIL"] else "the run failed outside its gating claims"
        return f"{_said(guilty or everyone, 'FAILS', 'FAIL')}: {what}{rest if count['FAIL'] else ''}."
    what = "not everything that gates was tested"
    if undecided:
        what = f"of {total}, {', '.join([*undecided, *asides])}{rest}"
    answered = {c.subject for c in gating if c.counts != "NOT_APPLICABLE"}
    bare = [name for name in everyone if name not in answered and any(c.subject == name for c in gating)]
    if bare and not undecided:
        open_, what = bare, "of what gates, nothing applies"
    return f"{_said(open_ or everyone, 'is INCONCLUSIVE', 'are INCONCLUSIVE')}: {what}."


def _said(names: Sequence[str], one: str, many: str) -> str:
    if len(names) < 2:
        return f"{names[0] if names else 'The run'} {one}"
    return f"{', '.join(names[:-1])} and {names[-1]} {many}"


def exit_sentence(results: Results) -> str:
    """What the exit code means for a release."""
    if failed_elsewhere(results):
        code = results.exit_code
        return (
            f"Exit code {code}: every claim that gates was shown to hold, but the run ended with exit code {code} as "
            "something beside the claims failed, so a release pipeline stops."
        )
    # a policy may give both one code
    means = NOT_SHOWN if (results.verdict, results.exit_code) == ("INCONCLUSIVE", 1) else results.exit_code
    return f"Exit code {results.exit_code}: {EXIT_CODES.get(means, 'a release pipeline stops')}."


def decimals(estimate: Estimate, claim: Claim) -> int:
    """Digits behind the point: enough for a quarter of the width, more if rounding moved a bound across the margin."""
    width = estimate.high - estimate.low
    size = floor(log10(min(max(width, 1e-9), 1e9) / 4))
    digits = 3 if width <= 0 else min(max(-size, 2 if width < 4 else 0), 6)
    edges = (claim.margin, -claim.margin) if claim.measure.direction == "within" else (claim.margin,)
    while digits < 6 and any(
        (round(bound, digits) > edge) != (bound > edge) or (round(bound, digits) == edge) != (bound == edge)
        for bound in (estimate.low, estimate.high)
        for edge in edges
    ):
        digits += 1
    return digits


def point(claim: Claim) -> str:
    """The estimate alone, or a dash."""
    if claim.estimate is None:
        return "–"
    return _fixed(claim.estimate.point, decimals(claim.estimate, claim))


def interval(claim: Claim) -> str:
    """The bounds alone, or nothing."""
    if claim.estimate is None:
        return ""
    digits = decimals(claim.estimate, claim)
    return f"[{_fixed(claim.estimate.low, digits)}, {_fixed(claim.estimate.high, digits)}]"


def _fixed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def needs(claim: Claim) -> str:
    """What the whole interval must do; of a measure that is never negative only the upper margin says anything."""
    if claim.measure.direction == "above":
        return f"> {claim.margin:g}".replace("-", "−")
    return f"< {claim.margin:g}" if claim.bounds[0] >= 0 else f"within ±{claim.margin:g}"


def percent(level: float) -> str:
    """A confidence level, with as many digits as it takes to tell it from certainty."""
    digits = 1
    while digits < 6 and level < 1 and round(100 * level, digits) >= 100:
        digits += 1
    return f"{100 * level:.{digits}f}".rstrip("0").rstrip(".") + " %"


def numbers(claim: Claim) -> str:
    """Estimate, interval, level, n and what was needed, for example "0.31 [0.27, 0.35], 99.2 % ..."."""
    if claim.estimate is None:
        return f"No estimate; needs {needs(claim)}"
    kind = "simultaneous interval" if claim.gates else "interval"
    estimate = claim.estimate
    return (
        f"{point(claim)} {interval(claim)}, {percent(estimate.level)} {kind}, n = {estimate.n:,}; needs {needs(claim)}"
    )


def tally(claims: Sequence[Claim]) -> list[tuple[str, int]]:
    """How many claims are shown with each verdict, of those verdicts that any is shown with."""
    counts = [(verdict, sum(claim.shown == verdict for claim in claims)) for verdict in VERDICTS]
    return [(verdict, count) for verdict, count in counts if count]


def number(value: float) -> str:
    """Three digits, with a minus sign that does not break from its number."""
    return f"{value:.3g}".replace("-", "−")


def worst(claim: Claim, most: int = 3) -> str:
    """The units that say most against a claim, with their values, for example "n01/a.jpg (−0.2)".

    Those whose pictures are shown: the suite chooses them by four digits too.
    """
    found = [(v, unit) for v, unit in zip(claim.values, claim.units, strict=True) if v is not None]
    inward = claim.measure.direction == "within"
    ranked = sorted(found, key=lambda one: round(-abs(one[0]) if inward else one[0], 4))
    return ", ".join(f"{unit} ({number(value)})" for value, unit in ranked[:most])


def read_curve(curve: Curve) -> str:
    """What the lines of a chart do, in words."""
    lines = {
        name: [(x, y) for x, y in zip(curve.x, ys, strict=True) if y is not None] for name, ys in curve.series.items()
    }
    lines = {name: sorted(points) for name, points in lines.items() if points}
    if not lines:
        return "Nothing in it was measured."
    ys = [y for points in lines.values() for _, y in points]
    told = list(lines.items())[:READ]
    courses = [f"{name} {_course([y for _, y in points], max(ys) - min(ys))}" for name, points in told]
    more = f"; and {len(lines) - READ} more lines" if len(lines) > READ else ""
    xs = [x for points in lines.values() for x, _ in points]
    return f"From {number(min(xs))} to {number(max(xs))} ({curve.x_label}): {'; '.join(courses)}{more}.{_apart(lines)}"


def _course(values: Sequence[float], spread: float) -> str:
    """Where a line begins and ends, and how far it leaves that stretch, if by more than a tenth of what is drawn."""
    first, last = values[0], values[-1]
    if len(values) == 1:
        return f"is {number(first)}"
    level = number(first) == number(last)
    said = f"{'begins and ends at' if level else 'falls from' if last < first else 'rises from'} {number(first)}"
    said += "" if level else f" to {number(last)}"
    if min(first, last) - min(values) > spread / 10:
        said += f", by way of {number(min(values))}"
    if max(values) - max(first, last) > spread / 10:
        said += f", by way of {number(max(values))}"
    return said


def _apart(lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Which of several lines lies lowest and which highest."""
    if len(lines) < 2:
        return ""
    means = {name: fmean(y for _, y in points) for name, points in lines.items()}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    return f" On average {low} lies lowest ({number(means[low])}) and {high} highest ({number(means[high])})."


def calibrated(rows: Sequence[Calibration]) -> str:
    """How often an audit, or one of its claims, is right itself, in a sentence."""
    said = []
    for passes, what in (
        (False, "where a defect was planted, {} of {} verdicts said so"),
        (True, "where none was, {} of {} passed"),
    ):
        asked = [row for row in rows if (row.must == "PASS") == passes]
        if asked:
            reached = sum(row.verdicts.get(row.must, 0) for row in asked)
            said.append(what.format(f"{reached:,}", f"{sum(row.share.n for row in asked):,}"))
    if not said:
        return ""
    return f"Put to models whose truth is known, over {max(row.share.n for row in rows)} seeds: {'; '.join(said)}."


def calibration(claim: Claim, rows: Sequence[Calibration]) -> str:
    """How often a claim is right itself, whatever its parameters; empty where it was not measured."""
    return calibrated([row for row in rows if claim.id == row.claim or claim.id.startswith(f"{row.claim}[")])


def asides(claims: Sequence[Claim]) -> dict[tuple[str, str], list[Claim]]:
    """(subject, reason) -> the claims that do not apply for it, where several share one: they are told in one line."""
    found: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        if claim.counts == "NOT_APPLICABLE":
            found.setdefault((claim.subject, claim.reason), []).append(claim)
    return {key: same for key, same in found.items() if len(same) >= SEVERAL}


def judged(claims: Sequence[Claim]) -> list[tuple[int, Claim]]:
    """Claims with their places, less those that `asides` tells together."""
    apart = {id(claim) for same in asides(claims).values() for claim in same}
    return [(place, claim) for place, claim in enumerate(claims) if id(claim) not in apart]


def audits_of(claims: Sequence[Claim]) -> str:
    """The names of their audits, for example "bias, deletion and wall"."""
    *first, last = dict.fromkeys(claim.audit for claim in claims)
    return f"{', '.join(first)} and {last}" if first else last


def waiver(claim: Claim) -> str:
    """Who answers for a claim that does not pass, if its policy says so."""
    return "" if claim.waiver is None else f"this {claim.waiver.said}"


def beside(claim: Claim) -> str:
    """What it comes to beside the baseline, if there is one."""
    return "" if claim.baseline is None else claim.baseline.said


def where(claim: Claim) -> str:
    """To be said behind the verdict that is shown, where it is not the claim's own but the one beside the baseline."""
    return "" if claim.shown == claim.verdict else "beside the baseline"


def answer(claim: Claim) -> str:
    """The verdict that is shown, for example "FAIL beside the baseline"."""
    return f"{claim.shown.replace('_', ' ')} {where(claim)}".rstrip()


def compared(claim: Claim) -> str:
    """What it comes to beside the baseline, and by itself if that differs; empty of what counts as passed."""
    if claim.counts == "PASS":
        return ""
    own = f"{VERDICT_WORDS[claim.verdict]} by itself; " if where(claim) else ""
    return f"{own}{beside(claim)}"


def wanted(claim: Claim) -> str:
    """How many images would decide an inconclusive claim, if that is known."""
    return f"needs about {claim.n_needed:,} images" if claim.verdict == "INCONCLUSIVE" and claim.n_needed else ""


def p_value(p: float | None) -> str:
    """A p-value to three digits."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def cost(claim: Claim) -> str:
    """What the answer cost the subject."""
    return f"{claim.cost.forwards:,} forwards, {claim.cost.backwards:,} backwards, {duration(claim.cost.seconds)}"
