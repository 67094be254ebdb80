"""Caches the outputs of frozen networks on a split, over all evaluations."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.task import Task
from kdx.core.tree import Tree
from kdx.data.loaders import EvalLoader
from kdx.metrics.cka import as_vectors
from kdx.models.teachers.sharded import is_sharded

LIMIT = 256 * 2**20  # cached bytes of one network; CIFAR-100's test set takes 20 to 60 MB, ImageNet's 2.5 GB

Roles = Callable[[Collection[str]], Sequence[str]]


@dataclass
class _Memory:
    state: tuple[tuple[int, int], ...]
    splits: WeakKeyDictionary[EvalLoader, dict[int, Outputs]] = field(default_factory=WeakKeyDictionary)
    names: Collection[str] = ()  # of all the network's features
    size: int = 0


_memories: WeakKeyDictionary[nn.Module, _Memory] = WeakKeyDictionary()


class CachedOutputs:
    """Calls a network on the batches of a split, and caches the outputs if the network is frozen.

    The batches of a split are equal in each pass, so a frozen network's outputs are too. The cache is shared by all
    evaluations, and by the runs of a fused sweep, which share loaders and teacher. It lives as long as the network and
    the loader. Outputs beyond `LIMIT` are computed again each time.

    Args:
        net: A network in evaluation mode. It counts as frozen if no parameter requires a gradient. A change of a
            parameter or buffer empties its cache. Outputs of a sharded network are never cached.
        loader: The split's batches; only those of an `EvalLoader` are cached, since these are equal in each pass, as is
            their division among processes.
        task: States what is kept of the outputs, see `Task.answer`.
    """

    def __init__(self, net: nn.Module, loader: Iterable[Batch], task: Task):
        self.net, self.task = net, task
        self._memory: _Memory | None = None
        self._known: dict[int, Outputs] = {}
        frozen = not any(p.requires_grad for p in net.parameters())
        if isinstance(loader, EvalLoader) and frozen and not is_sharded(net):
            self._memory = _memories.get(net)
            if self._memory is None or self._memory.state != _state(net):
                self._memory = _memories[net] = _Memory(_state(net))
            self._known = self._memory.splits.setdefault(loader, {})

    def __call__(self, step: int, inputs: Tree, roles: Roles) -> Outputs:
        """The network's outputs for a batch, in full precision.

        Args:
            step: Number of the batch, from 0.
            inputs: The batch's inputs.
            roles: Selects features from the names of all.

        Returns:
            The answer as logits, and each selected feature as one float64 vector per example, see `as_vectors`.
        """
        known = self._known.get(step)
        if known is not None and self._memory is not None:
            chosen = roles(self._memory.names)
            if known.features.keys() >= set(chosen):
                return Outputs(known.logits, {role: known.features[role] for role in chosen})
        outputs = self.net(inputs).float()
        chosen = roles(outputs.features.keys())
        said = Outputs(self.task.answer(outputs), {role: as_vectors(outputs.feature(role)) for role in chosen})
        if self._memory is not None:
            self._memory.names = tuple(outputs.features)
            self._keep(self._memory, step, said)
        return said

    def _keep(self, memory: _Memory, step: int, said: Outputs) -> None:
        known = self._known.get(step)
        both = said if known is None else Outputs(known.logits, {**known.features, **said.features})
        size = memory.size + _bytes(both) - (0 if known is None else _bytes(known))
        if size <= LIMIT:
            memory.size, self._known[step] = size, both


def _bytes(outputs: Outputs) -> int:
    return sum(t.nbytes for t in (outputs.logits, *outputs.features.values()))


def _state(net: nn.Module) -> tuple[tuple[int, int], ...]:
    """Addresses and versions of all weights; they change with a weight, its storage or its memory format."""
    return tuple((t.data_ptr(), t._version) for t in (*net.parameters(), *net.buffers()))
