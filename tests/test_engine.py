"""The engine: what it measures, when it stops, and what it makes of trouble."""

import weakref
from collections.abc import Mapping
from dataclasses import replace
from itertools import count as counting
from math import isnan, nan
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from camcore import engine
from camcore.cost import count
from camcore.degeneracy import Degeneracy
from camcore.engine import LOOKS, Row, Terms, evaluate, rank, shuffled
from camcore.images import Batch, Dataset
from camcore.record import ZeroGradient
from camcore.statistics import confidence_sequence, p_value
from camcore.subject import Classifier
from camcore.verdict import Claim, Evidence, Outcome, Table, Verdict
from tests.tiny import GapNet, numbered_dataset, tiny_subject

CLAIM = Claim(
    id="test/claim[x]",
    sentence="the value is large",
    kind="DIR",
    measure="value",
    unit="1",
    margin=0.5,
    margin_source="made up",
    severity="gate",
)
RUNS = 200  # of the simulation
TERMS = Terms(level=0.95, budget=128, seed=0, batch_size=8)


@pytest.fixture
def subject() -> Classifier:
    return tiny_subject(GapNet(), "relu", size=2)


def brightness(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
    """Image i of n is i / n everywhere: a value that the test knows."""
    count(forwards=3 * len(batch), backwards=len(batch))
    return {"value": batch.images.mean((1, 2, 3))}


def put(subject: Classifier, measure=brightness, *, claim=CLAIM, terms=TERMS, n=200, **options) -> Verdict:  # type: ignore[no-untyped-def]
    options.setdefault("journal", {})
    return evaluate(claim, measure, subject, numbered_dataset(n), column="value", terms=terms, **options)


def constant(value: float):  # type: ignore[no-untyped-def]
    def measure(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
        return {"value": torch.full((len(batch),), value)}

    return measure


@pytest.mark.parametrize("margin", [0.1, 0.48, 0.9])
def test_verdict_and_cost_do_not_depend_on_the_batch_size(subject: Classifier, margin: float) -> None:
    claim = replace(CLAIM, margin=margin)
    verdicts = [put(subject, claim=claim, terms=replace(TERMS, batch_size=size)) for size in (1, 7, 32, 1000)]

    assert len({verdict.outcome for verdict in verdicts}) == 1
    assert len({tuple(verdict.values) for verdict in verdicts}) == 1
    assert len({(verdict.forwards, verdict.backwards, verdict.p, verdict.n_needed) for verdict in verdicts}) == 1


def test_measuring_stops_at_the_look_that_is_certain(subject: Classifier) -> None:
    verdict = put(subject, constant(1.0))

    assert verdict.outcome is Outcome.PASS
    assert len(verdict.values) == LOOKS[0]


def test_a_set_whose_score_is_quoted_is_measured_to_the_end_of_the_budget_and_looked_at_once(
    subject: Classifier,
) -> None:
    verdict = put(subject, constant(1.0), terms=replace(TERMS, early=False))

    assert put(subject, constant(1.0)).estimate.n < len(verdict.values) == TERMS.budget
    assert verdict.estimate == confidence_sequence([1.0] * 128, level=0.95, bounds=(0, 1), counts=[128])


def test_no_image_is_measured_that_no_look_asked_for(subject: Classifier) -> None:
    journal: dict[str, Row] = {}
    verdict = put(subject, constant(1.0), terms=replace(TERMS, batch_size=100), journal=journal)

    assert set(journal) == set(verdict.values)


def test_budget_ends_an_undecided_claim_with_the_number_that_would_decide(subject: Classifier) -> None:
    verdict = put(subject, claim=replace(CLAIM, margin=0.45), terms=replace(TERMS, budget=40))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert len(verdict.values) == 40
    assert verdict.n_needed is not None
    assert verdict.n_needed > 40
    assert str(verdict.n_needed) in verdict.reason


def test_out_of_time_the_last_look_stands_and_what_was_measured_is_kept(
    subject: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = counting()  # a second passes with every question about the time
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    undecided, journal = replace(CLAIM, margin=0.45), {}

    # asked about once at the start and once before each batch of 8: the tenth is not begun
    verdict = put(subject, claim=undecided, terms=replace(TERMS, batch_size=8), journal=journal, until=9.5)
    last = max(look for look in LOOKS if look <= 72)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == f"out of time after {last} images; the profile grants no more seconds"
    assert len(verdict.values) == last
    assert len(journal) == 72
    assert verdict.estimate == put(subject, claim=undecided, terms=replace(TERMS, budget=last)).estimate


def test_no_time_at_all_is_no_verdict(subject: Classifier) -> None:
    verdict = put(subject, until=-1.0)

    assert (verdict.outcome, verdict.estimate) == (Outcome.INCONCLUSIVE, None)
    assert verdict.reason.startswith("out of time before enough images were measured")


def test_cost_is_counted_in_images_and_shared_rows_keep_theirs(subject: Classifier) -> None:
    journal: dict[str, Row] = {}
    first = put(subject, claim=replace(CLAIM, margin=0.3), journal=journal)
    again = put(subject, claim=replace(CLAIM, margin=0.3), journal=journal)

    assert (first.forwards, first.backwards) == (3 * len(first.values), len(first.values))
    assert (again.forwards, again.backwards) == (first.forwards, first.backwards)


def test_a_half_filled_journal_gives_the_same_verdict_and_is_not_measured_again(subject: Classifier) -> None:
    journal: dict[str, Row] = {}
    whole = put(subject, claim=replace(CLAIM, margin=0.45), journal=journal)
    half = dict(list(journal.items())[:50])
    known = set(half)
    asked: list[str] = []

    def noting(one: Classifier, batch: Batch) -> dict[str, Tensor]:
        asked.extend(batch.ids)
        return brightness(one, batch)

    resumed = put(subject, noting, claim=replace(CLAIM, margin=0.45), journal=half)

    assert replace(resumed, seconds=0) == replace(whole, seconds=0)
    assert not known & set(asked)


def test_the_walk_is_a_seeded_shuffle_of_all_images(subject: Classifier) -> None:
    data = numbered_dataset(100)

    assert sorted(shuffled(data, 0)) == sorted(data.ids)
    assert shuffled(data, 0) == shuffled(data, 0)
    assert shuffled(data, 0) != shuffled(data, 1)
    assert shuffled(data, 0) != list(data.ids)


def out_of_memory_above(limit: int):  # type: ignore[no-untyped-def]
    sizes: list[int] = []

    def measure(subject: Classifier, batch: Batch) -> dict[str, Tensor]:
        sizes.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("pretended")
        return brightness(subject, batch)

    return measure, sizes


def test_batches_are_halved_until_they_fit_and_cost_counts_what_succeeded(subject: Classifier) -> None:
    measure, sizes = out_of_memory_above(3)
    verdict = put(subject, measure, terms=replace(TERMS, batch_size=16))

    assert sizes[:4] == [16, 8, 4, 2]
    assert max(sizes[3:]) <= 2
    assert replace(verdict, seconds=0) == replace(put(subject), seconds=0)


def test_a_single_image_that_does_not_fit_is_an_error_and_not_an_endless_loop(subject: Classifier) -> None:
    verdict = put(subject, out_of_memory_above(0)[0])

    assert verdict.outcome is Outcome.ERROR
    assert "pretended" in verdict.reason


def test_trouble_in_the_measure_is_an_error_with_its_message_and_keeps_the_journal(subject: Classifier) -> None:
    journal: dict[str, Row] = {}

    def breaking(one: Classifier, batch: Batch) -> dict[str, Tensor]:
        if len(journal) >= 24:
            raise ValueError("the lamp\nwent out")
        return brightness(one, batch)

    verdict = put(subject, breaking, claim=replace(CLAIM, margin=0.48), journal=journal)

    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason == "ValueError: the lamp went out"
    assert len(journal) == 24


@pytest.mark.parametrize(
    "trouble", [TypeError, RuntimeError, KeyError, IndexError, ZeroDivisionError, OSError, AssertionError]
)
def test_trouble_of_any_kind_is_an_error_and_does_not_end_the_run(
    subject: Classifier, trouble: type[Exception]
) -> None:
    def breaking(_subject: Classifier, _batch: Batch) -> dict[str, Tensor]:
        raise trouble("the lamp went out")

    verdict = put(subject, breaking)

    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason.startswith(f"{trouble.__name__}: ")
    assert "the lamp went out" in verdict.reason


def test_an_image_that_cannot_be_read_is_an_error_that_keeps_the_journal(subject: Classifier) -> None:
    journal: dict[str, Row] = {}
    data = numbered_dataset(100)

    def read(image_id: str) -> Tensor:
        if len(journal) >= 40:
            raise OSError("image file is truncated")
        return data.read(image_id)

    verdict = evaluate(
        replace(CLAIM, margin=0.48),
        brightness,
        subject,
        replace(data, read=read),
        column="value",
        terms=TERMS,
        journal=journal,
    )

    assert verdict.outcome is Outcome.ERROR
    assert "image file is truncated" in verdict.reason
    assert len(journal) == 40


def test_ctrl_c_is_not_swallowed(subject: Classifier) -> None:
    def interrupted(_subject: Classifier, _batch: Batch) -> dict[str, Tensor]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put(subject, interrupted)


def test_a_value_out_of_the_claims_bounds_is_an_error(subject: Classifier) -> None:
    verdict = put(subject, constant(1.5))

    assert verdict.outcome is Outcome.ERROR
    assert "within bounds" in verdict.reason


def test_a_column_that_the_measure_does_not_give_cannot_pass(subject: Classifier) -> None:
    assert put(subject, lambda _subject, batch: {"other": torch.ones(len(batch))}).outcome is Outcome.ERROR


@pytest.mark.parametrize(("share", "outcome"), [(0.0, Outcome.PASS), (1.0, Outcome.FAIL)])
def test_above_passes_and_fails_at_the_ends_of_its_bounds(subject: Classifier, share: float, outcome: Outcome) -> None:
    verdict = put(subject, constant(1 - share))

    assert verdict.outcome is outcome
    assert verdict.estimate is not None
    assert verdict.p is not None
    assert (verdict.p < 0.025) is (outcome is Outcome.PASS)


@pytest.mark.parametrize(("value", "outcome"), [(0.0, Outcome.PASS), (0.2, Outcome.FAIL), (-0.2, Outcome.FAIL)])
def test_within_passes_inside_the_band_and_fails_on_either_side(
    subject: Classifier, value: float, outcome: Outcome
) -> None:
    claim = replace(CLAIM, direction="within", margin=0.1, bounds=(-0.3, 0.3))
    assert put(subject, constant(value), claim=claim).outcome is outcome


@pytest.mark.parametrize(("direction", "sign"), [("above", 1), ("within", -1)])
def test_the_worst_images_are_the_lowest_or_for_within_the_highest(
    subject: Classifier, direction: str, sign: int
) -> None:
    chosen: list[str] = []

    def show(_subject: Classifier, batch: Batch, _rows: Mapping[str, Row]) -> tuple[Evidence, ...]:
        chosen.extend(batch.ids)
        return ()

    verdict = put(subject, claim=replace(CLAIM, direction=direction, margin=0.45), show=show)
    assert chosen[:3] == sorted(verdict.values, key=lambda one: sign * verdict.values[one])[:3]


def test_the_interval_and_p_are_those_of_all_looks_so_far(subject: Classifier) -> None:
    verdict = put(subject, claim=replace(CLAIM, margin=0.4), terms=replace(TERMS, budget=100))
    values = list(verdict.values.values())
    options = {"bounds": CLAIM.bounds, "counts": [look for look in LOOKS if look < 100] + [100]}

    assert verdict.estimate == confidence_sequence(values, level=TERMS.level, **options)
    assert verdict.p == p_value(values, 0.4, **options)
    assert verdict.estimate != confidence_sequence(values, level=TERMS.level)  # the last look alone would be wider
    assert verdict.p is not None
    assert verdict.p < p_value(values, 0.4, bounds=CLAIM.bounds)


def test_a_measure_is_told_how_many_images_the_device_takes_at_once(subject: Classifier) -> None:
    chunks: list[int] = []

    def noting(one: Classifier, batch: Batch) -> dict[str, Tensor]:
        chunks.append(batch.chunk)
        if batch.chunk > 4:
            raise torch.OutOfMemoryError("pretended")
        return brightness(one, batch)

    put(subject, noting, terms=replace(TERMS, batch_size=8, budget=20))
    assert chunks[:2] == [8, 4]
    assert set(chunks[1:]) == {4}  # the last batch is smaller, what fits is not


def test_the_first_images_are_shown_if_none_gave_anything_to_judge(subject: Classifier) -> None:
    chosen: list[str] = []

    def show(_subject: Classifier, batch: Batch, _rows: Mapping[str, Row]) -> tuple[Evidence, ...]:
        chosen.extend(batch.ids)
        return ()

    put(subject, constant(nan), show=show)
    assert len(chosen) == 3  # every map was empty: that is the finding, so it is shown


def test_trouble_in_the_evidence_is_an_error(subject: Classifier) -> None:
    def show(_subject: Classifier, _batch: Batch, _rows: Mapping[str, Row]) -> tuple[Evidence, ...]:
        raise ValueError("no picture")

    verdict = put(subject, constant(1.0), show=show)

    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason == "ValueError: no picture"


@pytest.mark.parametrize(("direction", "bound"), [("above", 0.0), ("within", 1.0)])
def test_a_few_images_with_nothing_to_judge_count_as_the_worst_case(
    subject: Classifier, direction: str, bound: float
) -> None:
    def mostly(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
        good = 1.0 if direction == "above" else 0.0
        empty = [image_id == "img7" for image_id in batch.ids]
        return {"value": torch.tensor([nan if one else good for one in empty])}

    claim = replace(CLAIM, direction=direction, margin=0.99 if direction == "above" else 0.01)
    verdict = put(subject, mostly, claim=claim, n=100)  # a margin that n = 100 cannot decide: every image is measured

    assert verdict.estimate is not None
    assert verdict.estimate.point == pytest.approx(abs(1 - bound) * 0.99 + bound * 0.01)
    assert isnan(verdict.values["img7"])
    assert "1 of 100" in verdict.reason


def test_many_images_with_nothing_to_judge_are_an_error_of_their_own(subject: Classifier) -> None:
    verdict = put(subject, constant(nan))

    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason.startswith("degenerate: 16 of 16")


def test_a_tenth_without_anything_to_judge_cannot_pass(subject: Classifier) -> None:
    def tenth(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
        return {"value": torch.tensor([nan if int(one[3:]) % 10 == 0 else 1.0 for one in batch.ids])}

    verdict = put(subject, tenth, claim=replace(CLAIM, margin=0.1))

    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason.startswith("degenerate: ")


@pytest.mark.parametrize("size", [1, 4])
def test_images_without_a_gradient_are_degenerate_in_whatever_company(subject: Classifier, size: int) -> None:
    def cut_off(_subject: Classifier, _batch: Batch) -> dict[str, Tensor]:
        raise ZeroGradient("cut off")

    verdict = put(subject, cut_off, terms=replace(TERMS, batch_size=size))

    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason.startswith("degenerate: 16 of 16")
    assert verdict.reason.endswith("16 zero gradient at the target layer")


def test_a_measure_that_says_why_is_quoted_the_most_frequent_reason_first(subject: Classifier) -> None:
    def named(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
        code = [Degeneracy.CONSTANT if int(one[3:]) % 3 else Degeneracy.EMPTY for one in batch.ids]
        return {"value": torch.full((len(batch),), nan), "value:degenerate": torch.tensor(code).double()}

    verdict = put(subject, named, n=16)

    assert verdict.reason.endswith("gave nothing to judge: 10 map constant, 6 map empty")


def test_too_few_images_decide_nothing(subject: Classifier) -> None:
    verdict = put(subject, constant(1.0), n=15)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason.startswith("too few images: 15")
    assert verdict.n_needed == 16


def test_evidence_comes_from_the_worst_the_typical_and_the_best_whatever_the_batch_size(subject: Classifier) -> None:
    def show(_subject: Classifier, batch: Batch, rows: Mapping[str, Row]) -> tuple[Evidence, ...]:
        return (Table(title="chosen", columns=("id",), rows=tuple((one,) for one in batch.ids)),)

    claim = replace(CLAIM, margin=0.45)
    shown = [put(subject, claim=claim, terms=replace(TERMS, batch_size=size), show=show) for size in (1, 32)]
    rows = [row[0] for row in shown[0].evidence[0].rows]  # type: ignore[union-attr]
    ranked = sorted(shown[0].values, key=lambda one: shown[0].values[one])

    assert shown[0].evidence == shown[1].evidence
    assert rows[:3] == ranked[:3]
    assert set(rows[3:5]) <= set(ranked[len(ranked) // 3 : 2 * len(ranked) // 3])
    assert rows[5:] == ranked[-1:]


@pytest.mark.parametrize(
    ("images", "ranks"),
    [
        (6, ["worst"] * 3 + ["typical"] * 2 + ["best"]),
        (4, ["worst"] * 3 + ["best"]),
        (2, ["worst"] * 2),
    ],
)
def test_of_few_images_the_worst_are_named_first(images: int, ranks: list[str]) -> None:
    assert [rank(index, images) for index in range(images)] == ranks


def test_progress_is_told_after_every_batch_and_look(subject: Classifier) -> None:
    told: list[tuple[int, int]] = []
    outcomes: list[Outcome] = []

    def watch(done: int, planned: int, so_far: Verdict) -> None:
        told.append((done, planned))
        outcomes.append(so_far.outcome)

    verdict = put(subject, constant(1.0), progress=watch)

    assert list(dict.fromkeys(told)) == [(8, 128), (16, 128)]  # of all that may be asked for, not of one look
    assert outcomes[-1] is verdict.outcome


@pytest.mark.slow
def test_false_verdicts_at_the_margin_are_rarer_than_the_level_allows(subject: Classifier) -> None:
    """A fair coin against a margin of 0.5, judged at every look and stopped when certain; 5 % a side is promised."""
    terms = replace(TERMS, level=0.9, budget=256, batch_size=256)
    outcomes = []
    for seed in range(RUNS):

        def coin(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
            draws = [torch.randint(2, (1,), generator=one) for one in batch.generators("coin")]
            return {"value": torch.cat(draws).float()}

        outcomes.append(put(subject, coin, terms=replace(terms, seed=seed), n=256).outcome)

    # more than this would happen once in a hundred times if the promise were only just kept
    most = binom.ppf(0.99, RUNS, 0.05)
    assert outcomes.count(Outcome.PASS) <= most
    assert outcomes.count(Outcome.FAIL) <= most
    assert Outcome.ERROR not in outcomes


def test_data_of_any_order_is_walked_alike(subject: Classifier) -> None:
    data = numbered_dataset(50)
    assert isinstance(data, Dataset)
    assert len(set(shuffled(data, 3)[:20])) == 20


def test_no_more_images_are_held_than_a_batch_has_however_many_there_are(subject: Classifier) -> None:
    def most_alive(n: int) -> int:
        alive, most = 0, 0
        made = numbered_dataset(n)

        def gone() -> None:
            nonlocal alive
            alive -= 1

        def read(image_id: str) -> Tensor:
            nonlocal alive, most
            image = made.read(image_id)
            weakref.finalize(image, gone)
            alive += 1
            most = max(most, alive)
            return image

        def show(_subject: Classifier, batch: Batch, _rows: Mapping[str, Row]) -> list[Evidence]:
            return []

        terms = replace(TERMS, budget=n, early=False)
        verdict = evaluate(
            CLAIM, brightness, subject, replace(made, read=read), column="value", terms=terms, journal={}, show=show
        )
        assert len(verdict.values) == n
        return most

    assert most_alive(64) == most_alive(512) <= TERMS.batch_size + 1
