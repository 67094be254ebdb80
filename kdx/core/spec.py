"""Facts of a data set, from which networks, methods and terms are built."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from kdx.core.errors import UserError
from kdx.core.task import CLASSES, Task
from kdx.core.tree import Tree


class InputSpec(Protocol):
    """Facts of one example's inputs.

    Attributes:
        shape: Shape without the batch axis; only for inputs that are a single tensor.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def fake(self, size: int, device: torch.device | str) -> Tree:
        """A made-up batch, to probe the shapes of a network: zeros, or ids of tokens."""
        ...


@dataclass(frozen=True)
class Images:
    """Images [B, C, H, W].

    Attributes:
        shape: (C, H, W).
        mean: Mean of each channel, used to normalise inputs.
        std: Standard deviation of each channel, used to normalise inputs.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def fake(self, size: int, device: torch.device | str) -> Tree:
        return torch.zeros(size, *self.shape, device=device)


@dataclass(frozen=True)
class Scenes(Images):
    """Images of any size, padded at the right and the bottom to one shape; the padding is about 0 when normalised.

    A network reads a mapping: "images" [B, C, H, W] and "sizes", the height and width without padding, int64 [B, 2].
    """

    def fake(self, size: int, device: torch.device | str) -> Tree:
        sizes = torch.tensor(self.shape[1:], device=device).expand(size, 2).contiguous()
        return {"images": torch.zeros(size, *self.shape, device=device), "sizes": sizes}


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
class Tokens:
    """Token sequences: a mapping of `input_ids` and `attention_mask`, int64 [B, L], and `token_type_ids` for pairs.

    `attention_mask` is 1 for a token and 0 for padding, which comes last. L is the longest sequence of a batch, so it
    differs between batches.

    Attributes:
        vocab_size: Number of token ids.
        length: Most tokens of a sequence.
        pad_id: Id that fills up shorter sequences.
        tokenizer: Fingerprint of the tokenizer; networks with another one do not fit.
        pairs: Whether examples are pairs of texts, so that batches have `token_type_ids` (0 first, 1 second text).
    """

    vocab_size: int
    length: int
    pad_id: int
    tokenizer: str
    pairs: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def fake(self, size: int, device: torch.device | str) -> dict[str, Tensor]:
        """Short sequences of different ids."""
        length = min(self.length, 16)
        ids = torch.arange(size * length, device=device).view(size, length) % self.vocab_size
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return inputs | ({"token_type_ids": torch.zeros_like(ids)} if self.pairs else {})


@dataclass(frozen=True)
class DataSpec:
    """Facts of the training data, from which networks, methods and terms are built.

    Attributes:
        task: The task: targets and metrics.
        inputs: Facts of one example's inputs.
        num_examples: Length of the training set that the run uses; bounds `Batch.index`.
        labels: Class of each training example, int64 [num_examples], -1 for an unlabelled one; contrastive terms choose
            their negatives by it. None if the task has no classes.
    """

    task: Task
    inputs: InputSpec
    num_examples: int
    labels: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def num_classes(self) -> int:
        """Number of classes C. Raises UserError if the task has none."""
        if self.task.kind == CLASSES:
            return self.task.num_outputs
        raise UserError(f"this part needs a number of classes, and the task has {self.task.kind}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.inputs.shape

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, used to normalise images. Raises UserError if inputs are not images."""
        return self._images.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, used to normalise images. Raises UserError if inputs are not images."""
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
