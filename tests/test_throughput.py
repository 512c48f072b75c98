import gc

import pytest
import torch
from torch import Tensor

from camcore import throughput
from camcore.ask import score_of, scores
from camcore.hooks import hooked
from camcore.recording import record
from camcore.throughput import fastest_batch_size, is_out_of_memory, known_batch_size, known_memory_format
from tests.tiny import GapNet, some_images, tiny_subject


def test_the_batch_size_that_is_found_lies_between_one_and_the_largest() -> None:
    assert 1 <= fastest_batch_size(tiny_subject(GapNet(), "relu"), largest=4) <= 4


def test_a_device_that_runs_out_of_memory_gets_the_size_that_still_fitted() -> None:
    class Small(GapNet):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 2:
                raise torch.OutOfMemoryError("pretended")
            return super().forward(images)

    assert fastest_batch_size(tiny_subject(Small(), "relu")) <= 2


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    class Broken(GapNet):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("the forward broke")

    with pytest.raises(RuntimeError, match="the forward broke"):
        fastest_batch_size(tiny_subject(Broken()))
    assert not is_out_of_memory(RuntimeError("the forward broke"))


def test_a_model_is_timed_once_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.dtype] = []

    def pretend(_subject: object, _formats: object, *, dtype: torch.dtype) -> tuple[int, torch.memory_format]:
        asked.append(dtype)
        return 7, torch.channels_last

    monkeypatch.setattr(throughput, "_fastest", pretend)
    subject = tiny_subject(GapNet(), "relu")
    held = len(throughput._measured)
    assert [known_batch_size(subject), known_batch_size(subject)] == [7, 7]
    assert known_batch_size(subject, torch.float64) == 7
    assert asked == [torch.float32, torch.float64]
    assert known_memory_format(subject) is torch.channels_last
    del subject
    gc.collect()
    assert len(throughput._measured) == held


@pytest.mark.parametrize(("speed_up", "chosen"), [(1.2, torch.channels_last), (1.02, torch.contiguous_format)])
def test_channels_last_is_chosen_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, speed_up: float, chosen: torch.memory_format
) -> None:
    def pretend(_subject: object, images: Tensor) -> float:
        return 100 * (speed_up if images.is_contiguous(memory_format=torch.channels_last) else 1)

    monkeypatch.setattr(throughput, "_images_per_second", pretend)
    subject = tiny_subject(GapNet(), "relu")
    assert known_batch_size(subject) == 1  # twice as many in twice the time
    assert known_memory_format(subject) is chosen


def test_the_best_size_is_the_one_of_the_best_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(_subject: object, images: Tensor) -> float:
        last = images.is_contiguous(memory_format=torch.channels_last)
        return {(1, False): 100, (2, False): 120, (1, True): 90, (2, True): 110, (4, True): 150}.get(
            (len(images), last), 80
        )

    monkeypatch.setattr(throughput, "_images_per_second", pretend)
    subject = tiny_subject(GapNet(), "relu")
    assert (known_batch_size(subject), known_memory_format(subject)) == (4, torch.channels_last)
    assert fastest_batch_size(subject) == 2


def test_a_format_that_was_not_measured_is_the_usual_one() -> None:
    assert known_memory_format(tiny_subject(GapNet(), "relu")) is torch.contiguous_format


@pytest.mark.parametrize("chunk", [None, 4])
def test_the_model_is_asked_in_the_format_that_was_measured_and_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, chunk: int | None
) -> None:
    monkeypatch.setattr(throughput, "_fastest", lambda *_given, dtype: (2, torch.channels_last))
    subject = tiny_subject(GapNet(), "relu")
    rec = record(subject, some_images(3), chunk=chunk)
    seen: list[bool] = []
    with hooked(subject.module, {"": lambda _m, args, _o: seen.append(args[0].stride(1) == 1)}):
        found = scores(rec, rec.images, torch.arange(3))
    assert seen[-1] is (chunk is None)  # whoever names a batch size gets the usual format
    torch.testing.assert_close(found, score_of(rec, rec.logits, torch.arange(3)))
