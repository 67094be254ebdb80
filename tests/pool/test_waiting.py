"""Runs that another process trains at the same time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from conftest import CLASSES, STUDENT, TINY

from kdx.config.compose import compose
from kdx.config.schema import RunConfig
from kdx.pool.pool import run_all
from kdx.runs.export import folder_of
from kdx.runs.folder import ERROR
from kdx.runs.lock import LockedError
from kdx.runs.prepare import prepare


def test_a_run_that_fails_in_another_process_is_not_tried_again(tmp_path: Path, monkeypatch):
    config = prepare(compose([*CLASSES, *TINY, *STUDENT, f"paths.outputs={tmp_path}", "logger=none"]))
    tried = []

    def busy(configs: Sequence[RunConfig]) -> Iterator[tuple[int, Exception]]:
        """The other process holds the lock of the teacher's run, which fails while this process waits."""
        tried.append(len(configs))
        folder = folder_of(configs[0])
        folder.mkdir(parents=True)
        (folder / ERROR).write_text("Traceback (most recent call last):\nkdx.UserError: rejected: at chance\n")
        yield 0, LockedError("another process is training")

    monkeypatch.setattr("kdx.pool.pool.run_together", busy)
    monkeypatch.setattr("kdx.pool.pool.PAUSE", 0.0)
    found, failures = run_all({"a": config}, 1, None, 1)
    assert tried == [1] and not found
    assert [(one.label, one.error) for one in failures] == [("a", "its teacher failed: rejected: at chance")]
