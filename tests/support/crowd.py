"""Several processes that train a run together, as torchrun starts them but without its seconds."""

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence

from kdx.config.schema import RunConfig


def trained_by(size: int, configs: Sequence[RunConfig], rank_does: Callable[[int], None] | None = None) -> list[int]:
    """Train configs one after another; the exit codes of the processes, 0 where all went well.

    Once one has failed the others have a minute to end by themselves, as torchrun gives them seconds.

    Args:
        size: Processes.
        configs: Prepared.
        rank_does: Called first in each process with its rank.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kdx.pool.run_fused", "timm.data.mixup"])
    # held until the end: without a listener the first process may listen there, and no one else is given the port
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        processes = [context.Process(target=_train, args=(r, size, port, configs, rank_does)) for r in range(size)]
        for process in processes:
            process.start()
        deadline = time.monotonic() + 500
        while any(p.is_alive() for p in processes) and time.monotonic() < deadline:
            if any(p.exitcode for p in processes):
                deadline = min(deadline, time.monotonic() + 60)
            time.sleep(0.02)
        for process in processes:
            process.kill()
            process.join()
    return [process.exitcode or 0 for process in processes]


def _train(
    rank: int, size: int, port: int, configs: Sequence[RunConfig], rank_does: Callable[[int], None] | None
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from kdx.core.distributed import destroy_process_group
    from kdx.runs.run import run

    torch.set_num_threads(1)
    if rank_does is not None:
        rank_does(rank)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        for config in configs:
            run(config)
    destroy_process_group()
