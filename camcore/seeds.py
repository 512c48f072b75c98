"""Every random draw has a generator of its own, derived from names: nothing depends on order, batch size or workers."""

import hashlib

import torch


def derive(seed: int, *names: str) -> int:
    """A 63-bit seed that depends on `seed` and on every name, in order; the same on every machine."""
    digest = hashlib.sha256("\x1f".join((str(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str) -> torch.Generator:
    """A CPU generator seeded by `derive`: draws are made on the CPU and moved, so that a GPU sees the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *names))
