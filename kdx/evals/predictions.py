"""Per-example predictions of networks on a split."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.distributed import all_gather_values
from kdx.core.task import Task
from kdx.data.on_device import on_device
from kdx.evals.base import dealt, divided
from kdx.evals.cached_outputs import CachedOutputs


@torch.no_grad()
def predictions(
    models: Mapping[str, nn.Module], loader: Iterable[Batch], device: torch.device, task: Task
) -> dict[str, Tensor]:
    """Predictions of networks, in one pass over the data; several processes divide the batches.

    Args:
        models: Networks in evaluation mode, by role.
        loader: Batches of the split, in order.
        device: Device of the networks.
        task: Defines the predictions and targets to keep.

    Returns:
        In each process, on the CPU, tensors [N, ...]: the task's `kept_targets` by their names, and for each role its
        `predictions`, as "{role}/{name}".
    """
    columns: dict[str, list[Tensor]] = {}
    cached = {role: CachedOutputs(net, loader, task) for role, net in models.items()}
    for step, batch in enumerate(on_device(dealt(loader, *models.values()), device)):
        row = dict(task.kept_targets(batch))
        for role, net in cached.items():
            kept = task.predictions(net(step, batch.inputs, lambda names: ()))
            row |= {f"{role}/{name}": column for name, column in kept.items()}
        for name, column in row.items():
            columns.setdefault(name, []).append(column)
    own = {name: [part.cpu() for part in parts] for name, parts in columns.items()}
    every = all_gather_values(own) if divided(*models.values()) else [own]
    return {name: torch.cat(parts) for name, parts in _in_order(every).items()}


def _in_order(hands: Sequence[Mapping[str, list[Tensor]]]) -> dict[str, list[Tensor]]:
    """Parts that were dealt round-robin, back in their original order."""
    rounds = {name: zip_longest(*(hand[name] for hand in hands if name in hand)) for name in hands[0]}
    return {name: [part for turn in turns for part in turn if part is not None] for name, turns in rounds.items()}
