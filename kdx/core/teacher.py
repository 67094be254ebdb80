"""The teacher's outputs for a training batch."""

from typing import Protocol, runtime_checkable

from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs


@runtime_checkable
class BatchTeacher(Protocol):
    """A teacher that reads the whole batch, not only its inputs, such as one that caches its outputs by view."""

    def of(self, batch: Batch) -> Outputs: ...


def teacher_outputs(teacher: nn.Module, batch: Batch) -> Outputs:
    """The teacher's outputs for a training batch. Methods call this; evaluators call the teacher on inputs.

    Example:
        >>> batch = Batch(torch.ones(2, 3), {}, torch.arange(2))
        >>> teacher_outputs(nn.Identity(), batch).shape
        torch.Size([2, 3])
    """
    return teacher.of(batch) if isinstance(teacher, BatchTeacher) else teacher(batch.inputs)
