"""`evaluate`: walk the images in batches, journal what each gave, look at fixed counts, stop when it is certain."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor

from camcore import statistics
from camcore.cost import metered
from camcore.degeneracy import Degeneracy
from camcore.errors import one_line
from camcore.images import Batch, Dataset, Progress, load
from camcore.recording import ZeroGradient, zero_gradients_recorded
from camcore.seeds import generator
from camcore.subject import Subject
from camcore.throughput import is_out_of_memory
from camcore.verdict import Claim, Evidence, Outcome, Rank, Verdict, judge

# Named columns, one float per image; NaN: nothing to judge.
Measure = Callable[[Any, Batch], Mapping[str, Tensor]]  # of a subject with the ability that is asked about
Show = Callable[[Any, Batch, Mapping[str, "Row"]], Iterable[Evidence]]
Doubt = Callable[[Mapping[str, "Row"]], str]  # of all rows: why what was measured is not to be believed, or nothing
Row = Mapping[str, float]  # the columns of one image, and what it cost
Journal = MutableMapping[str, Row]  # image id -> row; one journal per measurement, shared by all claims that read it
Watch = Callable[[int, int, Verdict], None]  # images done, images at most, the verdict as of the last look

# How often the verdict may stop the measuring. Fixed, so that the batch size cannot move a verdict; sparser later,
# since a look saves at most the images up to the next.
LOOKS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)


DEGENERATE = "degenerate"  # a measure may say by `<map>:degenerate` why a row has nothing to judge: a `Degeneracy`
WORST, TYPICAL, BEST = 3, 2, 1  # images that evidence is made from, in this order


class OutOfTime(Exception):
    """The time that a run has is spent."""


OUT_OF_TIME = "out of time"  # how the reason of a verdict begins that the time kept from being reached
UNRELIABLE = "unreliable"  # of one whose measure came into doubt
DEGENERATE_MAPS = "degenerate"  # or of an ERROR that was judged from values, where any other broke before that


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the run grants every claim."""

    level: float  # of each interval, after the correction for the family
    budget: int  # images at most
    seed: int
    batch_size: int
    min_images: int = 16  # fewer decide nothing
    max_degenerate: float = 0.05  # share of images that may give nothing to judge
    early: bool = True  # whether a verdict that is certain may stop the measuring before the budget is spent


def evaluate(
    claim: Claim,
    measure: Measure,
    subject: Subject,
    dataset: Dataset,
    *,
    column: str,
    terms: Terms,
    journal: Journal,
    doubt: Doubt | None = None,
    show: Show | None = None,
    progress: Watch | None = None,
    until: float | None = None,
) -> Verdict:
    """Put one claim to one subject.

    Args:
        claim: What is claimed, with its margin.
        measure: Pure function of (subject, batch). Its columns are kept in the journal.
        subject: The model, in eval mode.
        dataset: Where the images come from, walked in an order drawn from the seed: the interval is for the mean over
            the population that they were drawn from.
        column: Which of the measure's columns the claim is about, in `claim.bounds`.
        terms: Level, budget, seed, batch size.
        journal: Rows already measured; new ones are added batch by batch, so that a killed run loses one batch.
        doubt: Asked at every look: if it has a reason, the verdict is INCONCLUSIVE, whichever way the numbers point,
            and has no estimate. More images may lift it.
        show: Makes the evidence from the worst, the most typical and the best images, and from all rows.
        progress: Called after every batch and every look, with what is known so far.
        until: Of `time.monotonic()`: no batch is begun later; the verdict is that of the last look before.

    Returns:
        The verdict. Trouble inside the measure becomes ERROR with its message; what was measured is in the journal.
    """
    started = time.monotonic()
    ids = shuffled(dataset, terms.seed)[: terms.budget]
    looks = looked_at(len(ids), least=terms.min_images)
    verdict = _verdict(claim, {}, column, [], terms)
    fits = terms

    def told(done: int, _: int) -> None:
        if progress is not None:
            progress(done, len(ids), verdict)

    try:
        for index, look in enumerate(looks):
            size = measure_missing(
                measure, subject, dataset, ids[:look], terms=fits, journal=journal, progress=told, until=until
            )
            fits = replace(fits, batch_size=size)
            rows = {image_id: journal[image_id] for image_id in ids[:look]}
            # what is not to be stopped early is judged once; what is said on the way is for whoever runs out of time
            believed = _verdict(claim, rows, column, looks[: index + 1] if terms.early else [look], terms)
            verdict = _doubted(believed, doubt, rows)
            told(look, look)
            hopeless = verdict.outcome is Outcome.ERROR and _degenerate(rows, column) > look / 2
            # who fails does not pass, whether the doubt is lifted or not
            certain = verdict.outcome is Outcome.PASS or believed.outcome is Outcome.FAIL
            if terms.early and (certain or hopeless):
                break
        if show is not None and verdict.values:
            verdict = replace(verdict, evidence=_evidence(show, subject, dataset, verdict, rows, terms))
    except OutOfTime:
        asked = f"after {len(verdict.values)} images" if verdict.values else "before enough images were measured"
        late = f"{OUT_OF_TIME} {asked}; the profile grants no more seconds"
        if verdict.outcome is Outcome.FAIL:  # was to be measured in full, and had failed by then
            verdict = replace(verdict, reason=f"{verdict.reason}; {late}")
        else:
            outcome = Outcome.ERROR if verdict.outcome is Outcome.ERROR else Outcome.INCONCLUSIVE
            verdict = replace(verdict, outcome=outcome, reason=late)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # even pytest.skip(): what breaks on one model ends no run and skips nothing
        verdict = replace(verdict, outcome=Outcome.ERROR, reason=one_line(problem))
    return replace(verdict, seconds=time.monotonic() - started)


