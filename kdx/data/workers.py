"""How many processes decode files."""

import os

from kdx.core.distributed import local_size

MOST = 8  # beyond this the process that trains is the slower one


def worker_count(wanted: int | None) -> int:
    """As many as wanted; where that is left to the machine, its spare cores.

    These are the cores that this process may use, in equal parts for the processes that train a run here, but one for
    each to train with; no more than 8.
    """
    if wanted is not None:
        return wanted
    return min(MOST, max(0, _cores() // local_size() - 1))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
