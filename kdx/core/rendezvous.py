"""Agreement of processes on a part of a store that no earlier attempt has used.

`torchrun --max-restarts` keeps one store for all attempts and its `env://` reads the addresses of processes that an
earlier attempt left there. The count of restarts cannot tell attempts apart: agents of several machines count apart.
"""

import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

PAUSE = 0.02  # seconds between two looks of rank 0
PATIENCE = 300.0  # seconds that rank 0 waits for the others, as long as torch's store does
PREFIX = "kdx"


def agreed(store: "Store", rank: int, size: int) -> str:
    """A name that the living processes share and that no earlier attempt had.

    Each process says hello with a word of its own. Rank 0 answers every word with its own one, until as many processes
    as it needs confirm; words of processes that are gone are answered too, and nobody confirms those.

    Args:
        store: Of all processes and all attempts.
        rank: Of this process.
        size: Number of processes.

    Raises:
        RuntimeError: Another process does not come in time.

    Example:
        >>> from torch.distributed import HashStore
        >>> len(agreed(HashStore(), rank=0, size=1))
        32
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"{PREFIX}/hello/{rank}", own)
        name = store.get(f"{PREFIX}/answer/{own}").decode()  # waits
        store.add(f"{PREFIX}/confirmed/{name}", 1)
        return name
    answered: set[str] = set()
    ends = time.monotonic() + PATIENCE
    while store.add(f"{PREFIX}/confirmed/{own}", 0) < size - 1:
        for other in range(1, size):
            hello = f"{PREFIX}/hello/{other}"
            if store.check([hello]) and (word := store.get(hello).decode()) not in answered:
                store.set(f"{PREFIX}/answer/{word}", own)
                answered.add(word)
        if time.monotonic() > ends:
            raise RuntimeError(f"of {size} processes some did not come within {PATIENCE:.0f} s")
        time.sleep(PAUSE)
    return own
