"""A user's own data: a map-style `torch.utils.data.Dataset` of (input, target)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdx.core.errors import shown
from kdx.core.ranges import Positive, PositiveInt
from kdx.data.dataset import ImageDataset, LabelledImages
from kdx.data.sets import DataError, ImageSet, Targets, TensorSet
from kdx.data.units import check_units, standardised_values
from kdx.tasks.labels import Labels
from kdx.tasks.values import Values

UNSUITED = ("P", "PA", "CMYK", "LAB", "HSV", "YCbCr")


@dataclass(frozen=True, kw_only=True)
class OwnImages(ImageDataset):
    """Two torch data sets whose items are pairs of an input and a target; a subclass reads the targets.

    An input is a float tensor [C, H, W] (used as it is, then normalised by `mean` and `std`), a uint8 tensor
    [C, H, W], or an image of Pillow (both divided by 255 first). An item must be the same each time it is read, so
    that a run resumes exactly; random views belong to `augmentation`. Crops and flips work on every input; `policy`
    and `ResizedCrop` need uint8.

    Attributes:
        train: Makes the training set; called when the data is loaded.
        test: Makes the test set.
        in_memory: Whether each item is read once, at the start; else at each step, in worker processes.
    """

    train: Callable[[], Any]
    test: Callable[[], Any]
    in_memory: bool

    @property
    def has_own_units(self) -> bool:
        """Float inputs are used as they are."""
        return True

    def load(self) -> tuple[ImageSet, ImageSet]:
        train, test = (self._part(make, split) for split, make in (("training", self.train), ("test", self.test)))
        if (train.scale, train.dtype) != (test.scale, test.dtype):
            raise DataError(f"the training set of {self.name} gives {train.dtype} inputs, its test set {test.dtype}")
        if train.dtype == np.uint8:
            check_units(self.mean, self.std, "dataset.mean and dataset.std")
        return train, test

    def read_targets(self, given: Iterable[Any], where: str) -> Targets:
        """The targets of a set.

        Args:
            given: The target of each item, as the data set gives it.
            where: Name of the set in errors.

        Raises:
            DataError: A target does not fit the task.
        """
        raise NotImplementedError

    def _part(self, make: Callable[[], Any], split: str) -> ImageSet:
        where = f"the {split} set of {self.name}"
        source = make()
        if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
            raise DataError(f"{where} must be a map-style data set, with __getitem__ and __len__")
        if not len(source):
            raise DataError(f"{where} is empty")
        first, _ = read(source, 0, where)
        again, _ = read(source, 0, where)
        if not np.array_equal(first, again, equal_nan=True):
            raise DataError(f"{where} gives another input each time item 0 is read; use augmentation= for random views")
        if not self.in_memory:
            return MappedSet(source, self.read_targets(_targets(source), where), where)
        pairs = [read(source, i, where) for i in range(len(source))]
        inputs = np.stack([_alike(pixels, first, i, where) for i, (pixels, _) in enumerate(pairs)])
        targets = self.read_targets((target for _, target in pairs), where)
        return TensorSet(torch.from_numpy(inputs), targets, _scale(inputs.dtype))


@dataclass(frozen=True, kw_only=True)
class Own(OwnImages, LabelledImages):
    """Own data in which a target is a class index: a whole number from 0 to `num_classes` - 1."""

    def read_targets(self, given: Iterable[Any], where: str) -> Tensor:
        return torch.tensor([_label(label, where) for label in given])


@dataclass(frozen=True, kw_only=True)
class OwnValues(OwnImages):
    """Own data in which a target is K numbers: a number or a vector [K].

    Attributes:
        num_outputs: K.
        target_mean: Number subtracted from each of the K values.
        target_std: Divisor of each value after that; metrics are in the values' own units.
    """

    num_outputs: PositiveInt
    target_mean: Sequence[float]
    target_std: Sequence[Positive]

    @property
    def task(self) -> Values:
        return standardised_values(self.num_outputs, self.target_mean, self.target_std)

    def read_targets(self, given: Iterable[Any], where: str) -> Targets:
        values = torch.stack([_vector(target, self.num_outputs, "num_outputs", where) for target in given])
        mean, std = (torch.tensor(list(t), dtype=torch.float64) for t in (self.target_mean, self.target_std))
        return {"values": ((values - mean) / std).float()}


@dataclass(frozen=True, kw_only=True)
class OwnLabels(OwnImages):
    """Own data in which any number of C labels holds: a target is a vector [C] of numbers from 0 to 1.

    Attributes:
        num_classes: Number of labels C.
    """

    num_classes: PositiveInt

    @property
    def task(self) -> Labels:
        return Labels(self.num_classes)

    def read_targets(self, given: Iterable[Any], where: str) -> Targets:
        presence = torch.stack([_vector(target, self.num_classes, "num_classes", where) for target in given])
        outside = presence[(presence < 0) | (presence > 1)]
        if len(outside):
            raise DataError(f"a target of {where} must be from 0 to 1 for each label, found {outside[0]:g}")
        return {"presence": presence.float()}


class MappedSet(ImageSet):
    """Inputs that a map-style data set makes at each access.

    Args:
        source: Its items are pairs of an input and a target.
        targets: Class indices or targets by name, see `ExampleSet`.
        where: The set's name in errors.
        origin, pool: See `ImageSet`.
    """

    decodes = True

    def __init__(
        self, source: Any, targets: Targets, where: str, origin: Tensor | None = None, pool: int | None = None
    ):
        self._first, _ = read(source, 0, where)
        super().__init__(targets, _scale(self._first.dtype), origin, pool)
        self.source, self._where, self.dtype = source, where, self._first.dtype
        h, w, c = self._first.shape
        self.shape = (c, h, w)

    def subset(self, indices: Tensor) -> "MappedSet":
        source = torch.utils.data.Subset(self.source, indices.tolist())
        targets, origin = self.at(indices)
        return MappedSet(source, targets, self._where, origin, self.pool)

    def rows(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        return np.stack([self.whole(i) for i in indices.tolist()]), np.arange(len(indices))

    def whole(self, index: int) -> np.ndarray:
        return _alike(read(self.source, index, self._where)[0], self._first, index, self._where)


def read(source: Any, index: int, where: str) -> tuple[np.ndarray, Any]:
    """One item as an array [H, W, C], uint8 or float32, and its target as the data set gives it.

    Raises:
        DataError: The item is no pair, or its input is of another kind.
    """
    item = source[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"item {index} of {where} must be a pair (input, target), found {type(item).__name__}")
    pixels, target = item
    if not isinstance(pixels, Tensor):
        if (mode := getattr(pixels, "mode", None)) in UNSUITED:  # its numbers are no brightness of a channel
            raise DataError(f"the input of item {index} of {where} has Pillow's mode {mode}; add .convert('RGB')")
        array = np.array(pixels)  # a copy: an image of Pillow is read-only
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise DataError(
                f"the input of item {index} of {where} must be a tensor [C, H, W] or an image of Pillow in 8 bits, "
                f"found {type(pixels).__name__}"
            )
        return array if array.ndim == 3 else array[..., None], target
    if pixels.ndim != 3 or not (pixels.dtype == torch.uint8 or pixels.is_floating_point()):
        raise DataError(
            f"the input of item {index} of {where} must be a float or uint8 tensor [C, H, W], "
            f"found {pixels.dtype} {list(pixels.shape)}"
        )
    whole = pixels.detach().cpu().permute(1, 2, 0).contiguous()
    return (whole if whole.dtype == torch.uint8 else whole.float()).numpy(), target


def _targets(source: Any) -> Iterator[Any]:
    """Targets of all items: `targets`, as torchvision's data sets have it, else read item by item.

    Items are read if `targets` is not what they return, as with a `target_transform`; three items are compared.
    """
    targets = getattr(source, "targets", None)
    if targets is None or len(targets) != len(source) or getattr(source, "target_transform", None) is not None:
        yield from (item[1] for item in _items(source))
        return
    stated = all(np.array_equal(source[i][1], targets[i]) for i in {0, len(source) // 2, len(source) - 1})
    yield from targets if stated else (item[1] for item in _items(source))


def _items(source: Any) -> Iterator[Any]:
    return (source[i] for i in range(len(source)))


def _label(label: Any, where: str) -> int:
    number = label.item() if isinstance(label, Tensor | np.generic) and label.ndim == 0 else label
    if isinstance(number, bool) or not isinstance(number, int):
        raise DataError(f"a label of {where} must be a class index, found {shown(repr(label))}")
    return number


def _vector(target: Any, size: int, key: str, where: str) -> Tensor:
    """A target as float64 [size]. Raises DataError if it has another size or holds something else."""
    try:
        vector = torch.as_tensor(target, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"a target of {where} must be a number or a vector of numbers, found {shown(repr(target))}"
        ) from None
    if vector.ndim > 1 or vector.numel() != size:
        raise DataError(f"a target of {where} must be {size} numbers ({key}), found the shape {list(vector.shape)}")
    if not vector.isfinite().all():
        raise DataError(f"a target of {where} is not finite: {shown(repr(vector.tolist()))}")
    return vector.reshape(size)


def _alike(pixels: np.ndarray, first: np.ndarray, index: int, where: str) -> np.ndarray:
    if pixels.shape != first.shape or pixels.dtype != first.dtype:
        raise DataError(
            f"item {index} of {where} is {pixels.dtype} {list(pixels.shape)} as [H, W, C], and item 0 is "
            f"{first.dtype} {list(first.shape)}; all inputs must be alike"
        )
    return pixels


def _scale(dtype: np.dtype) -> int:
    return 255 if dtype == np.uint8 else 1
