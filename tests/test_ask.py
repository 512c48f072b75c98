"""How a question is put, and what is journalled, known again by a resumed run, and measured anew."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audits import test_deletion as deletion
from audits import test_wall as wall
from audits.waivers import Waived, Waiver
from camcore.layers import with_target_layer
from camcore.subject import Normalise
from camcore.verdict import Outcome, Verdict
from camcore.wall import build_wall
from fixtures.controls import find_control
from fixtures.datasets.scenes import scenes
from fixtures.subjects.weights import weights_sha256
from tests.questions import BARELY, asking, constant, nothing, put, state_of, tiny


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


# whatever the numbers depend on must be part of the key under which they are kept
@pytest.mark.parametrize(
    "changed",
    [
        {"spec": "py:other.py:build"},
        {"sha256": "1"},
        {"preprocess": Normalise()},
        {"target_layer": "conv1"},
        {"settings": "a config"},
    ],
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


def test_progress_is_told_how_many_images_of_how_many_and_what_is_known_so_far(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    ask = asking(tiny(), tmp_path, [])
    watched = replace(ask, watch=lambda done, planned, verdict: told.append((done, planned, len(verdict.values))))
    watched(BARELY, "hirescam", measure=constant, column="value", show=nothing, version="1")

    assert told == [(6, 20, 0), (12, 20, 0), (16, 20, 0), (16, 20, 16), (20, 20, 16), (20, 20, 20)]
