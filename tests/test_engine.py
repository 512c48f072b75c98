"""What the engine measures, in which order and batches, and when it stops."""

import weakref
from collections.abc import Mapping
from dataclasses import replace
from itertools import count as counting
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from camcore import engine
from camcore.engine import LOOKS, Row, evaluate, shuffled
from camcore.images import Batch, Dataset
from camcore.statistics import confidence_sequence
from camcore.subject import Classifier
from camcore.verdict import Claim, Evidence, Outcome, Verdict
from tests.measures import CLAIM, TERMS, brightness, constant, put
from tests.tiny import GapNet, numbered_dataset, tiny_subject


@pytest.fixture
def subject() -> Classifier:
    return tiny_subject(GapNet(), "relu", size=2)


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


def test_what_is_measured_in_full_and_had_failed_when_time_ran_out_has_failed(
    subject: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = counting(), []
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))

    def watch(done: int, planned: int, so_far: Verdict) -> None:
        seen.append((planned, so_far.estimate is not None))

    def full(claim: Claim, **how: Any) -> Verdict:
        return put(subject, claim=claim, terms=replace(TERMS, batch_size=8, early=False), until=9.5, **how)

    failed = full(replace(CLAIM, margin=0.9), progress=watch)
    last = max(look for look in LOOKS if look <= 72)

    assert failed.outcome is Outcome.FAIL
    assert failed.reason.endswith(f"; out of time after {last} images; the profile grants no more seconds")
    assert (len(failed.values), failed.estimate is not None) == (last, True)
    assert (TERMS.budget, True) in seen  # an interval on the way, for whoever watches
    clock = counting()
    assert full(replace(CLAIM, margin=0.1)).outcome is Outcome.INCONCLUSIVE  # it would have passed by then


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


def test_progress_is_told_after_every_batch_and_look(subject: Classifier) -> None:
    told: list[tuple[int, int]] = []
    outcomes: list[Outcome] = []

    def watch(done: int, planned: int, so_far: Verdict) -> None:
        told.append((done, planned))
        outcomes.append(so_far.outcome)

    verdict = put(subject, constant(1.0), progress=watch)

    assert list(dict.fromkeys(told)) == [(8, 128), (16, 128)]  # of all that may be asked for, not of one look
    assert outcomes[-1] is verdict.outcome


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
