import errno
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audits import test_deletion as deletion
from audits import test_wall as wall
from audits.ask import Ask, Premise
from audits.journal import Log, finished_claims
from audits.policy import load_policy
from audits.waivers import Waived, Waiver
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.engine import Terms, shuffled
from camcore.images import Batch
from camcore.layers import with_target_layer
from camcore.subject import Classifier, Normalise
from camcore.verdict import Outcome, Verdict
from camcore.wall import build_wall
from fixtures.controls import find_control
from fixtures.datasets.scenes import scenes
from fixtures.subjects.weights import weights_sha256
from tests.tiny import DenseNet, GapNet, numbered_dataset, tiny_subject

QUESTION = deletion.BEATS_RANDOM
BARELY = replace(QUESTION, bounds=(-20.0, 20.0))  # 0.9 decides nothing on so wide a scale


def tiny() -> Classifier:
    return tiny_subject(GapNet(), "conv2")


def asking(
    subject: Classifier,
    folder: Path,
    verdicts: list[Verdict],
    *,
    resume: bool = False,
    undefined: Mapping[str, str] | None = None,
) -> Ask:
    return Ask(
        subject=subject,
        dataset=numbered_dataset(20, size=16),
        cams={"hirescam": METHODS["hirescam"], "gradcam": METHODS["gradcam"]},
        undefined=undefined or {},
        policy=load_policy(None, profile="smoke"),
        terms=Terms(level=0.95, budget=20, seed=0, batch_size=6),
        log=Log(folder, "master", run="this", resume=resume),
        profile="smoke",
        rerun="pytest",
        node_id="audits/test_x.py::test_y",
        conclude=lambda verdict, _waived, _beside: verdicts.append(verdict),
    )


def constant(subject: Classifier, batch: Batch, *, value: float = 0.9, **_given: object) -> Mapping[str, Tensor]:
    return {"value": subject.logits(batch.images)[:, 0].detach() * 0 + value}


def nothing(*_args: object, **_given: object) -> tuple[()]:
    return ()


def put(ask: Ask, *, value: float = 0.9, premise: Premise | None = None, apart: str = "") -> None:
    measure = partial(constant, value=value)
    ask(QUESTION, "hirescam", measure=measure, column="value", show=nothing, version="1", premise=premise, apart=apart)


def state_of(module: nn.Module) -> list[object]:
    """All that an audit must leave as it was, but for the weights."""
    hooks = [len(group) for each in module.modules() for name, group in vars(each).items() if name.endswith("_hooks")]
    gradients = [parameter.grad is None for parameter in module.parameters()]
    wanted = [parameter.requires_grad for parameter in module.parameters()]
    return [hooks, gradients, wanted, [each.training for each in module.modules()]]


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, "broken"])
def test_the_model_leaves_the_audits_as_it_came(draws: object, tmp_path: Path) -> None:
    subject = with_target_layer(find_control("clean"))
    verdicts: list[Verdict] = []
    ask = replace(asking(subject, tmp_path, verdicts), dataset=scenes(20, seed=0))
    before = weights_sha256(subject.module), state_of(subject.module)
    random_state, grad_enabled = torch.get_rng_state(), torch.is_grad_enabled()

    ask(
        deletion.BEATS_RANDOM,
        "hirescam",
        measure=partial(deletion.deletion, cams=ask.cams, draws=draws),
        column="hirescam:over_random:0.2",
        show=partial(deletion.show, name="hirescam", cam=ask.cams["hirescam"], column="hirescam:over_random:0.2"),
        version="1",
    )
    ask(
        wall.LEAKAGE,
        "hirescam",
        premise=lambda images: {"wall": build_wall(subject, images, seed=0)},
        measure=partial(wall.wall_leakage, cams=ask.cams),
        column="hirescam:leakage",
        show=partial(wall.show, name="hirescam", cam=ask.cams["hirescam"]),
        version="1",
    )

    assert (verdicts[0].outcome is Outcome.ERROR) == (draws == "broken")
    assert len(verdicts[1].evidence) > 0
    assert (weights_sha256(subject.module), state_of(subject.module)) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled() == grad_enabled


def test_a_verdict_is_journalled_and_concluded(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts)
    put(ask)

    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASS]
    (record,) = ask.log.claims.values()
    assert (record["verdict"], record["subject"], len(record["values"])) == ("PASS", "tiny", 16)
    assert record["rerun"] == "pytest"


def test_claims_measured_apart_share_neither_a_premise_nor_rows(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts)

    def broken(_images: Tensor) -> Mapping[str, object]:
        raise LookupError("it cannot be put up")

    put(ask, premise=broken, apart="one wall")
    put(ask, premise=lambda _images: {}, apart="another wall")
    put(replace(ask, policy=ask.policy.model_copy(update={"sha256": "another"})), premise=broken, apart="another wall")

    assert [verdict.outcome for verdict in verdicts] == [Outcome.ERROR, Outcome.PASS, Outcome.PASS]
    assert len(ask.log.rows) == 1  # the first got as far as none
    put(ask, apart="a third wall")
    assert len(ask.log.rows) == 2


