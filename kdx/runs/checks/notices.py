"""Notices before training, from the leader of several processes."""

from collections.abc import Iterable

from kdx.core.distributed import is_leader
from kdx.core.notice import notice


def notices(lines: Iterable[str]) -> None:
    """Print each line to standard error, once in this process: the runs of a sweep share most of them."""
    for line in lines:
        if is_leader():
            notice(line)
