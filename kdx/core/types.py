"""The values that travel between the floors: batches, outputs, steps, facts of a data set."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kdx.core.errors import UserError
from kdx.core.task import CLASSES, Task
from kdx.core.tree import Tree, leaves, map_tree, split, take

UNLABELLED = -1  # the label of an example that has none


@dataclass(frozen=True)
class Batch:
    """One batch, on one device.

    Attributes:
        inputs: A tensor or a nest of tensors that a network reads, usually images [B, C, H, W], already normalised.
        targets: Targets by name, as the task defines them: `labels` and `soft_labels` for classes, `values` [B, K] for
            regression, `presence` [B, C] for several labels an example.
        index: Position of each example in its data set, int64 [B]; memory banks are keyed by it.
        views: Further views of the same examples, each like `inputs`, where an augmentation makes them.
        view: Number of each input among all views of the source's training set, int64 [B]: equal numbers are equal
            pixels, in any run over the same source. None where views are endless or not of the training set. It stays
            on the CPU, where the tables are that it addresses. Code that changes `inputs` must drop it.
        whole: Size of the whole batch where this is one process's share; None where this is all of it.
    """

    inputs: Tree
    targets: Mapping[str, Tree]
    index: Tensor
    views: tuple[Tree, ...] = ()
    view: Tensor | None = None
    whole: int | None = None

    @classmethod
    def of_classes(
        cls,
        inputs: Tree,
        labels: Tensor,
        index: Tensor,
        soft_labels: Tensor | None = None,
        views: tuple[Tree, ...] = (),
        view: Tensor | None = None,
        whole: int | None = None,
    ) -> "Batch":
        """A batch of a classification task.

        Args:
            inputs, index, views, view, whole: As in `Batch`.
            labels: Class index of each example, int64 [B]; `UNLABELLED` (-1) where a transfer set gives none. Under
                mixing, the dominant class. A reader of labels either counts the labelled examples alone, as
                cross-entropy and accuracy do, or refuses such a transfer set in `build` (`DataSpec.has_unlabelled`).
            soft_labels: Class probabilities [B, C] where an augmentation mixes examples; zeros for an example without a
                label. None without mixing.

        Example:
            >>> Batch.of_classes(torch.zeros(2, 1), torch.tensor([0, 1]), torch.arange(2)).labels
            tensor([0, 1])
        """
        soft = {} if soft_labels is None else {"soft_labels": soft_labels}
        return cls(inputs, {"labels": labels, **soft}, index, views, view, whole)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Where the batch is."""
        return self.index.device

    @property
    def total(self) -> int:
        """Examples of the batch over all processes."""
        return len(self) if self.whole is None else self.whole

    @property
    def input_tensor(self) -> Tensor:
        """The inputs where these are a single tensor. Raises UserError where they are a nest of several."""
        if isinstance(self.inputs, Tensor):
            return self.inputs
        raise UserError("this method reads inputs that are one tensor, and a batch of this data set holds several")

    def target(self, name: str) -> Tensor:
        """The target of a name, a single tensor. Raises UserError that names those there are, where it is missing."""
        found = self.targets.get(name)
        if isinstance(found, Tensor):
            return found
        there = ", ".join(self.targets) or "none"
        raise UserError(f"this task has no target '{name}'; its targets are: {there}")

    @property
    def labels(self) -> Tensor:
        """Class index of each example, int64 [B], see `of_classes`. Raises UserError where the task has no classes."""
        found = self.targets.get("labels")
        return found if isinstance(found, Tensor) else self.target("labels")

    @property
    def soft_labels(self) -> Tensor | None:
        """Class probabilities [B, C] under mixing, else None. Raises UserError where the task has no classes."""
        found = self.targets.get("soft_labels")
        if isinstance(found, Tensor):
            return found
        self.target("labels")
        return None

    def with_targets(self, **targets: Tree) -> "Batch":
        """The batch with some of its targets set."""
        return replace(self, targets={**self.targets, **targets})

    def share(self, rank: int, size: int) -> "Batch":
        """This process's share of the batch: every `size`-th example from number `rank` on."""
        if size == 1:
            return self
        mine = slice(rank, None, size)
        return Batch(
            take(self.inputs, mine),
            {name: take(target, mine) for name, target in self.targets.items()},
            self.index[mine],
            tuple(take(view, mine) for view in self.views),
            None if self.view is None else self.view[mine],
            len(self),
        )

    @property
    def tensors(self) -> list[Tensor]:
        """All that go to the device, so all but `view`."""
        return [*leaves(self.inputs), *leaves(self.targets), self.index, *leaves(self.views)]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with each of `tensors` changed."""
        return Batch(
            map_tree(change, self.inputs),
            {name: map_tree(change, target) for name, target in self.targets.items()},
            change(self.index),
            tuple(map_tree(change, view) for view in self.views),
            self.view,
            self.whole,
        )

    def to(self, device: torch.device | str) -> "Batch":
        return self.map(lambda t: t.to(device, non_blocking=True))

    def chunk(self, chunks: int) -> list["Batch"]:
        """Split into at most `chunks` consecutive batches of nearly equal size."""
        inputs, index = split(self.inputs, chunks), self.index.tensor_split(chunks)
        targets = {name: split(target, chunks) for name, target in self.targets.items()}
        views = [split(view, chunks) for view in self.views]
        numbers = (None,) * chunks if self.view is None else self.view.tensor_split(chunks)
        return [
            Batch(
                inputs[i],
                {name: of[i] for name, of in targets.items()},
                index[i],
                tuple(of[i] for of in views),
                numbers[i],
            )
            for i in range(chunks)
            if len(index[i])
        ]


@dataclass(frozen=True)
class Outputs:
    """What every network returns, teacher or student.

    Attributes:
        logits: [B, C].
        features: Tensors by role ("stage2", "stage2.preact", "pooled"), never by module path.
        members: Outputs of the parts of an ensemble; empty for a single network.
        owner: Position in the batch of the example that each row of logits [N, V] belongs to, int64 [N], where rows
            are regions; None otherwise.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple["Outputs", ...] = ()
    owner: Tensor | None = None

    def feature(self, role: str) -> Tensor:
        """The feature of a role, see `find_role`."""
        return self.features[find_role(role, self.features, "network")]

    def detach(self) -> "Outputs":
        return self._map(Tensor.detach)

    def primal(self) -> "Outputs":
        """Without the tangents that forward-mode differentiation carries along; the graph stays."""
        return self._map(lambda t: forward_ad.unpack_dual(t).primal)

    def float(self) -> "Outputs":
        """Half precision, as autocast leaves it, made float32: features once they are read. Others stay."""
        members = tuple(m.float() for m in self.members)
        return Outputs(_in_full(self.logits), _InFull(self.features), members, self.owner)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Outputs":
        late = self.features if isinstance(self.features, _InFull) else None
        changed = {role: change(f) for role, f in (self.features if late is None else late.raw).items()}
        features = changed if late is None else _InFull(changed)
        members = tuple(m._map(change) for m in self.members)
        return Outputs(change(self.logits), features, members, self.owner)


