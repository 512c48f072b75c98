"""How many images per forward, in which memory format, a model takes fastest: measured, for a guess costs twofold."""

import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camcore.subject import Classifier

_measured: WeakKeyDictionary[nn.Module, dict[str, tuple[int, torch.memory_format]]] = WeakKeyDictionary()


def fastest_batch_size(subject: Classifier, *, largest: int = 64, dtype: torch.dtype = torch.float32) -> int:
    """The batch size with the most images per second, by timing forwards of blank images, doubling while it pays.

    Stops after a few seconds, so that a slow device is not kept busy with finding out how slow it is.

    On a CPU small batches are often faster (large blocks of memory are mapped anew at every call), on a GPU large ones.
    """
    return _fastest(subject, (torch.contiguous_format,), largest=largest, dtype=dtype)[0]


def _fastest(
    subject: Classifier, formats: Sequence[torch.memory_format], *, largest: int = 64, dtype: torch.dtype
) -> tuple[int, torch.memory_format]:
    """Batch size and memory format together: the best size of one format need not be the other's."""
    best, best_rate, size = (1, formats[0]), 0.0, 1
    deadline = time.monotonic() + 3 * len(formats)
    while size <= largest and time.monotonic() < deadline:
        blank = torch.zeros(size, 3, *subject.geometry.crop, device=subject.device, dtype=dtype)
        try:
            for form in formats:
                images = blank.contiguous(memory_format=form)
                rate = max(_images_per_second(subject, images) for _ in range(2))
                if rate > best_rate * 1.05:
                    best, best_rate = (size, form), rate
        except RuntimeError as problem:
            if is_out_of_memory(problem):
                break
            raise
        if size >= 4 * best[0]:
            break
        size *= 2
    return best


def known_batch_size(subject: Classifier, dtype: torch.dtype = torch.float32) -> int:
    """`fastest_batch_size`, measured once for each module, device, image size and type of number."""
    return _known(subject, dtype)[0]


def known_memory_format(subject: Classifier, dtype: torch.dtype = torch.float32) -> torch.memory_format:
    """The faster one of channels first and channels last, if it was measured: with the batch size, and never else.

    A forward differs by rounding from one format to the other, so whoever names a batch size gets the same bits again.
    """
    known = _measured.get(subject.module, {}).get(_key(subject, dtype))
    return torch.contiguous_format if known is None else known[1]


def _known(subject: Classifier, dtype: torch.dtype) -> tuple[int, torch.memory_format]:
    known, key = _measured.setdefault(subject.module, {}), _key(subject, dtype)
    if key not in known:
        # channels last is faster for most convolutional networks on a CPU, for hardly a ViT
        known[key] = _fastest(subject, (torch.contiguous_format, torch.channels_last), dtype=dtype)
    return known[key]


def _key(subject: Classifier, dtype: torch.dtype) -> str:
    return f"{subject.device} {subject.geometry.crop} {dtype}"


@torch.no_grad()
def _images_per_second(subject: Classifier, images: Tensor) -> float:
    started = time.perf_counter()
    subject.logits(images).sum().item()  # item waits for the device
    return len(images) / (time.perf_counter() - started)


def is_out_of_memory(problem: RuntimeError) -> bool:
    """Whether a device, or the CPU's allocator, ran out of memory."""
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
