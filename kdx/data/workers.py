"""Number of worker processes that decode files."""

import os

from kdx.core.distributed import local_world_size

MOST = 8  # with more workers, the training process is the bottleneck


def worker_count(wanted: int | None) -> int:
    """Number of worker processes: `wanted`, or the spare cores if it is None.

    The spare cores are those this process may use, divided by the run's processes on this machine, minus one for
    training; at most 8.
    """
    if wanted is not None:
        return wanted
    return min(MOST, max(0, _cores() // local_world_size() - 1))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # missing on some systems
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
