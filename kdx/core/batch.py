"""A batch of examples on one device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdx.core.errors import UserError
from kdx.core.tree import Tree, leaves, map_tree, split, take

UNLABELLED = -1  # the label of an example that has none
TOKEN_MASK = "attention_mask"
"""Input of a text that is not 0 at its tokens and 0 at padding, [B, L]."""


@dataclass(frozen=True)
class Batch:
    """One batch, on one device.

    Attributes:
        inputs: A tensor or a nest of tensors that a network reads, usually images [B, C, H, W], already normalised.
        targets: Targets by name, as the task defines them: `labels` and `soft_labels` for classes, `values` [B, K] for
            regression, `presence` [B, C] for several labels an example, `labels` [B, H, W] for a class of each pixel;
            `boxes` [B, N, 4], `box_labels`, `crowd` and `areas` [B, N] and `scales` [B, 2] for objects, see
            `kdx.tasks.boxes`.
        index: Position of each example in its data set, int64 [B]; memory banks are keyed by it.
        views: Further views of the same examples, each like `inputs`, where an augmentation makes them.
        view: Number of each input among all views of the source's training set, int64 [B]: equal numbers mean equal
            pixels, in any run over the same source. None if the number of views is infinite, or for other sets. It
            stays on the CPU, with the tables that it indexes. Code that changes `inputs` must drop it.
        whole: Size of the whole batch if this is one process's share; None if this is the whole batch.
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
            labels: Class index of each example, int64 [B]; `UNLABELLED` (-1) for an unlabelled example. With mixing,
                the dominant class. Code that reads labels either ignores unlabelled examples, as cross-entropy and
                accuracy do, or refuses such a transfer set in `build` (`DataSpec.has_unlabelled`).
            soft_labels: Class probabilities [B, C] if an augmentation mixes examples; zeros for an unlabelled example.
                None without mixing.

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
        """Device of the batch."""
        return self.index.device

    @property
    def total(self) -> int:
        """Number of examples in the whole batch, over all processes."""
        return len(self) if self.whole is None else self.whole

    @property
    def input_tensor(self) -> Tensor:
        """The inputs as a single tensor. Raises UserError if they are a nest of tensors."""
        if isinstance(self.inputs, Tensor):
            return self.inputs
        raise UserError("this method needs inputs that are a single tensor, and this data set gives several")

    @property
    def token_mask(self) -> Tensor | None:
        """Mask of the tokens that are not padding, bool [B, L]; None where the inputs are no texts.

        Example:
            >>> mask = torch.tensor([[1, 1, 0]])
            >>> Batch({"input_ids": mask, "attention_mask": mask}, {}, torch.arange(1)).token_mask
            tensor([[ True,  True, False]])
        """
        found = self.inputs.get(TOKEN_MASK) if isinstance(self.inputs, Mapping) else None
        return found != 0 if isinstance(found, Tensor) else None

    def target(self, name: str) -> Tensor:
        """The target of a name, a single tensor. Raises UserError with the known names if it is missing."""
        found = self.targets.get(name)
        if isinstance(found, Tensor):
            return found
        there = ", ".join(self.targets) or "none"
        raise UserError(f"this task has no target '{name}'; its targets are: {there}")

    @property
    def labels(self) -> Tensor:
        """Class index of each example, int64 [B], see `of_classes`. Raises UserError if the task has no classes."""
        found = self.targets.get("labels")
        return found if isinstance(found, Tensor) else self.target("labels")

    @property
    def soft_labels(self) -> Tensor | None:
        """Class probabilities [B, C] with mixing, else None. Raises UserError if the task has no classes."""
        found = self.targets.get("soft_labels")
        if isinstance(found, Tensor):
            return found
        self.target("labels")
        return None

    def with_targets(self, **targets: Tree) -> "Batch":
        """A copy of the batch with some targets set."""
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
        """The tensors that move to the device: all but `view`."""
        return [*leaves(self.inputs), *leaves(self.targets), self.index, *leaves(self.views)]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """A copy of the batch with `change` applied to each of `tensors`."""
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