def rank(index: int, of: int) -> Rank:
    """What the image at a place of the evidence's batch stands for.

    Args:
        index: Its place.
        of: Images in the batch: of few, the worst come first, then the best.
    """
    return "worst" if index < WORST else "best" if index >= of - BEST else "typical"


def column_of(rows: Mapping[str, Row], name: str) -> Tensor:
    """One column over all images; NaN where there was nothing to judge."""
    return torch.tensor([row.get(name, nan) for row in rows.values()])


def shuffled(dataset: Dataset, seed: int) -> list[str]:
    """The ids in the order in which every claim of the run walks them."""
    order = torch.randperm(len(dataset), generator=generator(seed, "order", dataset.sha256))
    return [dataset.ids[index] for index in order.tolist()]


def looked_at(n: int, *, least: int) -> list[int]:
    """The counts at which the interval of n values is updated: the last is n; before the least nothing is decided."""
    return [look for look in LOOKS if least <= look < n] + [n]


def measure_missing(
    measure: Measure,
    subject: Subject,
    dataset: Dataset,
    ids: Sequence[str],
    *,
    terms: Terms,
    journal: Journal,
    progress: Progress | None = None,
    until: float | None = None,
) -> int:
    """Measure the images that the journal does not hold yet; halve the batch when the device runs out of memory.

    Batches end where `ids` ends: no image is measured that no look asked for, whatever the batch size.

    Returns:
        The batch size that fitted.

    Raises:
        OutOfTime: It is later than `until`; what was measured is in the journal.
    """
    missing = [image_id for image_id in ids if image_id not in journal]
    size = terms.batch_size
    while missing:
        if until is not None and time.monotonic() > until:
            raise OutOfTime
        part = missing[:size]
        try:
            with metered() as cost:
                batch = load(dataset, part, subject.geometry, seed=terms.seed, device=subject.device, chunk=size)
                columns = _measured(measure, subject, batch)
        except RuntimeError as problem:
            if not is_out_of_memory(problem) or size == 1:
                raise
            size = max(1, size // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        share = {"forwards": cost.forwards / len(part), "backwards": cost.backwards / len(part)}
        host = {name: column.cpu().double().tolist() for name, column in columns.items()}
        for index, image_id in enumerate(part):
            journal[image_id] = {**{name: column[index] for name, column in host.items()}, **share}
        missing = missing[len(part) :]
        if progress is not None:
            progress(len(ids) - len(missing), len(ids))
    return size


def _measured(measure: Measure, subject: Subject, batch: Batch) -> Mapping[str, Tensor]:
    try:
        with zero_gradients_recorded():
            return measure(subject, batch)
    except ZeroGradient:  # the scores are cut off from the layer, whatever the picture
        return {DEGENERATE: torch.full((len(batch),), float(Degeneracy.ZERO_GRADIENT))}


def _verdict(claim: Claim, rows: Mapping[str, Row], column: str, looks: Sequence[int], terms: Terms) -> Verdict:
    values = {image_id: row.get(column, nan) for image_id, row in rows.items()}
    n, degenerate = len(values), _degenerate(rows, column)
    verdict = Verdict(
        claim=claim,
        outcome=Outcome.INCONCLUSIVE,
        reason="",
        values=values,
        forwards=round(sum(row["forwards"] for row in rows.values())),
        backwards=round(sum(row["backwards"] for row in rows.values())),
    )
    if n < terms.min_images:
        needed = f"{n} images, at least {terms.min_images} are needed to judge; give more with --data"
        return replace(verdict, reason=f"too few images: {needed}", n_needed=terms.min_images)
    # An image with nothing to judge takes the worst value there is: it can delay a PASS, never help one.
    finite = [value for value in values.values() if isfinite(value)]
    worst = claim.bounds[1] if claim.direction == "within" and sum(finite) >= 0 else claim.bounds[0]
    filled = [value if isfinite(value) else worst for value in values.values()]
    estimate = statistics.confidence_sequence(filled, level=terms.level, bounds=claim.bounds, counts=looks)
    p_value = statistics.equivalence_p_value if claim.direction == "within" else statistics.p_value
    p = p_value(filled, claim.margin, bounds=claim.bounds, counts=looks)
    outcome = judge(estimate, claim)
    needed_n = None
    if outcome is Outcome.INCONCLUSIVE:
        needed_n = statistics.n_needed(
            filled, claim.margin, level=terms.level, bounds=claim.bounds, direction=claim.direction
        )
    if degenerate > terms.max_degenerate * n:
        reason = f"{DEGENERATE_MAPS}: {degenerate} of {n} images gave nothing to judge: {_named(rows, column)}"
        return replace(verdict, outcome=Outcome.ERROR, reason=reason, estimate=estimate, p=p)
    reason = _reason(outcome, claim, needed_n, looks[-1])
    if degenerate:
        reason += f" ({degenerate} of {n} images count as the worst case: {_named(rows, column)})"
    return replace(verdict, outcome=outcome, reason=reason, estimate=estimate, p=p, n_needed=needed_n)


def _doubted(verdict: Verdict, doubt: Doubt | None, rows: Mapping[str, Row]) -> Verdict:
    """Without its estimate if it is in doubt: neither another margin nor a waiver may make something of it."""
    why = "" if doubt is None or verdict.estimate is None else doubt(rows)
    if not why:
        return verdict
    empty = replace(verdict, estimate=None, p=None, n_needed=None)
    if verdict.outcome is Outcome.ERROR:
        return replace(empty, reason=f"{verdict.reason}; {UNRELIABLE}: {why}")
    return replace(empty, outcome=Outcome.INCONCLUSIVE, reason=f"{UNRELIABLE}: {why}")


def judged_again(claim: Claim, values: Mapping[str, float], *, terms: Terms) -> Verdict:
    """The verdict on values that were measured before: under another margin, level, or number of images that is enough.

    Args:
        claim: With the margin that counts now.
        values: Unit -> value, in the order in which they were measured; NaN where there was nothing to judge.
        terms: Of the level and of what is enough; budget and batch size play no part.
    """
    rows = {unit: {"value": value, "forwards": 0.0, "backwards": 0.0} for unit, value in values.items()}
    return _verdict(claim, rows, "value", looked_at(len(rows), least=terms.min_images), terms)


def _degenerate(rows: Mapping[str, Row], column: str) -> int:
    return sum(not isfinite(row.get(column, nan)) for row in rows.values())


def _named(rows: Mapping[str, Row], column: str) -> str:
    """What the images without a value had instead, the most frequent first."""
    key = f"{column.partition(':')[0]}:{DEGENERATE}"
    found: Counter[Degeneracy] = Counter()
    for row in rows.values():
        if not isfinite(row.get(column, nan)):
            code = row.get(key, row.get(DEGENERATE, 0))
            found[Degeneracy(int(code)) if isfinite(code) else Degeneracy.NONE] += 1
    return ", ".join(
        f"{count} {name.sentence if name else 'empty, constant or undefined'}" for name, count in found.most_common()
    )


def _reason(outcome: Outcome, claim: Claim, n_needed: int | None, n: int) -> str:
    side = f"below {claim.margin:g}" if claim.direction == "within" else f"above {claim.margin:g}"
    if outcome is Outcome.PASS:
        return f"the whole interval lies {side}"
    if outcome is Outcome.FAIL:
        return f"the whole interval lies on the wrong side: {side} was claimed"
    if n_needed is None:
        return f"the interval straddles {claim.margin:g} after {n} images, and no effect shows that more would decide"
    return f"the interval straddles {claim.margin:g} after {n} images; about {n_needed} would decide"


def _evidence(
    show: Show, subject: Subject, dataset: Dataset, verdict: Verdict, rows: Mapping[str, Row], terms: Terms
) -> tuple[Evidence, ...]:
    """Evidence from the worst, the most typical and the best images, always as one batch: the same on every run."""
    finite = {image_id: value for image_id, value in verdict.values.items() if isfinite(value)}
    inward = verdict.claim.direction == "within"
    # Rounded, so that the last bit of a float does not choose the pictures; ties stay in walking order.
    ranked = sorted(finite, key=lambda image_id: round(-abs(finite[image_id]) if inward else finite[image_id], 4))
    worst, rest, best = ranked[:WORST], ranked[WORST:-BEST], ranked[WORST:][-BEST:]
    middle = max(0, (len(rest) - TYPICAL) // 2)
    chosen = worst + rest[middle : middle + TYPICAL] + best
    if not chosen:  # every map was empty: show the first few, that is the finding
        chosen = list(verdict.values)[:WORST]
    batch = load(dataset, chosen, subject.geometry, seed=terms.seed, device=subject.device)
    return tuple(show(subject, batch, rows))
