"""No worse than the last release: paired, by picture."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from audits.baseline import Baseline, compared, find_baseline
from audits.gate import decide
from audits.pytest_outcome import conclude
from camcore.errors import BadInput
from camcore.seeds import generator
from camcore.statistics import Estimate
from camcore.verdict import Claim, Outcome, Verdict
from tests.test_reports_example import claim as example_claim
from tests.test_reports_example import results

CLAIM = Claim(
    id="a/b[cam]",
    sentence="it holds",
    kind="DIR",
    measure="value",
    unit="share",
    margin=0.1,
    margin_source="drawn",
    severity="gate",
    bounds=(0.0, 1.0),
)
WITHIN = replace(CLAIM, direction="within", bounds=(-1.0, 1.0))
UNIT = st.floats(0, 1, width=32)


def baseline(values: list[float | None], **changes: Any) -> Baseline:
    units = [f"img{index}" for index in range(len(values))]
    old = {"units": units, "values": values, "audit_version": "1", **changes}
    return Baseline(run="then", subject="m", claims={"a/b[cam]": old})


def beside(new: list[float | None], old: list[float | None], *, claim: Claim = CLAIM, least: int = 4, **changes: Any):  # type: ignore[no-untyped-def]
    values = {f"img{index}": value for index, value in enumerate(new)}
    return compared(claim, values, "1", baseline(old, **changes), worse=0.05, level=0.95, least=least)


@given(values=st.lists(UNIT, min_size=4, max_size=8))
def test_a_model_is_no_worse_than_itself(values: list[float]) -> None:
    many = values * 40

    found = beside(many, list(many))

    assert found.outcome is Outcome.PASS
    assert found.estimate.point == 0


def test_a_loss_of_more_than_is_allowed_is_caught_whatever_the_pictures_differ_by() -> None:
    # between pictures the values differ by far more than the loss: only the pairs show it
    old = [index % 10 / 10 for index in range(400)]
    worse = [max(0.0, value - 0.09) for value in old]
    barely = [max(0.0, value - 0.02) for value in old]

    assert beside(worse, old).outcome is Outcome.FAIL
    assert beside(barely, old).outcome is Outcome.PASS
    assert beside(old, worse).outcome is Outcome.PASS
    assert beside(worse[:16], old[:16]).outcome is Outcome.INCONCLUSIVE


def test_of_a_band_worse_is_farther_from_its_middle() -> None:
    near, far = [0.05, -0.05] * 300, [0.4, -0.4] * 300

    assert beside(far, near, claim=WITHIN).outcome is Outcome.FAIL
    assert beside(near, far, claim=WITHIN).outcome is Outcome.PASS
    assert beside(far, [-value for value in far], claim=WITHIN).estimate.point == 0


def test_what_could_not_be_measured_is_the_worst_there_is() -> None:
    old = [0.5] * 400

    assert beside([None] * 400, old).outcome is Outcome.FAIL
    assert beside(old, [None] * 400).outcome is Outcome.PASS


@given(pairs=st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=4, max_size=60))
def test_outcomes_have_mcnemars_exact_p(pairs: list[tuple[float, float]]) -> None:
    new, old = (list(side) for side in zip(*pairs, strict=True))
    up, down = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    expected = min(1.0, 2 * binom.cdf(min(up, down), up + down, 0.5))

    assert beside(new, old).mcnemar == pytest.approx(expected)
    assert beside([0.5, *new], [1.0, *old]).mcnemar is None


def test_a_loss_that_is_not_there_is_rarely_seen() -> None:
    """Of 400 comparisons in which the model loses exactly what is allowed, few may be called no worse."""
    wrong = 0
    for index in range(400):
        rng = generator(index, "baseline")
        old = torch.rand(128, generator=rng, dtype=torch.float64) * 0.5 + 0.25
        new = (old - 0.05 + 0.2 * (torch.rand(128, generator=rng, dtype=torch.float64) - 0.5)).clamp(0, 1)
        wrong += beside(new.tolist(), old.tolist()).outcome is Outcome.PASS
    assert wrong <= 20  # at level 0.95 at most 10 are expected


@pytest.mark.parametrize(
    ("new", "old", "changes", "words"),
    [
        ([0.5] * 8, [0.5] * 8, {"audit_version": "0"}, "measured by version '0' of the audit, and this is '1'"),
        ([0.5] * 3, [0.5] * 8, {}, "both measured 3 of the same units, at least 4 are needed"),
        ([], [0.5] * 8, {}, "one of the two did not measure it"),
        ([0.5] * 8, [], {}, "one of the two did not measure it"),
    ],
)
def test_what_cannot_be_compared_is_not_shown(
    new: list[float | None], old: list[float | None], changes: dict[str, Any], words: str
) -> None:
    found = beside(new, old, **changes)

    assert (found.outcome, found.estimate) == (Outcome.INCONCLUSIVE, None)
    assert words in found.said


PER_IMAGE = {"chance_draws": 2}


def run(**changes: Any) -> dict[str, Any]:
    made = results([example_claim(0)]).model_dump()
    subject = made["subjects"][0] | {"data": ["d"]}
    return made | {"run": made["run"] | {"per_image": PER_IMAGE}, "subjects": [subject]} | changes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": 8}, "was run with seed 7, this run with 8"),
        ({"profile": "smoke"}, "was run with profile 'pr', this run with 'smoke'"),
        ({"per_image": {"chance_draws": 4}}, "did more or less to each image"),
        ({"data": ["other"]}, "about other data"),
        ({"data": ["d", "cues"]}, "about other data"),
        ({"subject": "resnet18", "only": False}, "has no model 'resnet18'; it has 'resnet50'"),
    ],
)
def test_runs_that_are_not_comparable_are_refused_before_anything_is_measured(
    given: dict[str, Any], words: str
) -> None:
    asked = {
        "subject": "resnet50",
        "only": True,
        "seed": 7,
        "profile": "pr",
        "per_image": PER_IMAGE,
        "data": ["d"],
        **given,
    }

    with pytest.raises(BadInput, match="not comparable") as raised:
        find_baseline(run(), asked.pop("subject"), **asked)

    assert words in str(raised.value)


def test_the_only_model_of_a_run_may_have_another_name() -> None:
    found = find_baseline(run(), "resnet50-v2", only=True, seed=7, profile="pr", per_image=PER_IMAGE, data=["d"])

    assert (found.subject, list(found.claims)) == ("resnet50", ["deletion/beats_random[cam0]"])


@pytest.mark.parametrize(
    ("own", "waived", "baseline_says", "verdict"),
    [
        ("PASS", None, "PASS", "PASS"),
        ("PASS", None, "FAIL", "FAIL"),
        ("PASS", None, "INCONCLUSIVE", "INCONCLUSIVE"),
        ("FAIL", None, "PASS", "FAIL"),
        ("FAIL", True, "PASS", "PASS"),
        ("FAIL", True, "FAIL", "FAIL"),
        ("INCONCLUSIVE", None, "FAIL", "FAIL"),
        ("INCONCLUSIVE", None, "PASS", "INCONCLUSIVE"),
        ("ERROR", None, "PASS", "INCONCLUSIVE"),
        ("NOT_APPLICABLE", None, "INCONCLUSIVE", "INCONCLUSIVE"),
    ],
)
def test_what_gates_has_to_pass_both(own: str, waived: bool | None, baseline_says: str, verdict: str) -> None:
    record = {
        "subject": "m",
        "id": "a/b",
        "verdict": own,
        "waiver": None if waived is None else {"holds": waived},
        "baseline": {"verdict": baseline_says},
    }

    assert decide([record], [("m", "a/b", "gate")]) == verdict


@pytest.mark.parametrize(("severity", "raised"), [("gate", pytest.fail.Exception), ("warn", pytest.xfail.Exception)])
def test_pytest_fails_what_gates_and_became_worse(severity: str, raised: type[BaseException]) -> None:
    old = [0.8] * 400
    worse, same = beside([0.3] * 400, old), beside(old, old)
    estimate = Estimate(point=0.3, low=0.25, high=0.35, level=0.95, n=400, method="drawn")
    verdict = Verdict(
        claim=replace(CLAIM, severity=severity),
        outcome=Outcome.PASS,
        reason="drawn",
        estimate=estimate,  # type: ignore[arg-type]
    )

    with pytest.raises(raised, match=r"worse than the baseline then by -0\.500"):
        conclude(verdict, None, worse, lambda _name, _value: None)
    conclude(verdict, None, same, lambda _name, _value: None)
    gone = replace(verdict, outcome=Outcome.NOT_APPLICABLE, estimate=None)
    with pytest.raises(raised, match="worse than the baseline then"):
        conclude(gone, None, worse, lambda _name, _value: None)
    with pytest.raises(pytest.skip.Exception):
        conclude(gone, None, None, lambda _name, _value: None)
