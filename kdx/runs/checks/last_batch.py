"""Checks whether batch norm meets a batch of a single example."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdx.config.schema import Node, RunConfig
from kdx.core.distributed import world_size
from kdx.core.errors import UserError
from kdx.core.seed import seeded
from kdx.core.spec import InputSpec
from kdx.core.tree import map_tree
from kdx.data.loaders import Epochs
from kdx.runs.build import build_network, untrained
from kdx.runs.checks.notices import notices


def check_last_batch(config: RunConfig, loader: Epochs, inputs: InputSpec, steps: int) -> None:
    """Report, or refuse, a last batch of one example under batch norm; before a teacher trains.

    Args:
        config: Prepared.
        loader: The training batches.
        inputs: Facts of one input.
        steps: Steps of the run.

    Raises:
        UserError: A network fails on a batch of one example in training mode.
    """
    if loader.last_batch > world_size() or steps < loader.steps_per_epoch:
        return
    nodes: Sequence[Node] = [config.student.net, *(config.method.get("peers") or ())]
    for node in nodes:
        net = build_network(untrained(node), 0, lambda: inputs)
        if not any(isinstance(m, _BatchNorm) for m in net.modules()):
            continue
        where = f"the last batch of each epoch has one example (trainer.batch_size={config.trainer['batch_size']})"
        if (why := _failure(net, inputs)) is not None:
            raise UserError(f"{where}, and batch norm needs more ({why}); trainer.drop_last=true leaves it out")
        notices([f"{where}, from which alone batch norm takes its statistics; trainer.drop_last=true leaves it out"])
        return


def _failure(net: nn.Module, inputs: InputSpec) -> str | None:
    """The first line of the error that a network raises on one example in training mode; None if it raises none."""
    try:
        with torch.no_grad(), seeded(0, "one example"):
            net.train()(map_tree(Tensor.clone, inputs.fake(1, "cpu")))
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0][:100]
    return None