def test_a_known_claim_is_concluded_without_asking_the_model(tmp_path: Path) -> None:
    first: list[Verdict] = []
    second: list[Verdict] = []
    put(asking(tiny(), tmp_path, first))
    put(asking(tiny(), tmp_path, second, resume=True), value=-0.9)

    assert second[0].outcome is Outcome.PASS
    assert (second[0].estimate, second[0].reason) == (first[0].estimate, first[0].reason)


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


def test_a_waiver_is_journalled_and_told_to_pytest(tmp_path: Path) -> None:
    told: list[Waived | None] = []
    waiver = Waiver(claim="deletion/beats_random[*]", bound=-0.95, reason="so", owner="me", expires=date(9999, 1, 1))
    ask = asking(tiny(), tmp_path, [])
    waiving = replace(
        ask,
        policy=ask.policy.model_copy(update={"waivers": (waiver,)}),
        conclude=lambda _verdict, waived, _beside: told.append(waived),
    )

    put(waiving, value=-0.9)
    put(replace(waiving, policy=waiving.policy.model_copy(update={"sha256": "another"})), value=-0.9, apart="again")
    (first, second) = (record["waiver"] for record in ask.log.claims.values())

    assert [found.holds for found in told if found] == [True, True]
    assert first == second == told[0].record()  # type: ignore[union-attr]


def test_what_broke_is_tried_again_by_a_resumed_run(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    put(asking(tiny(), tmp_path, verdicts), premise=refuse(RuntimeError("the disk was full")))
    put(asking(tiny(), tmp_path, verdicts, resume=True))

    assert [verdict.outcome for verdict in verdicts] == [Outcome.ERROR, Outcome.PASS]


# whatever the numbers depend on must be part of the key under which they are kept
@pytest.mark.parametrize(
    "changed",
    [{"spec": "py:other.py:build"}, {"sha256": "1"}, {"preprocess": Normalise()}, {"target_layer": "conv1"}],
)
def test_another_model_is_measured_anew(changed: dict[str, object], tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    subject = tiny()
    put(asking(subject, tmp_path, verdicts))
    put(asking(replace(subject, **changed), tmp_path, verdicts, resume=True), value=-0.9)  # type: ignore[arg-type]

    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASS, Outcome.FAIL]


def test_two_names_for_one_model_share_rows_but_not_verdicts(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    ask = asking(tiny(), tmp_path, verdicts)
    put(ask)
    put(replace(ask, subject=replace(ask.subject, name="tiny.2")), value=-0.9)

    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASS, Outcome.PASS]
    assert [record["subject"] for record in ask.log.claims.values()] == ["tiny", "tiny.2"]
    assert len(ask.log.rows) == 1


def test_a_model_without_features_is_not_applicable(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    put(asking(tiny_subject(DenseNet()), tmp_path, verdicts))

    assert verdicts[0].outcome is Outcome.NOT_APPLICABLE
    assert "no saliency map to judge" in verdicts[0].reason


def test_a_question_about_captions_does_not_apply_to_a_model_of_classes(tmp_path: Path) -> None:
    verdicts: list[Verdict] = []
    about_captions = replace(QUESTION, needs="captions")
    asking(tiny(), tmp_path, verdicts)(
        about_captions, "hirescam", measure=constant, column="value", show=nothing, version="1"
    )

    assert verdicts[0].outcome is Outcome.NOT_APPLICABLE
    assert verdicts[0].reason.endswith("scores classes, and the question is about captions")


def refuse(problem: Exception) -> Premise:
    def premise(_images: Tensor) -> Mapping[str, object]:
        raise problem

    return premise


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
    interrupted: bool, verdict: str, tmp_path: Path
) -> None:
    class Killed(BaseException):
        """Stands in for a SIGKILL: nothing of ours handles it."""

    def measure(_subject: Classifier, _batch: Batch) -> Mapping[str, Tensor]:
        raise Killed

    ask = asking(tiny(), tmp_path, [])
    with pytest.raises(Killed):
        ask(QUESTION, "hirescam", measure=measure, column="value", show=nothing, version="1")

    (record,) = finished_claims(tmp_path, run="this", interrupted=interrupted)
    assert (record["id"], record["verdict"]) == ("deletion/beats_random[hirescam]", verdict)
    assert finished_claims(tmp_path, run="another") == []
    assert asking(tiny(), tmp_path, [], resume=True).log.claims == {}


def test_a_model_that_leaves_python_is_an_error(tmp_path: Path) -> None:
    def measure(_subject: Classifier, _batch: Batch) -> Mapping[str, Tensor]:
        raise SystemExit(0)

    verdicts: list[Verdict] = []
    asking(tiny(), tmp_path, verdicts)(QUESTION, "hirescam", measure=measure, column="value", show=nothing, version="1")

    assert verdicts[0].outcome is Outcome.ERROR
    assert verdicts[0].reason == "SystemExit: 0"


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


def test_progress_is_told_how_many_images_of_how_many_and_what_is_known_so_far(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    ask = asking(tiny(), tmp_path, [])
    watched = replace(ask, watch=lambda done, planned, verdict: told.append((done, planned, len(verdict.values))))
    watched(BARELY, "hirescam", measure=constant, column="value", show=nothing, version="1")

    assert told == [(6, 20, 0), (12, 20, 0), (16, 20, 0), (16, 20, 16), (20, 20, 16), (20, 20, 20)]
