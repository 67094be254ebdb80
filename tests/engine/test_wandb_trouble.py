"""W&B's server and helper process may be silent or die: a run waits seconds at its start, and never dies of it."""

import http.server
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from kdx.engine.record import wandb_view
from kdx.engine.record.wandb_view import WandbView, silence


@pytest.fixture
def deaf():
    """The address of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_says_nothing_is_left_within_seconds(deaf, monkeypatch):
    monkeypatch.setattr(wandb_view, "SECONDS", 0.3)
    waits = list[float | None]()

    def opened(*given, timeout=None, **named):
        waits.append(timeout)
        return urlopen(*given, timeout=timeout, **named)

    urlopen = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", opened)
    assert deaf in silence(deaf)  # without a limit it would hang
    assert waits == [0.3]


def test_a_server_that_is_not_there_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert address in silence(address)
    assert silence("no address") != ""


def test_a_server_that_answers_anything_is_there():
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert silence(f"http://127.0.0.1:{server.server_port}") == ""


def test_the_first_error_of_wandb_ends_the_view_and_not_the_run(capsys):
    calls = []

    class Dying:
        def log(self, values, step):
            calls.append(step)
            raise BrokenPipeError(32, "Connection lost")

        def finish(self, exit_code):
            calls.append("finish")

    view = object.__new__(WandbView)
    view._run, view._lost, view._folder = Dying(), False, Path("runs/a")  # pyright: ignore[reportAttributeAccessIssue]
    for step in (1, 2, 3):
        view.log({"step": step, "train/loss": 0.5, "test/top1": None})
    view.close(None)
    assert calls == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "kdx: W&B stopped (Connection lost); the run goes on, and runs/a/metrics.jsonl has every line"
