from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audits.policy import load_policy
from audits.waivers import Waiver, unmatched, waived
from camcore.statistics import Estimate
from camcore.verdict import Claim, Outcome, Verdict

TODAY = date(2030, 3, 1)


def verdict(low: float, high: float, *, outcome: Outcome = Outcome.FAIL, **of_claim: str) -> Verdict:
    claim = Claim(
        id="wall/leakage[gradcam]",
        sentence="it holds",
        kind="INV",
        measure="leakage",
        unit="share",
        margin=0.1,
        margin_source="drawn",
        severity="gate",
        bounds=(-1.0, 1.0),
        **{"direction": "above", **of_claim},
    )
    point = (low + high) / 2
    estimate = Estimate(point=point, low=low, high=high, level=0.95, n=50, method="drawn")
    return Verdict(claim=claim, outcome=outcome, reason="drawn", estimate=estimate)


def waiver(**given: object) -> Waiver:
    return Waiver(
        **{"claim": "wall/leakage[gradcam]", "bound": 0.0, "reason": "so", "owner": "me", "expires": TODAY, **given}
    )


@given(
    bound=st.floats(-1, 1),
    ends=st.lists(st.floats(-1, 1), min_size=2, max_size=2),
    days=st.integers(-3, 3),
)
def test_a_waiver_holds_until_its_day_and_as_far_as_its_bound(bound: float, ends: list[float], days: int) -> None:
    low, high = sorted(ends)
    found = waived(verdict(low, high), "m", [waiver(bound=bound)], today=TODAY + timedelta(days))

    assert found is not None
    assert found.holds == (days <= 0 and low > bound)
    assert "until 2030-03-01 by me: so" in found.said


def test_of_a_claim_about_a_band_the_bound_is_a_wider_band() -> None:
    within = verdict(0.11, 0.19, direction="within")

    assert waived(within, "m", [waiver(bound=0.2)], today=TODAY).holds
    assert not waived(within, "m", [waiver(bound=0.15)], today=TODAY).holds


@pytest.mark.parametrize(
    ("claim", "subject", "covered"),
    [
        ("wall/leakage[gradcam]", "*", True),
        ("wall/leakage[*]", "m", True),
        ("wall/leakage[hirescam]", "*", False),
        ("wall/leakage", "*", False),  # a claim about the model itself, which this is not
        ("wall/*", "*", False),
        ("wall/leakage[gradcam]", "other", False),
    ],
)
def test_a_waiver_covers_the_claim_it_names(claim: str, subject: str, covered: bool) -> None:
    found = waived(verdict(0.01, 0.05), "m", [waiver(claim=claim, subject=subject)], today=TODAY)

    assert (found is not None) == covered


def test_what_passes_or_does_not_apply_needs_no_waiver() -> None:
    for outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE):
        assert waived(verdict(0.2, 0.3, outcome=outcome), "m", [waiver()], today=TODAY) is None


def test_what_was_not_shown_is_not_waived() -> None:
    broken = verdict(0.2, 0.3, outcome=Outcome.ERROR)

    found = waived(broken, "m", [waiver()], today=TODAY)

    assert not found.holds
    assert found.said.endswith("but nothing was shown of it")
    assert found.record()["expires"] == "2030-03-01"


def test_the_first_waiver_that_covers_a_claim_counts() -> None:
    both = [waiver(owner="first", bound=0.4), waiver(owner="second")]

    assert waived(verdict(0.01, 0.05), "m", both, today=TODAY).waiver.owner == "first"


def test_a_waiver_for_no_claim_of_the_run_is_told() -> None:
    shipped = load_policy(None, profile="pr")
    policy = shipped.model_copy(update={"waivers": (waiver(subject="resnet50"),)})

    assert unmatched(policy, [("resnet50", "wall/leakage[gradcam]", "gate")]) == []
    for other in (("resnet18", "wall/leakage[gradcam]", "gate"), ("resnet50", "wall/leakage[hirescam]", "gate")):
        (line,) = unmatched(policy, [other])
        assert line.endswith("the waiver of 'wall/leakage[gradcam]' on 'resnet50' matches no claim of this run")
