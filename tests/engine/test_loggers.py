"""A logger that starts at its first line."""

import random

from kdx.engine.record.loggers import Deferred


class Seen:
    def __init__(self):
        random.random()  # as a library may do
        self.lines, self.summary = [], None

    def log(self, line):
        self.lines.append(line)

    def close(self, summary):
        self.summary = summary


def test_opens_once_with_the_first_line_and_takes_no_random_number():
    opened = []

    def open_view() -> Seen:
        opened.append(Seen())
        return opened[-1]

    view = Deferred(open_view)
    assert not opened
    random.seed(0)
    expected = random.Random(0).random()
    view.log({"step": 1})
    view.log({"step": 2})
    view.close({"top1": 0.5})
    (seen,) = opened
    assert seen.lines == [{"step": 1}, {"step": 2}] and seen.summary == {"top1": 0.5}
    assert random.random() == expected


def test_a_run_without_a_line_is_shown_at_its_end():
    opened = []
    view = Deferred(lambda: opened.append(Seen()) or opened[-1])
    view.close(None)
    assert len(opened) == 1
