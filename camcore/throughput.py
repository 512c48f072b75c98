"""How many images per forward a model takes fastest: measured, since a wrong guess costs twofold."""

import time
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camcore.subject import Classifier

_measured: WeakKeyDictionary[nn.Module, dict[str, int]] = WeakKeyDictionary()


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
    sizes = _measured.setdefault(subject.module, {})
    key = f"{subject.device} {subject.geometry.crop} {dtype}"
    if key not in sizes:
        sizes[key] = fastest_batch_size(subject, dtype=dtype)
    return sizes[key]


@torch.no_grad()
def _images_per_second(subject: Classifier, images: Tensor) -> float:
    started = time.perf_counter()
    subject.logits(images).sum().item()  # item waits for the device
    return len(images) / (time.perf_counter() - started)


def is_out_of_memory(problem: RuntimeError) -> bool:
    """Whether a device, or the CPU's allocator, ran out of memory."""
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
