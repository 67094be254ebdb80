"""Number of worker processes: the requested one, or the machine's spare cores."""

import pytest

from kdx.data import workers
from kdx.data.workers import worker_count


@pytest.mark.parametrize(("cores", "spare"), [(1, 0), (2, 1), (6, 5), (9, 8), (64, 8)])
def test_every_core_but_the_one_that_trains_and_eight_at_most(monkeypatch, cores: int, spare: int):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert worker_count(None) == spare
    assert [worker_count(n) for n in (0, 3, 20)] == [0, 3, 20]
    monkeypatch.delattr(workers.os, "sched_getaffinity")
    monkeypatch.setattr(workers.os, "cpu_count", lambda: cores)
    assert worker_count(None) == spare


def test_processes_that_train_one_run_share_the_cores(monkeypatch):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert worker_count(None) == 3
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert worker_count(None) == 1


def test_sets_in_memory_take_none():
    from test_loaders import SPLITS

    from kdx.data.loaders import EvalLoader

    assert EvalLoader(SPLITS.test, SPLITS.spec, 16, 4, True)._num_workers == 0
    assert EvalLoader(SPLITS.test, SPLITS.spec, 16, None, True)._num_workers == 0
