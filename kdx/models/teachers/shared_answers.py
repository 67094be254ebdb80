"""One forward pass of a teacher for several students that take turns."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdx.core.teacher import Knowing
from kdx.core.types import Batch, Outputs


@dataclass(frozen=True)
class _Answer:
    inputs: Tensor  # kept, so that its memory is not given to another tensor
    outputs: Outputs
    versions: list[int]


class Answers:
    """What a teacher said of the batch in hand, until there is another.

    A teacher is a function: the same inputs under the same autocast give the same answer, so whoever asks later gets
    the first one's. What is asked about other inputs, which belong to one student alone, is not kept; nor is
    what carries a graph back to its inputs.
    """

    def __init__(self):
        self._held: set[int] = set()
        self._answers: dict[object, _Answer] = {}
        self._batch: list[Tensor] = []

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Forget everything; from now on answers about these tensors, and about parts of them, are kept."""
        self._answers.clear()
        self._batch = list(tensors)
        self._held = {_storage(t) for t in self._batch}

    def share(self, teacher: nn.Module) -> None:
        """Let a frozen teacher repeat itself where it can. Nothing else about it changes."""
        forward = teacher.forward
        teacher.forward = lambda x: self._answer("inputs", x, lambda: forward(x))
        if isinstance(teacher, Knowing):
            of = teacher.of

            def repeat(batch: Batch) -> Outputs:
                return self._answer("batch", batch.input_tensor, lambda: of(batch))

            teacher.of = repeat

    def _answer(self, question: str, x: Tensor, answer: Callable[[], Outputs]) -> Outputs:
        if x.requires_grad or _storage(x) not in self._held:
            return answer()
        key = (question, _place(x), _autocast(x.device.type))
        known = self._answers.get(key)
        # what a student has changed in place is no longer what the teacher said
        if known is None or _versions(known.outputs) != known.versions:
            outputs = answer()
            known = self._answers[key] = _Answer(x, outputs, _versions(outputs))
        return known.outputs


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _place(x: Tensor) -> tuple[object, ...]:
    """What tells one view of held memory from another, and from itself before it was changed."""
    return _storage(x), x.storage_offset(), x.shape, x.stride(), x.dtype, x._version


def _autocast(device: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def _versions(outputs: Outputs) -> list[int]:
    """How often each tensor of an answer was changed in place."""
    own = [t._version for t in (outputs.logits, *outputs.features.values())]
    return own + [version for member in outputs.members for version in _versions(member)]
