"""What a question that cannot be put or measured comes to, and what is kept of it: errors, interrupts, a full disk."""

import errno
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from audits.baseline import Baseline, Compared
from audits.journal import finished_claims
from audits.waivers import Waived, Waiver
from camcore.cost import metered
from camcore.engine import shuffled
from camcore.images import Batch
from camcore.subject import Classifier
from camcore.verdict import Outcome, Verdict
from tests.questions import BARELY, QUESTION, asking, constant, nothing, put, refuse, tiny
from tests.tiny import DenseNet, tiny_subject


def test_out_of_time_nothing_is_begun_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    late = replace(asking(tiny(), tmp_path, verdicts), until=time.monotonic() - 1)
    with metered() as cost:
        put(late, premise=refuse(RuntimeError("asked")))
    put(asking(tiny(), tmp_path, verdicts, resume=True))

    assert (verdicts[0].outcome, verdicts[0].estimate) == (Outcome.INCONCLUSIVE, None)
    assert verdicts[0].reason.startswith("out of time before anything was measured")
    assert cost.forwards == 0
    assert verdicts[1].outcome is Outcome.PASS


def test_what_broke_is_tried_again_by_a_resumed_run(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    put(asking(tiny(), tmp_path, verdicts), premise=refuse(RuntimeError("the disk was full")))
    put(asking(tiny(), tmp_path, verdicts, resume=True))

    assert [verdict.outcome for verdict in verdicts] == [Outcome.ERROR, Outcome.PASS]


def test_a_model_without_features_is_not_applicable(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    put(asking(tiny_subject(DenseNet()), tmp_path, verdicts))

    assert verdicts[0].outcome is Outcome.NOT_APPLICABLE
    assert "no saliency map to judge" in verdicts[0].reason


def test_a_claim_that_no_longer_applies_is_not_shown_to_be_no_worse(tmp_path: Path) -> None:
    """The release before had maps of this model's features, and values; one without any does not pass beside it."""
    name = "deletion/beats_random[hirescam]"
    found: list[tuple[Outcome, Compared | None]] = []
    for values in ([0.9], []):
        before = Baseline(run="then", subject="m", claims={name: {"values": values}})
        ask = replace(
            asking(tiny_subject(DenseNet()), tmp_path, []),
            baseline=before,
            conclude=lambda verdict, _waived, beside: found.append((verdict.outcome, beside)),
        )
        put(ask)

    (applies_no_more, beside), (never_did, nothing_beside) = found
    assert applies_no_more is never_did is Outcome.NOT_APPLICABLE
    assert nothing_beside is None
    assert beside is not None
    assert beside.outcome is Outcome.INCONCLUSIVE


def test_of_a_measure_in_doubt_neither_a_baseline_nor_a_waiver_makes_anything(tmp_path: Path) -> None:
    name = "deletion/beats_random[hirescam]"
    waiver = Waiver(claim=name, bound=-0.95, reason="so", owner="me", expires=date(9999, 1, 1))
    found: list[tuple[Verdict, Waived | None, Compared | None]] = []
    old = {"values": [0.9] * 16, "units": [f"img{index}" for index in range(16)], "audit_version": "1"}
    asked = asking(tiny(), tmp_path, [])
    ask = replace(
        asked,
        policy=asked.policy.model_copy(update={"waivers": (waiver,)}),
        baseline=Baseline(run="then", subject="m", claims={name: old}),
        conclude=lambda *given: found.append(given),
    )
    ask(
        QUESTION,
        "hirescam",
        measure=partial(constant, value=0.9),
        column="value",
        show=nothing,
        version="1",
        doubt=lambda _: "it saw nothing",
    )

    ((verdict, waived, beside),) = found
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "unreliable: it saw nothing")
    assert waived is not None
    assert not waived.holds
    assert beside is not None
    assert beside.outcome is Outcome.INCONCLUSIVE
    (record,) = ask.log.claims.values()
    assert (record["verdict"], record["estimate"], record["p"]) == ("INCONCLUSIVE", None, None)


def test_a_question_about_captions_does_not_apply_to_a_model_of_classes(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    about_captions = replace(QUESTION, needs="captions")
    asking(tiny(), tmp_path, verdicts)(
        about_captions, "hirescam", measure=constant, column="value", show=nothing, version="1"
    )

    assert verdicts[0].outcome is Outcome.NOT_APPLICABLE
    assert verdicts[0].reason.endswith("scores classes, and the question is about captions")


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError, AssertionError])
def test_a_premise_that_fails_is_an_error_in_one_line(kind: type[Exception], tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    put(asking(tiny(), tmp_path, verdicts), premise=refuse(kind("no wall\n  here")))

    assert verdicts[0].outcome is Outcome.ERROR
    assert verdicts[0].reason.startswith(f"{kind.__name__}: ")
    assert "\n" not in verdicts[0].reason


@pytest.mark.parametrize("kind", [ValueError, LookupError, AttributeError, UserWarning])
def test_a_measure_that_fails_is_an_error_in_one_line(kind: type[Exception], tmp_path: Path) -> None:
    def measure(_subject: Classifier, _batch: Batch) -> Mapping[str, Tensor]:
        raise kind("broken\nhere")

    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts)
    ask(QUESTION, "hirescam", measure=measure, column="value", show=nothing, version="1")

    assert verdicts[0].outcome is Outcome.ERROR
    assert verdicts[0].reason == f"{kind.__name__}: broken here"


