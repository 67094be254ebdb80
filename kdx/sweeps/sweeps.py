"""Parts of a multirun: ready-made axes, checks of plugins, and failures reported by other processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from kdx.config.compose import ConfigError
from kdx.config.layout import config_file, options
from kdx.core.errors import did_you_mean, shown
from kdx.core.notice import say

PLUGINS = {
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "hydra/launcher=submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "hydra/launcher=submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "hydra/sweeper=optuna": "optuna",
}
RECORD = "jobs.txt"
WORDS = ("began", "ended", "failed")
_told: list[int] = []


def expand(overrides: Sequence[str]) -> tuple[list[str], bool]:
    """Replace `sweep=NAME` by the axes of `configs/sweep/NAME.yaml`, and return whether there was one.

    An override replaces the ready-made axis of the same key; `sweep=A,B` crosses the axes of both.

    Raises:
        ConfigError: The sweep does not exist.
    """
    names = [name for o in overrides if o.startswith("sweep=") for name in o.split("=", 1)[1].split(",")]
    rest = [o for o in overrides if not o.startswith("sweep=")]
    given = {o.split("=", 1)[0].lstrip("+") for o in rest}
    for name in names:
        if name not in options("sweep"):
            raise ConfigError([f"unknown sweep '{shown(name)}'{did_you_mean(name, options('sweep'))}"])
        axes = yaml.safe_load(config_file("sweep", name).read_text())
        rest += [f"{key}={values}" for key, values in axes.items() if key not in given]
        given |= axes.keys()
    return rest, bool(names)


def missing_plugins(overrides: Sequence[str]) -> list[str]:
    """A line for each chosen launcher or sweeper that is not installed."""
    return [
        f"{override} needs an extra that is not installed: pip install 'kdx[sweeps]'"
        for override in overrides
        if override in PLUGINS and not _installed(PLUGINS[override])
    ]


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package
        return False


def note_failure(code: int) -> None:
    """Record that a run of this sweep failed, in a file that the process which started the sweep reads."""
    _note(f"failed {code}")


@contextmanager
def noted() -> Iterator[None]:
    """Record that a job of this sweep begins and, unless its process ends within the block, that it has ended."""
    number = HydraConfig.get().job.num
    _note(f"began {number}")
    yield
    _note(f"ended {number}")


def _note(line: str) -> None:
    folder = Path(HydraConfig.get().sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / RECORD, "a") as file:  # one short write: appends of several processes do not mix
        file.write(f"{line}\n")


def failures() -> list[int]:
    """Exit codes of the failed runs of the last sweep; 1 for a run that has not ended."""
    return list(_told)


class Failures(Callback):
    """Collects the records of `note_failure` and `noted` for any launcher.

    A job that a cluster requeues begins again, so that only its number counts.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _told.clear()
        (Path(config.hydra.sweep.dir) / RECORD).unlink(missing_ok=True)  # of a command that was killed

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        record = Path(config.hydra.sweep.dir) / RECORD
        if not record.exists():
            return
        lines = [line.split() for line in record.read_text().splitlines()]
        record.unlink()
        numbers = {word: [int(number) for found, number in lines if found == word] for word in WORDS}
        _told.extend(numbers["failed"])
        for number in sorted(set(numbers["began"]) - set(numbers["ended"])):
            say(f"job {number} of the sweep has not ended; the same command continues it")
            _told.append(1)
