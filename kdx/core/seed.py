"""Named random streams: each purpose has its own, so that one more draw in one does not change another."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class Stream(Protocol):
    """A global random stream of another library, such as NumPy's (`kdx.data.numpy_stream`)."""

    def seed(self, seed: int) -> None: ...

    def get_state(self) -> Any:
        """The state, as tensors and plain values."""
        ...

    def set_state(self, state: Any) -> None: ...


_streams: dict[str, Stream] = {}


def register_stream(name: str, stream: Stream) -> None:
    """Seed, save and restore a further stream together with those of Python and torch.

    Args:
        name: Its key in `get_rng_state`. A second stream of this name replaces the first.
        stream: The stream.

    Example:
        >>> class Constant:
        ...     def seed(self, seed): self.value = seed
        ...     def get_state(self): return self.value
        ...     def set_state(self, state): self.value = state
        >>> before = dict(_streams)
        >>> register_stream("constant", Constant())
        >>> seed_all(7)
        >>> get_rng_state()["constant"]
        7
        >>> _streams.clear(); _streams.update(before)
    """
    _streams[name] = stream


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
    """Seed the global streams of Python, of torch on every device, and the registered ones.

    Example:
        >>> seed_all(0)
        >>> first = torch.rand(3)
        >>> seed_all(0)
        >>> torch.equal(torch.rand(3), first)
        True
    """
    random.seed(seed)
    torch.manual_seed(seed)
    for stream in _streams.values():
        stream.seed(seed)


def get_rng_state() -> dict[str, Any]:
    """The state of the global streams, as tensors and plain values (safe for `weights_only` loading).

    Example:
        >>> {"cuda", "python", "torch"} <= get_rng_state().keys()
        True
    """
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        **{name: stream.get_state() for name, stream in _streams.items()},
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore a state from `get_rng_state`. Raises KeyError if it lacks a registered stream.

    Example:
        >>> state = get_rng_state()
        >>> first = torch.rand(3)
        >>> set_rng_state(state)
        >>> torch.equal(torch.rand(3), first)
        True
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    for name, stream in _streams.items():
        stream.set_state(state[name])
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