def test_a_method_that_the_model_has_no_maps_of_does_not_apply_and_is_not_measured(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts, undefined={"hirescam": "no such maps of tiny"})
    put(ask)

    assert verdicts[0].outcome is Outcome.NOT_APPLICABLE
    assert verdicts[0].reason == "no such maps of tiny"
    assert list(ask.defined) == ["gradcam"]
    assert (verdicts[0].values or {}) == {}


def test_an_interrupt_leaves_what_was_known_by_then_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    def measure(subject: Classifier, batch: Batch) -> Mapping[str, Tensor]:
        if last in batch.ids:
            raise KeyboardInterrupt
        return constant(subject, batch)

    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts)
    last = shuffled(ask.dataset, ask.terms.seed)[-1]
    with pytest.raises(KeyboardInterrupt):
        ask(BARELY, "hirescam", measure=measure, column="value", show=nothing, version="1")

    assert verdicts == []
    (record,) = finished_claims(tmp_path, run="this")
    assert record["verdict"] == "INCONCLUSIVE"
    assert record["reason"] == "interrupted after 16 images; --audit-resume goes on"
    assert (record["estimate"]["n"], len(record["values"])) == (16, 16)

    resumed = asking(tiny(), tmp_path, verdicts, resume=True)
    resumed(BARELY, "hirescam", measure=constant, column="value", show=nothing, version="1")
    assert len(verdicts[0].values) == 20
    assert not verdicts[0].reason.startswith("interrupted")


@pytest.mark.parametrize(("interrupted", "verdict"), [(False, "ERROR"), (True, "INCONCLUSIVE")])
def test_a_process_that_dies_while_it_measures_leaves_a_claim_without_an_answer(
    interrupted: bool, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands in for a SIGKILL: nothing of ours handles it."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    ask = asking(tiny(), tmp_path, [])
    monkeypatch.setattr("audits.ask.evaluate", killed)
    with pytest.raises(Killed):
        put(ask)

    (record,) = finished_claims(tmp_path, run="this", interrupted=interrupted)
    assert (record["id"], record["verdict"]) == ("deletion/beats_random[hirescam]", verdict)
    assert finished_claims(tmp_path, run="another") == []
    assert asking(tiny(), tmp_path, [], resume=True).log.claims == {}


@pytest.mark.parametrize(
    ("leaves", "reason"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (pytest.skip.Exception("not today"), "Skipped: not today"),
        (pytest.xfail.Exception("not today"), "XFailed: not today"),
        (pytest.exit.Exception("goodbye", 0), "Exit: goodbye"),
    ],
)
@pytest.mark.parametrize("where", ["measure", "premise"])
def test_a_model_that_leaves_python_or_its_test_is_an_error(
    leaves: BaseException, reason: str, where: str, tmp_path: Path
) -> None:
    def raises(*_: object) -> Any:
        raise leaves

    verdicts: list[Verdict] = []
    how = {"measure": raises} if where == "measure" else {"measure": lambda *_: {}, "premise": raises}
    asking(tiny(), tmp_path, verdicts)(QUESTION, "hirescam", column="value", show=nothing, version="1", **how)

    assert verdicts[0].outcome is Outcome.ERROR
    assert verdicts[0].reason == reason


def test_a_full_disk_is_told_in_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        put(ask)

    assert verdicts[0].outcome is Outcome.ERROR
    assert "results.jsonl' (No space left on device)" in verdicts[0].reason
    assert finished_claims(tmp_path, run="this") == []


def test_who_is_told_of_a_claim_and_fails_does_not_make_the_journal_a_liar(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts)

    def refused(_claim: object) -> None:
        raise ConnectionRefusedError("nobody listens")

    ask.log.on_claim = refused
    with pytest.raises(ConnectionRefusedError, match="nobody listens"):
        put(ask)

    assert verdicts == []
    assert [claim["verdict"] for claim in finished_claims(tmp_path, run="this")] == ["PASS"]
