"""What a network says of a split, asked once where it is frozen, however often it is measured."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.data.loaders import EvalLoader
from kdx.metrics.cka import as_vectors
from kdx.models.teachers.sharded import is_sharded

LIMIT = 256 * 2**20  # bytes that are kept of one network; CIFAR-100's test set takes 20 to 60 MB, ImageNet's 2.5 GB

Roles = Callable[[Collection[str]], Sequence[str]]


@dataclass
class _Memory:
    state: tuple[tuple[int, int], ...]
    splits: WeakKeyDictionary[EvalLoader, dict[int, Outputs]] = field(default_factory=WeakKeyDictionary)
    names: Collection[str] = ()  # of all its features
    size: int = 0


_memories: WeakKeyDictionary[nn.Module, _Memory] = WeakKeyDictionary()


class Asked:
    """A network that is asked about the batches of a split; where it is frozen, it is not run on any of them again.

    The batches of a split are the same at each pass, and a frozen network is a function; so its answers outlast an
    evaluation, and the runs of a fused sweep, which have loaders and teacher in common, share them. They live as long
    as the network and the loader. What is beyond `LIMIT` is asked anew.

    Args:
        net: In evaluation mode. It is taken for frozen where no parameter takes a gradient, and for another one as
            soon as a parameter or buffer was changed or replaced. One whose parts processes must meet to run is always
            run.
        loader: The split's batches; only those of an `EvalLoader` are known to be the same each time, and where several
            processes divide them, they do so in the same way each time.
    """

    def __init__(self, net: nn.Module, loader: Iterable[Batch]):
        self.net = net
        self._memory: _Memory | None = None
        self._known: dict[int, Outputs] = {}
        frozen = not any(p.requires_grad for p in net.parameters())
        if isinstance(loader, EvalLoader) and frozen and not is_sharded(net):
            self._memory = _memories.get(net)
            if self._memory is None or self._memory.state != _state(net):
                self._memory = _memories[net] = _Memory(_state(net))
            self._known = self._memory.splits.setdefault(loader, {})

    def __call__(self, step: int, inputs: Tensor, roles: Roles) -> Outputs:
        """What the network says of a batch, in full precision.

        Args:
            step: Which batch of the split, counted from 0.
            inputs: The batch's inputs.
            roles: Chooses features, given the names of those there are.

        Returns:
            The logits; of each chosen feature one float64 vector an example, see `as_vectors`.
        """
        known = self._known.get(step)
        if known is not None and self._memory is not None:
            chosen = roles(self._memory.names)
            if known.features.keys() >= set(chosen):
                return Outputs(known.logits, {role: known.features[role] for role in chosen})
        outputs = self.net(inputs).float()
        chosen = roles(outputs.features.keys())
        said = Outputs(outputs.logits, {role: as_vectors(outputs.feature(role)) for role in chosen})
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
    """What changes when a weight is changed in place or put elsewhere, as by another memory format."""
    return tuple((t.data_ptr(), t._version) for t in (*net.parameters(), *net.buffers()))
