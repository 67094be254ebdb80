"""Lines that a user should read before training."""

import sys
from collections.abc import Iterable

from kdx.core.distributed import is_leader

_told: set[str] = set()


def tell(lines: Iterable[str]) -> None:
    """Print each line to standard error, once in this process: the runs of a sweep share most of them."""
    for line in lines:
        if line not in _told and is_leader():
            print(f"kdx: {line}", file=sys.stderr)
        _told.add(line)