def _in_full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class _InFull(Mapping[str, Tensor]):
    """Features in float32, each converted when it is first read: of a dozen a method reads a few, or none."""

    def __init__(self, features: Mapping[str, Tensor]):
        self.raw, self._read = features, dict[str, Tensor]()

    def __getitem__(self, role: str) -> Tensor:
        if role in self._read:
            return self._read[role]
        feature = self.raw[role]
        full = _in_full(feature)
        # what is read without a graph first may be read with one later
        if torch.is_grad_enabled() or not feature.requires_grad:
            self._read[role] = full
        return full

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True)
class Step:
    """What every method returns for a batch.

    Attributes:
        terms: Unweighted scalars with a graph, by name; the names equal those of the weights.
        report: Detached scalars that are logged and never summed.
        outputs: The student's outputs, for training accuracy; None where there is no single student.
    """

    terms: Mapping[str, Tensor]
    report: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Outputs | None = None


class Turn(NamedTuple):
    """A part of a step.

    Attributes:
        party: Who takes it: whose parameters learn from its terms, and no other's.
        step: Its terms, some or all of the method's.
    """

    party: str
    step: Step


class InputSpec(Protocol):
    """Facts of one example's inputs.

    Attributes:
        shape: Shape without the batch axis, of the inputs where these are a single tensor.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def fake(self, size: int, device: torch.device | str) -> Tree:
        """A batch of zeros that a network can read, for a probe of its shapes."""
        ...


@dataclass(frozen=True)
class Images:
    """Images [B, C, H, W].

    Attributes:
        shape: (C, H, W).
        mean: Mean of each channel that inputs were normalised with.
        std: Standard deviation of each channel that inputs were normalised with.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def fake(self, size: int, device: torch.device | str) -> Tensor:
        return torch.zeros(size, *self.shape, device=device)


