"""One forward pass of a teacher, shared by several students that train in turns."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.derived import stored
from kdx.core.outputs import Outputs
from kdx.core.teacher import BatchTeacher
from kdx.core.tree import Tree, leaves


@dataclass(frozen=True)
class _Entry:
    inputs: Tree  # kept alive, so that its memory is not reused for another tensor
    outputs: Outputs
    versions: list[int]


class SharedOutputs:
    """Cache of a teacher's outputs for the current batch.

    A teacher is a function: the same inputs under the same autocast give the same outputs, so later students get the
    outputs that the first one computed. Outputs for other inputs, which belong to a single student, are not cached;
    nor are outputs that are differentiable in the inputs.

    Args:
        make: Calls the function that computes outputs; runs whose work overlaps on a GPU wait for it.
    """

    def __init__(self, make: Callable[[Callable[[], Outputs]], Outputs] = lambda compute: compute()):
        self._make = make
        self._held: set[int] = set()
        self._entries: dict[object, _Entry] = {}
        self._batch: list[Tensor] = []

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Clear the cache, then cache outputs for these tensors and for views of them."""
        self._entries.clear()
        self._batch = list(tensors)
        self._held = {_storage(t) for t in self._batch}

    def share(self, teacher: nn.Module) -> None:
        """Make a frozen teacher return cached outputs where possible; nothing else about it changes."""
        forward = teacher.forward
        teacher.forward = lambda x: self._cached("inputs", x, lambda: forward(x))
        if isinstance(teacher, BatchTeacher):
            of = teacher.of

            def outputs_of(batch: Batch) -> Outputs:
                return self._cached("batch", batch.inputs, lambda: of(batch))

            teacher.of = outputs_of

    def _cached(self, kind: str, x: Tree, compute: Callable[[], Outputs]) -> Outputs:
        tensors = list(leaves(x))
        if any(t.requires_grad or _storage(t) not in self._held for t in tensors):
            return compute()
        key = (kind, *map(_place, tensors), _autocast(tensors[0].device.type))
        known = self._entries.get(key)
        # outputs that a student changed in place are no longer the teacher's
        if known is None or _versions(known.outputs) != known.versions:
            outputs = self._make(compute)
            known = self._entries[key] = _Entry(x, outputs, _versions(outputs))
        return known.outputs


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _place(x: Tensor) -> tuple[object, ...]:
    """Key of a view of a cached tensor; it changes with in-place modifications."""
    return _storage(x), x.storage_offset(), x.shape, x.stride(), x.dtype, x._version


def _autocast(device: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def _versions(outputs: Outputs) -> list[int]:
    """Number of in-place changes of each tensor of the outputs."""
    own = [t._version for t in (outputs.logits, *stored(outputs.features).values())]
    return own + [version for member in outputs.members for version in _versions(member)]
