"""W&B shows what the record says, asks for nothing and says nothing."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from traces import logged

from kdx.config.identity import identity
from kdx.runs.run import name, run


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """Somebody without an account, without a network, who has set nothing."""
    for key in [k for k in os.environ if k.startswith("WANDB")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for key in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")
    (tmp_path / "home").mkdir()


def recorded(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if v is not None} for line in lines]


def test_the_view_is_the_record_and_silent(stranger, tiny, capfd):
    config = tiny("logger=wandb", "trainer.log_steps=1", "method=supervised")
    result = run(config)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""
    assert logged(result.folder) == recorded(result.folder) and len(recorded(result.folder)) == 8


def test_after_a_failure_every_line_is_there_once(stranger, tiny, monkeypatch, capfd):
    from kdx.engine.checkpoint import Checkpoints

    config = tiny("logger=wandb", "method=supervised", "trainer.checkpoint_seconds=0")
    other = tiny("logger=wandb", "method=supervised", "seed=1")
    save, saved = Checkpoints.save, []

    def fails(self, state):
        saved.append(state["step"])
        if state["step"] == 6:  # after the line of step 6, whose checkpoint is then missing
            raise OSError("the disk went away")
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", fails)
        with pytest.raises(OSError):
            run(config)
    folder = Path(config.paths.runs) / name(config)
    assert [line["step"] for line in recorded(folder)] == [3, 5, 6]
    # the next run of a sweep, in the same process, has a view of its own
    mine = run(other).folder
    assert logged(mine) == recorded(mine)
    assert run(config).folder == folder
    assert logged(folder) == recorded(folder)
    assert [line["step"] for line in recorded(folder)] == [3, 5, 6, 8]
    assert capfd.readouterr().out == ""


def test_online_a_run_that_starts_over_is_a_new_one_and_a_resumed_one_is_not(stranger, tiny, monkeypatch):
    import wandb

    begun: list[tuple[str, str]] = []

    class Shown:
        resumed = False
        summary: dict = {}

        def log(self, values, step): ...

        def finish(self, exit_code): ...

    def init(**given):
        begun.append((given["id"], given["resume"]))
        return Shown()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("kdx.engine.record.wandb_view.silence", lambda url: "")
    config = tiny("logger=wandb", "logger.mode=online", "method=supervised", "trainer.checkpoint_seconds=0")
    with monkeypatch.context() as patch:
        patch.setattr("kdx.runs.run.export_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config)
    run(config)
    run(replace(config, fresh=True))
    first, again, fresh = begun
    assert first == again and first[1] == fresh[1] == "allow"
    assert fresh[0] != first[0] and all(i.startswith(f"{identity(config)}-") for i, _ in begun)