@dataclass(frozen=True)
class Vectors:
    """Vectors [B, D] of numbers.

    Attributes:
        size: D.
    """

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    def fake(self, size: int, device: torch.device | str) -> Tensor:
        return torch.zeros(size, self.size, device=device)


@dataclass(frozen=True)
class DataSpec:
    """Facts of the training data that networks, methods and terms are built from.

    Attributes:
        task: What is learned, and how it is measured.
        inputs: Facts of one example's inputs.
        num_examples: Length of the training set after every restriction; bounds `Batch.index`.
        labels: Class of each training example, int64 [num_examples], -1 for one without; contrastive terms choose
            their negatives by it. None where the task has no classes.
    """

    task: Task
    inputs: InputSpec
    num_examples: int
    labels: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def num_classes(self) -> int:
        """Number of classes C. Raises UserError where the task has none."""
        if self.task.kind == CLASSES:
            return self.task.num_outputs
        raise UserError(f"this part needs a number of classes, and the task has {self.task.kind}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.inputs.shape

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel that images were normalised with. Raises UserError where inputs are no images."""
        return self._images.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, likewise."""
        return self._images.std

    @property
    def _images(self) -> Images:
        if isinstance(self.inputs, Images):
            return self.inputs
        raise UserError(f"this part needs images, and the data set has {type(self.inputs).__name__.lower()}")

    @property
    def has_labelled(self) -> bool:
        """Whether some training example has a label."""
        return self.labels is None or bool((self.labels >= 0).any())

    @property
    def has_unlabelled(self) -> bool:
        """Whether some training example has no label."""
        return self.labels is not None and bool((self.labels < 0).any())


@dataclass(frozen=True)
class Shapes:
    """Shapes of a network's outputs without the batch axis, found by a probe before training."""

    logits: tuple[int, ...]
    features: Mapping[str, tuple[int, ...]]

    def feature(self, role: str, whose: str = "network") -> tuple[int, ...]:
        """The shape of a role, see `find_role`."""
        return self.features[find_role(role, self.features, whose)]

    def inner_stages(self, whose: str = "network") -> list[str]:
        """Roles of the stages between the stem ("stage0") and the last stage, in order.

        Raises:
            ValueError: There are none.
        """
        stages = sorted(_stages(self.features) - {"stage0"}, key=_number)
        if len(stages) < 2:
            raise ValueError(f"the {whose} needs at least two stages; it has: {', '.join(stages) or 'none'}")
        return stages[:-1]


def _stages(roles: Iterable[str]) -> set[str]:
    return {r for r in roles if r.startswith("stage") and r.removeprefix("stage").isdigit()}


def _number(stage: str) -> int:
    return int(stage.removeprefix("stage"))


def find_role(role: str, roles: Iterable[str], whose: str) -> str:
    """The role itself, or for "last" the deepest stage.

    Raises:
        ValueError: There is no such role; the message names the known roles.

    Example:
        >>> find_role("last", ["stage1", "stage2", "pooled"], "student")
        'stage2'
    """
    roles = list(roles)
    if role == "last" and _stages(roles):
        return max(_stages(roles), key=_number)
    if role not in roles:
        raise ValueError(f"the {whose} has no feature with role '{role}'; it has: {', '.join(roles) or 'none'}")
    return role
