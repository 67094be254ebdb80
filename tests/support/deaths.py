"""Runs in a process of their own that dies, as by kill -9, at a chosen moment."""

import io
import multiprocessing
import os
import signal
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from kdx.config.schema import RunConfig


@dataclass(frozen=True)
class Moment:
    """A call of a function.

    Attributes:
        owner: Module or class.
        function: Its function.
        call: Which call of it, counted from 1.
        match: What its arguments must show to count.
        half: Whether `torch.save` writes half of its file before.
    """

    owner: str
    function: str
    call: int = 1
    match: str = ""
    half: bool = False


def kill_at(config: RunConfig | list[RunConfig], moment: Moment) -> int:
    """Run a config, or several together, until the moment; the process's exit code, -9 where it came to that."""
    context = multiprocessing.get_context("forkserver")
    # one process that has imported everything and done nothing yet: each death costs a fork
    context.set_forkserver_preload(["kdx.pool.run_fused", "timm.data.mixup"])
    process = context.Process(target=_run, args=(config, moment))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def die_at(moment: Moment) -> None:
    """Let this process die when it comes to that."""
    owner = resolve_name(moment.owner)
    original, seen = getattr(owner, moment.function), 0

    def fatal(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += moment.match in repr(arguments)
        if seen < moment.call:
            return original(*arguments, **named)
        if moment.half:
            whole = io.BytesIO()
            original(arguments[0], whole)
            arguments[1].write(whole.getvalue()[: len(whole.getvalue()) // 2])
            arguments[1].flush()
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, moment.function, fatal)


def _run(config: RunConfig | list[RunConfig], moment: Moment) -> None:
    import torch

    from kdx.pool.run_fused import run_together
    from kdx.runs.run import run

    torch.set_num_threads(1)
    os.environ.pop("WANDB_SERVICE", None)  # a process of its own does not share that of the tests
    die_at(moment)
    if isinstance(config, list):
        list(run_together(config))
    else:
        run(config)
