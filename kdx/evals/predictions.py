"""What networks predict for each example of a split: enough to draw reliability and confusion, small enough to keep."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from kdx.core.distributed import gathered
from kdx.core.types import Batch
from kdx.data.on_device import on_device
from kdx.evals.base import dealt, divided
from kdx.evals.cached_outputs import Asked


@torch.no_grad()
def predictions(models: Mapping[str, nn.Module], loader: Iterable[Batch], device: torch.device) -> dict[str, Tensor]:
    """Predictions and confidences of networks, in one pass over the data that several processes divide.

    Args:
        models: Networks in evaluation mode, by role.
        loader: Batches of the split, in order.
        device: Where the networks are.

    Returns:
        In each process, on the CPU: "label" int32 [N]; for each role "{role}/prediction" int32 [N], -1 where a logit
        is NaN, and "{role}/confidence" float32 [N], the largest probability.
    """
    columns: dict[str, list[Tensor]] = {}
    asked = {role: Asked(net, loader) for role, net in models.items()}
    for step, batch in enumerate(on_device(dealt(loader, *models.values()), device)):
        row = {"label": batch.labels.int()}
        for role, net in asked.items():
            logits = net(step, batch.input_tensor, lambda names: ()).logits
            broken = logits.isnan().any(1)
            row[f"{role}/prediction"] = logits.argmax(1).masked_fill(broken, -1).int()
            row[f"{role}/confidence"] = logits.double().softmax(1).amax(1).float()
        for name, column in row.items():
            columns.setdefault(name, []).append(column)
    own = {name: [part.cpu() for part in parts] for name, parts in columns.items()}
    every = gathered(own) if divided(*models.values()) else [own]
    return {name: torch.cat(parts) for name, parts in _in_order(every).items()}


def _in_order(hands: Sequence[Mapping[str, list[Tensor]]]) -> dict[str, list[Tensor]]:
    """What was dealt out in turn, as it was before."""
    rounds = {name: zip_longest(*(hand[name] for hand in hands if name in hand)) for name in hands[0]}
    return {name: [part for turn in turns for part in turn if part is not None] for name, turns in rounds.items()}
