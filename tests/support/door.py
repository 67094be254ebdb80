"""Runs a command of kdx in this process, for tests of the command line."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

# a pair of networks, a made-up teacher and 20 images: a run of two steps takes a fraction of a second
SMALL = (
    "dataset=synthetic",
    "dataset.input_shape=[1,8,8]",
    "dataset.num_classes=4",
    "dataset.mean=[0.5]",
    "dataset.std=[0.25]",
    "dataset.train_size=20",
    "dataset.test_size=8",
    "dataset.train_subset=8",
    "student=mlp_30",
    "student.net.hidden=[6,6]",
    "teacher=mlp_30",
    "teacher.net.hidden=[8,8]",
    "trainer.batch_size=10",
    "trainer.threads=1",
    "debug=fast",
)


@dataclass(frozen=True)
class Said:
    """The exit status of a command, its standard output, and the lines of its standard error."""

    code: int
    out: str
    err: list[str]


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Said:
    """Run `kdx` with these arguments."""
    from kdx.cli import main

    GlobalHydra.instance().clear()
    capsys.readouterr()
    code = 0
    root = logging.getLogger()
    logging_before = root.handlers[:], root.level
    try:
        main(list(arguments))
    except SystemExit as end:
        assert isinstance(end.code, int), end.code
        code = end.code
    finally:
        GlobalHydra.instance().clear()
        root.handlers[:], root.level = logging_before  # --info turns messages on
    said = capsys.readouterr()
    return Said(code, said.out, said.err.splitlines())


def folders(path: Path, kind: str = "runs") -> list[Path]:
    """Directories of runs below a place."""
    return sorted(p for p in (path / "outputs" / kind).glob("*") if p.is_dir())
