"""How many images per forward, in which memory format, a model takes fastest: measured, for a guess costs twofold."""

import time
from statistics import median
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
    best, best_rate, size = 1, 0.0, 1
    deadline = time.monotonic() + 3
    while size <= largest and time.monotonic() < deadline:
        images = torch.zeros(size, 3, *subject.geometry.crop, device=subject.device, dtype=dtype)
        try:
            rate = max(_images_per_second(subject, images) for _ in range(2))
        except RuntimeError as problem:
            if is_out_of_memory(problem):
                break
            raise
        if rate > best_rate * 1.05:
            best, best_rate = size, rate
        elif size >= 4 * best:
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
        size = fastest_batch_size(subject, dtype=dtype)
        known[key] = (size, _fastest_memory_format(subject, size, dtype))
    return known[key]


def _key(subject: Classifier, dtype: torch.dtype) -> str:
    return f"{subject.device} {subject.geometry.crop} {dtype}"


def _fastest_memory_format(subject: Classifier, size: int, dtype: torch.dtype) -> torch.memory_format:
    """Channels last where it is at least 5 % faster: for most convolutional networks on a CPU, for hardly a ViT."""
    images = torch.zeros(size, 3, *subject.geometry.crop, device=subject.device, dtype=dtype)
    last = images.contiguous(memory_format=torch.channels_last)
    pairs = [(_images_per_second(subject, images), _images_per_second(subject, last)) for _ in range(3)]
    faster = median(second / first for first, second in pairs) > 1.05
    return torch.channels_last if faster else torch.contiguous_format


@torch.no_grad()
def _images_per_second(subject: Classifier, images: Tensor) -> float:
    started = time.perf_counter()
    subject.logits(images).sum().item()  # item waits for the device
    return len(images) / (time.perf_counter() - started)


def is_out_of_memory(problem: RuntimeError) -> bool:
    """Whether a device, or the CPU's allocator, ran out of memory."""
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
