"""Calls that one of several processes makes for all, or before the others."""

from collections.abc import Callable
from typing import TypeVar

from kdx.core.distributed import from_leader, is_leader, world_size

T = TypeVar("T")


def run_on_leader(make: Callable[[], T]) -> T:
    """Call `make` in the leader and return its result in all processes; all processes raise its error.

    Args:
        make: A function whose result can be pickled.
    """
    if world_size() == 1:
        return make()
    made, failed = None, None
    if is_leader():
        try:
            made = make()
        except Exception as error:
            failed = error
    return from_leader(made, failed)


def leader_first(make: Callable[[], T]) -> T:
    """Call `make` in the leader, then in the other processes, so that one downloads a file and the others read it.

    Args:
        make: A function that each process calls.

    Returns:
        This process's own result.
    """
    if world_size() == 1:
        return make()
    made: list[T] = []
    run_on_leader(lambda: made.append(make()))
    return made[0] if made else make()
