"""What the engine answers and shows: verdicts, intervals, how often they are false, which images are evidence."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from camcore.engine import LOOKS, Row, rank
from camcore.images import Batch
from camcore.statistics import confidence_sequence, p_value
from camcore.subject import Classifier
from camcore.verdict import Evidence, Outcome, Table
from tests.measures import CLAIM, TERMS, brightness, constant, put
from tests.tiny import GapNet, tiny_subject

RUNS = 200  # of the simulation


@pytest.fixture
def subject() -> Classifier:
    return tiny_subject(GapNet(), "relu", size=2)


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


@pytest.mark.parametrize("direction", ["above", "within"])
def test_of_images_that_differ_by_rounding_the_first_are_shown(subject: Classifier, direction: str) -> None:
    chosen: list[str] = []

    def show(_subject: Classifier, batch: Batch, _rows: Mapping[str, Row]) -> tuple[Evidence, ...]:
        chosen.extend(batch.ids)
        return ()

    def rounding(subject: Classifier, batch: Batch) -> Mapping[str, Tensor]:
        return {"value": brightness(subject, batch)["value"] * 1e-6}

    verdict = put(subject, rounding, claim=replace(CLAIM, direction=direction), show=show)
    assert chosen[:3] == list(verdict.values)[:3]


def test_the_interval_and_p_are_those_of_all_looks_so_far(subject: Classifier) -> None:
    verdict = put(subject, claim=replace(CLAIM, margin=0.4), terms=replace(TERMS, budget=100))
    values = list(verdict.values.values())
    options = {"bounds": CLAIM.bounds, "counts": [look for look in LOOKS if look < 100] + [100]}

    assert verdict.estimate == confidence_sequence(values, level=TERMS.level, **options)
    assert verdict.p == p_value(values, 0.4, **options)
    assert verdict.estimate != confidence_sequence(values, level=TERMS.level)  # the last look alone would be wider
    assert verdict.p is not None
    assert verdict.p < p_value(values, 0.4, bounds=CLAIM.bounds)


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


def test_a_doubt_leaves_nothing_that_could_pass(subject: Classifier) -> None:
    """Nor that another margin, a waiver or a baseline could make something of."""
    verdict = put(subject, constant(1.0), doubt=lambda rows: f"none of {len(rows)} can be believed")

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "unreliable: none of 128 can be believed"
    assert (verdict.estimate, verdict.p, verdict.n_needed) == (None, None, None)
    assert len(verdict.values) == 128


def test_a_doubt_that_more_images_lift_is_lifted(subject: Classifier) -> None:
    verdict = put(subject, constant(1.0), doubt=lambda rows: "too few" if len(rows) < 40 else "")

    assert verdict.outcome is Outcome.PASS
    assert len(verdict.values) == 48


def test_who_fails_in_doubt_is_not_measured_to_the_end(subject: Classifier) -> None:
    verdict = put(subject, constant(0.0), doubt=lambda _: "so")

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert len(verdict.values) < 128


def test_what_broke_stays_broken_in_doubt(subject: Classifier) -> None:
    verdict = put(subject, constant(float("nan")), doubt=lambda _: "so")

    assert verdict.outcome is Outcome.ERROR
    assert verdict.estimate is None
    assert verdict.reason.startswith("degenerate")
    assert verdict.reason.endswith("unreliable: so")
