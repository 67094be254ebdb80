"""Named random streams: each purpose has its own, so that one more draw in one does not change another."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for a purpose, the same on every platform: `derive(0, "augment", epoch)`.

    Example:
        >>> derive(0, "augment", 1) == derive(0, "augment", 1), derive(0, "augment", 1) == derive(0, "augment", 2)
        (True, False)
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for a purpose.

    Example:
        >>> first, second = (torch.rand(3, generator=generator(0, "noise")) for _ in range(2))
        >>> torch.equal(first, second)
        True
    """
    return torch.Generator().manual_seed(derive(seed, *names))


def seed_all(seed: int) -> None:
    """Seed the global streams of Python, NumPy and torch on every device.

    Example:
        >>> seed_all(0)
        >>> first = torch.rand(3)
        >>> seed_all(0)
        >>> torch.equal(torch.rand(3), first)
        True
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def get_rng_state() -> dict[str, Any]:
    """The state of the global streams, as tensors and plain values (safe for `weights_only` loading).

    Example:
        >>> sorted(get_rng_state())
        ['cuda', 'numpy', 'python', 'torch']
    """
    kind, keys, pos, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).copy()), int(pos), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore a state from `get_rng_state`.

    Example:
        >>> state = get_rng_state()
        >>> first = torch.rand(3)
        >>> set_rng_state(state)
        >>> torch.equal(torch.rand(3), first)
        True
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, pos, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy(), pos, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Run a block under the streams of a purpose, then restore the global ones.

    Example:
        >>> with seeded(0, "weights"):
        ...     first = torch.rand(3)
        >>> with seeded(0, "weights"):
        ...     print(torch.equal(torch.rand(3), first))
        True
    """
    before = get_rng_state()
    seed_all(derive(seed, *names))
    try:
        yield
    finally:
        set_rng_state(before)
