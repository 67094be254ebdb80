"""Sets of examples with targets, in memory or in files, indexed by position."""

from collections.abc import Mapping
from copy import copy
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from kdx.core.errors import UserError


class DataError(UserError, ValueError):
    """The data is missing, damaged or contradicts the config."""


class Nearby(NamedTuple):
    """Groups of examples in common files, for an order that reads few files at a time.

    Attributes:
        group: Group of each example, int64 [N].
        at_once: Number of groups to read from at a time.
    """

    group: Tensor
    at_once: int


Targets = Tensor | Mapping[str, Tensor]  # class indices int64 [N], or targets [N, ...] by name


class ExampleSet:
    """Examples with targets, numbered from 0.

    Attributes:
        targets: Targets [N, ...] by name, see `kdx.core.batch.Batch`. A class index of -1 marks an unlabelled example.
        origin: Position of each example in the source's training set, int64 [N]. Random augmentation depends on it,
            so that an example has the same views in every subset of the source.
        pool: Number of examples of the source; bounds `origin`.
        shape: Shape of every input.
        dtype: Type of the arrays that hold the inputs: uint8, or float32 with a `scale` of 1.
        decodes: Whether reading is slow enough for worker processes to help.
        foreign: Whether there are examples of other sources, for which `origin` is no position in the training set.
        nearby: Groups that an epoch's order keeps together; None for a plain shuffle.
    """

    decodes: bool
    foreign = False
    nearby: Nearby | None = None
    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.uint8)

    def __init__(self, targets: Targets, origin: Tensor | None, pool: int | None):
        self.targets: dict[str, Tensor] = {"labels": targets} if isinstance(targets, Tensor) else dict(targets)
        size = len(next(iter(self.targets.values())))
        self.origin = torch.arange(size) if origin is None else origin
        self.pool = size if pool is None else pool

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def has_classes(self) -> bool:
        """Whether each example has one class."""
        return "labels" in self.targets and self.targets["labels"].ndim == 1

    @property
    def labels(self) -> Tensor:
        """Class indices, int64 [N]. Raises DataError if the examples have no classes."""
        if self.has_classes:
            return self.targets["labels"]
        raise DataError(f"these examples have no classes; their targets are: {', '.join(self.targets)}")

    @property
    def strata(self) -> Tensor:
        """Groups for stratified subsets, int64 [N]: the classes, or a single group."""
        return self.labels if self.has_classes else torch.zeros(len(self), dtype=torch.int64)

    def subset(self, indices: Tensor) -> Self:
        """The examples at these positions, numbered from 0."""
        raise NotImplementedError

    def with_targets(self, **targets: Tensor) -> Self:
        """A copy with some targets set."""
        other = copy(self)
        other.targets = {**self.targets, **targets}
        return other

    def labelled(self, labels: Tensor) -> Self:
        """A copy with other class indices."""
        return self.with_targets(labels=labels)

    def at(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Targets and origin at these positions."""
        return {name: t.index_select(0, indices) for name, t in self.targets.items()}, self.origin[indices]


class VectorSet(ExampleSet):
    """Vectors held in memory as float32 [N, D], as networks read them.

    Args:
        vectors: The vectors.
        targets, origin, pool: See `ExampleSet`.
    """

    decodes = False

    def __init__(self, vectors: Tensor, targets: Targets, origin: Tensor | None = None, pool: int | None = None):
        if vectors.dtype != torch.float32 or vectors.ndim != 2:
            raise ValueError(f"vectors must be float32 [N, D], got {vectors.dtype} {list(vectors.shape)}")
        super().__init__(targets, origin, pool)
        if len(vectors) != len(self):
            raise DataError(f"{len(vectors)} vectors but {len(self)} targets")
        self.vectors, self.shape = vectors, (vectors.shape[1],)

    def subset(self, indices: Tensor) -> "VectorSet":
        return VectorSet(self.vectors.index_select(0, indices), *self.at(indices), self.pool)


class ImageSet(ExampleSet):
    """Images of one size.

    Attributes:
        scale: The pixel value that maps to 1.0.
        shape: (C, H, W) of every image.
    """

    shape: tuple[int, int, int]

    def __init__(self, targets: Targets, scale: int, origin: Tensor | None, pool: int | None):
        super().__init__(targets, origin, pool)
        self.scale = scale

    def rows(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Storage of images: an array [M, H, W, C] and the row of each index in it, [B]."""
        raise NotImplementedError

    def whole(self, index: int) -> np.ndarray:
        """One image before it is resized to `shape`, [h, w, C]."""
        raise NotImplementedError


class TensorSet(ImageSet):
    """Images held in memory as [N, H, W, C], uint8 (a quarter of float's size) or float32."""

    decodes = False

    def __init__(
        self, images: Tensor, targets: Targets, scale: int, origin: Tensor | None = None, pool: int | None = None
    ):
        if images.dtype not in (torch.uint8, torch.float32) or images.ndim != 4:
            raise ValueError(f"images must be uint8 or float32 [N, H, W, C], got {images.dtype} {list(images.shape)}")
        super().__init__(targets, scale, origin, pool)
        if any(len(images) != len(target) for target in self.targets.values()):
            found = ", ".join(f"{len(target)} {name}" for name, target in self.targets.items())
            raise DataError(f"{len(images)} images but {found}")
        self.images = images.contiguous()
        self.dtype = self.images.numpy().dtype
        _, h, w, c = images.shape
        self.shape = (c, h, w)

    def subset(self, indices: Tensor) -> "TensorSet":
        targets, origin = self.at(indices)
        return TensorSet(self.images.index_select(0, indices), targets, self.scale, origin, self.pool)

    def rows(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        return self.images.numpy(), indices.numpy()

    def whole(self, index: int) -> np.ndarray:
        return self.images[index].numpy()
