import pytest

from reports import wording
from reports.schema import Claim
from tests.test_reports_example import beside, claim, example, results

PASS, FAIL, INCONCLUSIVE, NOT_APPLICABLE, ERROR = (
    claim(index, severity="gate", gates=True, measure={"name": "m", "unit": "u", "direction": "above"})
    for index in range(5)
)


WAIVER = {"holds": True, "said": "waived", "bound": 0.0, "reason": "so", "owner": "me", "expires": "2030-01-01"}
WAIVED, PAST = FAIL | {"waiver": WAIVER}, FAIL | {"waiver": WAIVER | {"holds": False}}


@pytest.mark.parametrize(
    ("claims", "verdict", "code", "sentence"),
    [
        ([PASS, WAIVED], "PASS", 0, "resnet50 PASSES: 1 of 2 gating claims hold, 1 waived."),
        ([FAIL, WAIVED], "FAIL", 1, "resnet50 FAILS: 1 of 2 gating claims fails, 1 waived."),
        ([PASS, PAST], "FAIL", 1, "resnet50 FAILS: 1 of 2 gating claims fails."),
        ([FAIL, PASS, PASS], "FAIL", 1, "resnet50 FAILS: 1 of 3 gating claims fails."),
        ([FAIL, FAIL, ERROR], "FAIL", 1, "resnet50 FAILS: 2 of 3 gating claims fail, 1 without an answer (error)."),
        ([PASS, PASS, PASS], "PASS", 0, "resnet50 PASSES: all 3 gating claims hold."),
        ([PASS], "PASS", 0, "resnet50 PASSES: its 1 gating claim holds."),
        (
            [PASS, PASS, NOT_APPLICABLE],
            "PASS",
            0,
            "resnet50 PASSES: what gates and applies holds, 2 of 3 gating claims, 1 not applicable.",
        ),
        ([PASS, INCONCLUSIVE], "INCONCLUSIVE", 6, "resnet50 is INCONCLUSIVE: of 2 gating claims, 1 inconclusive."),
        ([PASS], "INCONCLUSIVE", 6, "resnet50 is INCONCLUSIVE: not everything that gates was tested."),
        ([PASS], "FAIL", 1, "resnet50 FAILS: the run failed outside its gating claims."),
    ],
)
def test_the_verdict_is_one_sentence(claims, verdict, code, sentence):
    missing = ["wall/leakage: no verdict"] * ("not everything" in sentence)

    assert wording.verdict_sentence(results(claims, verdict=verdict, exit_code=code, not_tested=missing)) == sentence


@pytest.mark.parametrize(
    ("claims", "verdict", "sentence"),
    [
        (
            [FAIL, PASS, PASS],
            "FAIL",
            "resnet50 FAILS: 1 of the 3 gating claims that were asked fails; not everything was tested.",
        ),
        (
            [ERROR],
            "INCONCLUSIVE",
            "resnet50 is INCONCLUSIVE: of the 1 gating claim that was asked, 1 without an answer (error); "
            "not everything was tested.",
        ),
    ],
)
def test_totals_are_those_of_what_was_asked_where_something_that_gates_is_missing(claims, verdict, sentence):
    made = results(claims, verdict=verdict, exit_code=1, not_tested=["wall/leakage: no verdict"])

    assert wording.verdict_sentence(made) == sentence


def test_what_warns_and_was_not_asked_changes_no_total():
    made = example([FAIL, PASS], not_tested=["wall/warns: no verdict"])
    made["run"]["family"]["claims"] = 2

    assert wording.verdict_sentence(results(**made)) == "resnet50 FAILS: 1 of 2 gating claims fails."


@pytest.mark.parametrize("code", [1, 3, 6])
def test_a_pass_that_does_not_end_with_0_says_so_and_no_release_goes_on(code):
    made = results([PASS], verdict="PASS", exit_code=code)

    assert wording.verdict_sentence(made) == (
        f"resnet50 PASSES: its 1 gating claim holds, but the run ended with exit code {code}."
    )
    assert wording.exit_sentence(made) == (
        f"Exit code {code}: every claim that gates was shown to hold, but the run ended with exit code {code} as "
        "something beside the claims failed, so a release pipeline stops."
    )
    assert wording.look("PASS", code) != wording.look("PASS", 0) == "PASS"


@pytest.mark.parametrize(
    ("one", "answer", "compared"),
    [
        (PASS, "PASS", ""),
        (PASS | {"baseline": beside("PASS")}, "PASS", ""),
        (
            PASS | {"baseline": beside("FAIL")},
            "FAIL beside the baseline",
            "Pass by itself; worse than the baseline then",
        ),
        (
            INCONCLUSIVE | {"baseline": beside("FAIL")},
            "FAIL beside the baseline",
            "Inconclusive by itself; worse than the baseline then",
        ),
        (
            NOT_APPLICABLE | {"baseline": beside("INCONCLUSIVE")},
            "INCONCLUSIVE beside the baseline",
            "Not applicable by itself; not shown to be no worse than the baseline then",
        ),
        (FAIL | {"baseline": beside("PASS")}, "FAIL", "no worse than the baseline then"),
        (WAIVED, "FAIL", ""),
        (WAIVED | {"baseline": beside("INCONCLUSIVE")}, "FAIL", "not shown to be no worse than the baseline then"),
    ],
)
def test_a_claim_is_told_as_it_counts_and_a_waived_one_as_what_is_waived(one, answer, compared):
    made = Claim.model_validate(one)

    assert wording.answer(made) == answer
    assert wording.compared(made) == compared


