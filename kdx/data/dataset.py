"""The config object of a data set: its facts, and the regime under which a run sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdx.core.ranges import Count, Fraction, PartialFraction, PositiveInt
from kdx.core.types import DataSpec
from kdx.data.order import Mix
from kdx.data.regime import balanced, stratified
from kdx.data.sets import DataError, ImageSet


@dataclass(frozen=True)
class Splits:
    """What a run sees of a data set.

    Attributes:
        spec: Facts of the training set.
        train: Examples that are learned from.
        test: The source's test set, whole.
        val: Cut from the source's training set; None where `val_fraction` is 0.
        train_subset: A class-balanced part of the labelled examples of `train`, or some of them all where none is,
            that evaluators see without augmentation.
        mix: Two kinds of examples that share each batch; None for one order of all examples.
    """

    spec: DataSpec
    train: ImageSet
    test: ImageSet
    val: ImageSet | None
    train_subset: ImageSet
    mix: Mix | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Facts and regime of a data set; a subclass knows where the examples come from.

    Attributes:
        name: What results are filed under.
        num_classes: Number of classes C.
        input_shape: (C, H, W) of one image.
        mean: Mean of each channel, in units where white is 1.
        std: Standard deviation of each channel, in the same units.
        fraction: Share of the training set that is learned from; class-balanced, and nested for one seed.
        fraction_seed: Chooses which share; the seed of a run never does.
        val_fraction: Share of the training set held out for validation, cut before `fraction`.
        val_seed: Chooses the held-out share.
        train_subset: Number of training examples that evaluators see as the split "train".
    """

    name: str
    num_classes: PositiveInt
    input_shape: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    fraction: Fraction
    fraction_seed: Count
    val_fraction: PartialFraction
    val_seed: Count
    train_subset: PositiveInt

    def load(self) -> tuple[ImageSet, ImageSet]:
        """The source's whole training set and test set."""
        raise NotImplementedError

    def class_names(self) -> list[str]:
        """What a reader calls each class; its number where the source has no names."""
        return [str(label) for label in range(self.num_classes)]

    def splits(self) -> Splits:
        """What a run sees that learns from the training set as it is. Raises as `pools` and `share` do."""
        train, test, val = self.pools()
        return self.seen(self.share(train), test, val)

    def pools(self) -> tuple[ImageSet, ImageSet, ImageSet | None]:
        """Load, check and cut the validation set: what there is to train on, test set, validation set.

        Raises:
            DataError: The data is missing or damaged, differs from the facts, or a share leaves a class empty.
        """
        shape, mean, std = tuple(self.input_shape), tuple(self.mean), tuple(self.std)
        if len(shape) != 3 or min(shape) < 1:
            raise DataError(f"input_shape must be three positive numbers (C, H, W), got {list(shape)}")
        if not len(mean) == len(std) == shape[0] or min(std) <= 0:
            raise DataError(
                f"mean and std need one number for each of the {shape[0]} channels, and a positive std; "
                f"got mean {list(mean)}, std {list(std)}"
            )
        train, test = self.load()
        for split, data in (("training", train), ("test", test)):
            self._check(split, data)
        if not self.val_fraction:
            return train, test, None
        held = stratified(train.labels, self.val_fraction, self.val_seed, "val_fraction")
        if int(train.labels[~held].unique().numel()) < int(train.labels.unique().numel()):
            raise DataError(f"a val_fraction of {self.val_fraction} leaves a class without a training example")
        return train.subset((~held).nonzero().flatten()), test, train.subset(held.nonzero().flatten())

    def share(self, train: ImageSet) -> ImageSet:
        """The `fraction` of what there is to train on. Raises DataError where it leaves a class empty."""
        if self.fraction == 1:
            return train
        chosen = stratified(train.labels, self.fraction, self.fraction_seed, "fraction")
        return train.subset(chosen.nonzero().flatten())

    def seen(self, train: ImageSet, test: ImageSet, val: ImageSet | None, mix: Mix | None = None) -> Splits:
        """The splits of a run that learns from `train`."""
        shape, mean, std = tuple(self.input_shape), tuple(self.mean), tuple(self.std)
        among = (train.labels >= 0).nonzero().flatten()
        if not len(among):
            among = torch.arange(len(train))
        labels = train.labels[among].clamp(min=0)
        seen = among[balanced(labels, self.train_subset, self.fraction_seed, "train_subset")]
        spec = DataSpec(self.num_classes, (shape[0], shape[1], shape[2]), len(train), mean, std, train.labels)
        subset = train if len(seen) == len(train) else train.subset(seen)
        return Splits(spec, train, test, val, subset, mix)

    def _check(self, split: str, data: ImageSet) -> None:
        if not len(data):
            raise DataError(f"the {split} set of {self.name} is empty")
        low, high = (int(v) for v in torch.aminmax(data.labels))
        if low < 0 or high >= self.num_classes:
            wrong = low if low < 0 else high
            raise DataError(
                f"the {split} set of {self.name} has the label {wrong}, "
                f"outside 0..{self.num_classes - 1} (num_classes is {self.num_classes})"
            )
        if data.shape != tuple(self.input_shape):
            raise DataError(
                f"images of the {split} set of {self.name} have the shape {list(data.shape)}, "
                f"but input_shape is {list(self.input_shape)}"
            )


def missing(path: Path, what: str, remedy: str) -> DataError:
    """The error for data that is not there: where it was looked for, and how to get it."""
    return DataError(f"{what} not found: looked for {path}; {remedy}, or point KDX_DATA (paths.data) at the folder")
