"""Processes agree on a part of a store, whatever earlier attempts left there."""

import threading

import pytest
from torch.distributed import HashStore

from kdx.core import rendezvous
from kdx.core.rendezvous import agreed


def attempt(store: HashStore, order: list[int], size: int) -> list[str]:
    """The name that each rank of `order` finds; they start in this order."""
    found: dict[int, str] = {}
    threads = [threading.Thread(target=lambda r=r: found.update({r: agreed(store, r, size)})) for r in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in order]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_all_processes_of_an_attempt_agree_and_attempts_differ(size: int):
    store, names = HashStore(), set[str]()
    ranks = list(range(size))
    for order in (ranks, ranks[::-1], ranks[1:] + ranks[:1], ranks):
        found = attempt(store, order, size)
        assert len(set(found)) == 1
        names |= set(found)
    assert len(names) == 4


def test_a_process_that_died_before_all_had_come_is_not_counted():
    store = HashStore()
    store.set("kdx/hello/1", "of a process that is gone")
    store.set("kdx/hello/2", "of another")
    assert len(set(attempt(store, [0, 1, 2], 3))) == 1


def test_an_earlier_rank_0_that_died_before_it_answered_leaves_nothing_behind(monkeypatch):
    store = HashStore()
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.1)
    with pytest.raises(RuntimeError, match="of 2 processes some did not come within 0 s"):
        agreed(store, 0, 2)
    monkeypatch.undo()
    assert len(set(attempt(store, [0, 1], 2))) == 1


def test_one_process_agrees_with_itself():
    store = HashStore()
    assert agreed(store, 0, 1) != agreed(store, 0, 1)