def test_a_tally_counts_what_is_shown():
    made = [Claim.model_validate(one) for one in (PASS, PASS | {"baseline": beside("FAIL")}, WAIVED)]

    assert wording.tally(made) == [("FAIL", 2), ("PASS", 1)]


def test_only_the_subject_that_fails_is_named():
    subjects = [example()["subjects"][0] | {"id": name} for name in ("good", "bad")]
    claims = [PASS | {"subject": "good"}, FAIL | {"subject": "bad"}]

    assert wording.verdict_sentence(results(claims, subjects=subjects)).startswith("bad FAILS: 1 of the 2")


@pytest.mark.parametrize("code", range(8))
def test_every_exit_code_says_whether_a_release_goes_on(code):
    made = results([PASS], verdict="PASS" if code == 0 else "INCONCLUSIVE", exit_code=code)

    assert wording.exit_sentence(made).endswith("a release pipeline goes on." if code == 0 else "pipeline stops.")


def numbers(low, point, high, **changes):
    estimate = {"point": point, "low": low, "high": high, "level": 0.9917, "n": 48, "interval": "betting"}
    return wording.numbers(Claim.model_validate(claim(estimate=estimate, **changes)))


def test_numbers_carry_interval_level_n_and_what_was_needed():
    assert numbers(0.27, 0.31, 0.35) == "0.31 [0.27, 0.35], 99.2 % simultaneous interval, n = 48; needs > 0.05"


def test_rounding_never_moves_a_bound_onto_or_across_the_margin():
    assert "[−0.2000, 0.0499]" in numbers(-0.2, 0.0, 0.0499)
    assert "[0.0504, 0.4000]" in numbers(0.0504, 0.2, 0.4)


def test_zero_has_no_sign():
    assert numbers(-0.001, -0.0001, 0.3).startswith("0.00 [0.00, 0.30]")


@pytest.mark.parametrize(("level", "said"), [(0.95, "95 %"), (0.9917, "99.2 %"), (0.99975, "99.98 %"), (1.0, "100 %")])
def test_a_level_below_one_is_never_rounded_to_certainty(level, said):
    assert wording.percent(level) == said


def test_an_interrupted_run_is_incomplete_before_it_is_anything_else():
    made = results([PASS], verdict="INCONCLUSIVE", exit_code=2)
    stopped = made.model_copy(update={"run": made.run.model_copy(update={"interrupted": True})})

    assert wording.verdict_sentence(stopped) == (
        "Incomplete, the run was interrupted: resnet50 is INCONCLUSIVE: not everything that gates was tested."
    )
    assert wording.exit_sentence(stopped).startswith("Exit code 2: the run was interrupted")


def test_a_model_that_nothing_applies_to_is_named():
    gates = {"severity": "gate", "gates": True}
    claims = [claim(0, **gates, verdict="PASS"), claim(3, **gates, verdict="NOT_APPLICABLE", subject="other")]
    made = results(claims=claims, verdict="INCONCLUSIVE", exit_code=6)
    other = made.subjects[0].model_copy(update={"id": "other"})
    made = made.model_copy(update={"subjects": (*made.subjects, other)})

    assert wording.verdict_sentence(made) == "other is INCONCLUSIVE: of what gates, nothing applies."


def test_a_claim_that_no_longer_applies_counts_as_what_it_is_beside_the_baseline():
    beside = {"run": "then", "subject": "m", "verdict": "INCONCLUSIVE", "said": "not comparable", "worse": 0.0}
    made = claim(3, verdict="NOT_APPLICABLE", baseline=beside | {"estimate": None, "mcnemar": None})

    assert Claim.model_validate(made).counts == "INCONCLUSIVE"
    assert Claim.model_validate(made | {"baseline": None}).counts == "NOT_APPLICABLE"
    assert wording.asides([Claim.model_validate(made)] * 3) == {}


@pytest.mark.parametrize("direction", ["above", "within"])
def test_the_worst_that_are_named_are_those_that_are_shown_where_only_rounding_differs(direction):
    made = claim(
        measure={"name": "m", "unit": "u", "direction": direction},
        units=["a", "b", "c"],
        values=[4e-7, -5e-7, 3e-7],
    )

    assert wording.worst(Claim.model_validate(made)) == "a (4e−07), b (−5e−07), c (3e−07)"
