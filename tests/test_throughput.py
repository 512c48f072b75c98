import gc

import pytest
import torch
from torch import Tensor

from camcore import throughput
from camcore.throughput import fastest_batch_size, is_out_of_memory, known_batch_size
from tests.tiny import GapNet, tiny_subject


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

    def pretend(_subject: object, *, dtype: torch.dtype) -> int:
        asked.append(dtype)
        return 7

    monkeypatch.setattr(throughput, "fastest_batch_size", pretend)
    subject = tiny_subject(GapNet(), "relu")
    held = len(throughput._measured)
    assert [known_batch_size(subject), known_batch_size(subject)] == [7, 7]
    assert known_batch_size(subject, torch.float64) == 7
    assert asked == [torch.float32, torch.float64]
    del subject
    gc.collect()
    assert len(throughput._measured) == held
