"""What the engine makes of trouble: a measure that raises, images that cannot be read or give nothing to judge."""

from collections.abc import Mapping
from dataclasses import replace
from math import isnan, nan

import pytest
import torch
from torch import Tensor

from camcore.degeneracy import Degeneracy
from camcore.engine import Row, evaluate
from camcore.images import Batch
from camcore.recording import ZeroGradient
from camcore.subject import Classifier
from camcore.verdict import Evidence, Outcome
from tests.measures import CLAIM, TERMS, brightness, constant, put
from tests.tiny import GapNet, numbered_dataset, tiny_subject


@pytest.fixture
def subject() -> Classifier:
    return tiny_subject(GapNet(), "relu", size=2)


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


@pytest.mark.parametrize("side", [-1, 1])
def test_of_a_claim_with_two_sides_the_worst_case_is_on_the_side_of_the_rest(subject: Classifier, side: int) -> None:
    def mostly(_subject: Classifier, batch: Batch) -> dict[str, Tensor]:
        return {"value": torch.tensor([nan if int(one[3:]) % 25 == 0 else side * 0.28 for one in batch.ids])}

    claim = replace(CLAIM, direction="within", margin=0.25, bounds=(-1.0, 1.0))
    verdict = put(subject, mostly, claim=claim, n=2000, terms=replace(TERMS, budget=2000))

    assert verdict.outcome is Outcome.FAIL


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
