"""The metrics log and the views that receive its lines."""

import json

import pytest

from kdx.core.errors import UserError
from kdx.engine.record.log import Log


class Listener:
    def __init__(self):
        self.lines, self.summaries = [], []

    def log(self, line):
        self.lines.append(dict(line))

    def close(self, summary):
        self.summaries.append(summary)


def test_each_line_is_on_disk_once_written(tmp_path):
    log = Log(tmp_path / "runs" / "metrics.jsonl", 0)
    log.write({"step": 1, "train/loss": 0.5})
    assert json.loads(log.path.read_text()) == {"step": 1, "train/loss": 0.5}
    assert log.position == log.path.stat().st_size
    log.write({"step": 2, "train/loss": float("nan"), "x": float("inf")})
    assert log.lines()[1] == {"step": 2, "train/loss": None, "x": None}
    log.close(None)


def test_lines_after_the_last_checkpoint_are_cut_off(tmp_path):
    log = Log(tmp_path / "metrics.jsonl", 0)
    log.write({"step": 1})
    kept = log.position
    log.write({"step": 2})
    log.path.open("ab").write(b'{"step": 3, "ha')  # as if killed in the middle of a line
    log.close(None)
    resumed = Log(tmp_path / "metrics.jsonl", kept)
    assert resumed.lines() == [{"step": 1}]
    resumed.write({"step": 2, "again": 1})
    assert resumed.lines() == [{"step": 1}, {"step": 2, "again": 1}]


def test_a_record_shorter_than_its_checkpoint_says(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="metrics.jsonl is shorter .*; fresh=true"):
        Log(tmp_path / "metrics.jsonl", 400)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_views_get_what_is_recorded(tmp_path):
    log, view = Log(tmp_path / "metrics.jsonl", 0), Listener()
    log.add_view(view)
    log.write({"step": 1, "loss": 2.0})
    log.write({"step": 2, "loss": float("nan")})
    log.close({"test/top1": 0.5})
    assert view.lines == log.lines() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}]
    assert view.summaries == [{"test/top1": 0.5}]


def test_no_record_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log, view = Log(None, 0), Listener()
    log.add_view(view)
    log.write({"step": 1})
    assert view.lines == [{"step": 1}] and log.lines() == [] and log.position == 0
    log.close(None)
    assert not list(tmp_path.iterdir())


def test_a_stretch_without_a_record_costs_none_of_what_was_recorded(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = Log(path, 0)
    first.write({"step": 1})
    reached = first.position
    first.close(None)
    silent = Log(None, reached)
    silent.write({"step": 2})
    last = Log(path, silent.position)
    last.write({"step": 3})
    last.close(None)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]
