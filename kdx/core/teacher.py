"""How a method asks its teacher."""

from typing import Protocol, runtime_checkable

from torch import nn

from kdx.core.types import Batch, Outputs


@runtime_checkable
class Knowing(Protocol):
    """A teacher that uses more of a batch than its inputs, as one does that remembers what it said of each view."""

    def of(self, batch: Batch) -> Outputs: ...


def ask(teacher: nn.Module, batch: Batch) -> Outputs:
    """What a teacher says of a training batch. Methods call this; evaluators call the teacher on inputs.

    Example:
        >>> batch = Batch(torch.ones(2, 3), {}, torch.arange(2))
        >>> ask(nn.Identity(), batch).shape
        torch.Size([2, 3])
    """
    return teacher.of(batch) if isinstance(teacher, Knowing) else teacher(batch.inputs)
