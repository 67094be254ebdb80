"""The training entry: `kdx train`, or `python -m kdx.train`.

Hydra composes and sweeps; this module checks the composed config and runs it.
"""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig

from kdx.commands.check import check, exit_with
from kdx.config.compose import Composed, ConfigError, plain, points
from kdx.config.layout import config_dir, register_networks, take_config_dirs
from kdx.core.distributed import destroy_process_group, fails_first, init_process_group, is_leader, world_size
from kdx.core.errors import LONGEST, StoppedError, UserError, printable, reason, shown
from kdx.core.notice import say
from kdx.runs import signals
from kdx.sweeps.launcher import FusedLauncher, ReportedError, as_launched
from kdx.sweeps.search import Search
from kdx.sweeps.sweeps import expand, failures, note_failure, noted
from kdx.sweeps.trial import PRUNED, objective, trial_views

SWEEPS = (
    "torchrun trains one run in several processes; run the points of a sweep one by one, or several at a time without "
    "torchrun: hydra/launcher=fused, joblib or submitit_slurm"
)

_failed: list[int] = []


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the runs of a command line and exit: 0 done, 1 a run failed, 2 the command is wrong."""
    # objects made at start-up live on; garbage collection among them takes a tenth of the start-up time
    gc.disable()
    try:
        _main(arguments)
    finally:
        gc.enable()


def _main(arguments: Sequence[str] | None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Hydra instantiates plugins of the package `hydra_plugins` alone, which would need a folder beside `kdx`
    Plugins.instance().class_name_to_class |= {
        "hydra_plugins.kdx.Fused": FusedLauncher,
        "hydra_plugins.kdx.Search": Search,
    }
    try:
        arguments, ready_made = expand(take_config_dirs(arguments))
        register_networks()
    except UserError as error:
        exit_with(str(error).splitlines())
    sweeps = ready_made or any(a in ("-m", "--multirun") for a in arguments)
    if sweeps and world_size() > 1:
        exit_with([SWEEPS])
    if sweeps:  # in front, since Hydra takes no overrides after a flag that follows overrides
        arguments = ["--multirun", *(a for a in arguments if a not in ("-m", "--multirun"))]
    composed = None
    if _asks_about(arguments):
        arguments = _of_one_run(arguments) if sweeps else arguments
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `kdx train --help | head` is no error
    else:
        composed = check(arguments, sweeps)
    if sweeps:
        os.environ[signals.PARENT] = str(os.getpid())
    signals.install()
    _failed.clear()
    FusedLauncher.launched.clear()
    FusedLauncher.failed.clear()
    FusedLauncher.refused.clear()
    if composed is not None:
        _attempt(composed, "", False)
    else:
        sys.argv = ["kdx train", *arguments]
        _hydra_main()
    failed = failures() if sweeps else _failed
    if len(failed) > 1:
        say(f"{len(failed)} runs failed")
    if failed:
        sys.exit(1 if sweeps else failed[0])


@hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")
def _hydra_main(cfg: DictConfig) -> float | str | None:
    """One job; returns the objective for a sweeper."""
    hydra_config = HydraConfig.get()
    composed = plain(cfg, dict(hydra_config.runtime.choices))
    sweeps = hydra_config.mode == RunMode.MULTIRUN
    with noted() if sweeps else nullcontext():
        return _attempt(composed, " ".join(hydra_config.overrides.task), sweeps)


def _attempt(composed: Composed, job: str, sweeps: bool) -> float | str | None:
    """Train one run and print its result or its error.

    Args:
        composed: The run's config.
        job: The overrides of a sweep's job, for messages.
        sweeps: Whether other jobs follow.

    Returns:
        The objective of a search; `PRUNED` if the search pruned the run; None if the run failed.
    """
    signals.install()
    worker = signals.watch_parent()
    try:
        return _train(composed, sweeps)
    except KeyboardInterrupt as error:
        if is_leader():
            say(signals.stop_message(error))
        if worker:  # a worker of joblib would survive an exit
            os._exit(signals.exit_code(error))
        sys.exit(signals.exit_code(error))
    except StoppedError as error:
        say(f"{job}: {error}")
        return PRUNED
    except Exception as error:
        _report(error, job if sweeps else "")
        code = 2 if isinstance(error, ConfigError) else 1
        note_failure(code) if sweeps else _failed.append(code)
        return None


def _train(composed: Composed, sweeps: bool) -> float | None:
    from kdx.commands.show import show
    from kdx.engine.record.loggers import started_by_agent
    from kdx.runs.export import folder_of
    from kdx.runs.prepare import prepare_with_parts  # these import torch
    from kdx.runs.run import run, run_or_wait
    from kdx.sweeps.agent import show_again

    init_process_group()
    prepared = prepare_with_parts(composed)
    config = as_launched(prepared.config)
    if started_by_agent() and is_leader():
        show_again(config)
    # another sweep may train a run that this one needs too, so wait; two commands for a single run are an error
    _collect_from_now()
    try:
        result = (run_or_wait if sweeps else run)(config, trial_views, prepared.light)
    except Exception as error:
        error.add_note(str(folder_of(config)))
        raise
    destroy_process_group()
    if is_leader():
        print(printable(show(result)))
    asked = objective()
    value = result.metric(asked or f"test/{result.data['task']['primary']}")
    if value is None and asked is not None:
        raise UserError(f"{asked} was not measured; dataset.val_fraction=0.2 cuts a validation split")
    return value


def _collect_from_now() -> None:
    """Turn the garbage collector on; it ignores the objects made at start-up."""
    if not gc.get_freeze_count():
        gc.freeze()
    gc.enable()


def _report(error: Exception, job: str) -> None:
    """Print the error of a failed run, or a line for each error of its config; the traceback is in its directory."""
    told = isinstance(error, ReportedError) or (isinstance(error, ConfigError) and job in FusedLauncher.refused)
    if told or not fails_first():
        return
    prefix = f"{job}: " if job else ""
    if isinstance(error, OSError):
        text = reason(error)
    elif isinstance(error, UserError | ValueError):
        text = str(error) or type(error).__name__
    else:
        text = f"{type(error).__name__}: {error}; the traceback is in error.txt in the run's directory"
    if job:  # one of several: name its folder, if the run got that far
        text += "".join(f" ({folder})" for folder in getattr(error, "__notes__", ()))
    for line in text.splitlines():
        say(prefix + shown(line, 2 * LONGEST))


def _of_one_run(arguments: Sequence[str]) -> list[str]:
    """A question about a sweep, as one about its first run: Hydra answers for one run alone."""
    settings = [a for a in arguments if "=" in a and not a.startswith("-")]
    try:
        first = points(settings, searched=True)[0]
    except ConfigError as error:
        exit_with(error.problems)
    return [*(a for a in arguments if a not in settings and a != "--multirun"), *first]


def _asks_about(arguments: Sequence[str]) -> bool:
    """Whether the command uses an option of Hydra that trains nothing, such as --help."""
    asking = ("-h", "--help", "--hydra-help", "--version", "-i", "--info", "-c", "--cfg", "-sc", "--shell-completion")
    return any(a in asking or a.startswith(("--cfg=", "--info=", "--shell-completion=")) for a in arguments)


if __name__ == "__main__":
    main()
