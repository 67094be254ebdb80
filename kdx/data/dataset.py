"""The config object of a data set: its facts, and the regime that selects a run's examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch

from kdx.core.ranges import Count, Fraction, PartialFraction, PositiveInt
from kdx.core.spec import DataSpec, Images, InputSpec
from kdx.core.task import Task
from kdx.data.content import without_duplicates
from kdx.data.order import Alternation, Mix
from kdx.data.regime import balanced, held_out, stratified, with_noise
from kdx.data.sets import DataError, ExampleSet
from kdx.data.units import check_units
from kdx.tasks.classes import Classes


@dataclass(frozen=True)
class Splits:
    """The splits of a data set that a run uses.

    Attributes:
        spec: Facts of the training set.
        train: Training examples.
        test: The source's whole test set.
        val: The source's own validation set, or a part of its training set that is not in `train`; None without either.
        train_subset: A class-balanced part of the labelled examples of `train`, or of all examples if none is
            labelled, for evaluators, without augmentation.
        mix: Two kinds of examples, mixed in each batch or in batches that alternate; None for one order of all.
    """

    spec: DataSpec
    train: ExampleSet
    test: ExampleSet
    val: ExampleSet | None
    train_subset: ExampleSet
    mix: Mix | Alternation | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Task and regime of a data set; a subclass loads the examples.

    Attributes:
        name: Name of the data set in results.
        fraction: Share of the training set to train on; class-balanced, and nested for one seed.
        fraction_seed: Seed of that share, independent of the run's seed.
        val_fraction: Share of the training set held out for validation, cut before `fraction`.
        val_seed: Seed of the held-out share.
        train_subset: Number of training examples in the split "train" of evaluators.
        max_examples: Number of training examples to keep at most, after `fraction`; class-balanced. None for all.
        fraction_order: Order whose first examples the share takes, class by class. "rest" is drawn for the training
            set without its validation split; "source" for the source's whole training set, so that of the shares
            with and without a validation split, in each class, one has all training examples of the other.
        drop_duplicates: Whether to leave out training examples whose input equals one of the test set or an earlier
            training example, before any other cut.

    The last three have defaults for the files of data sets that were written before them.
    """

    name: str
    fraction: Fraction
    fraction_seed: Count
    val_fraction: PartialFraction
    val_seed: Count
    train_subset: PositiveInt
    max_examples: PositiveInt | None = None
    fraction_order: Literal["rest", "source"] = "rest"
    drop_duplicates: bool = False

    @property
    def task(self) -> Task:
        """The task; known before anything loads."""
        raise NotImplementedError

    @property
    def inputs(self) -> InputSpec:
        """Facts of an example's inputs. Raises DataError if they contradict each other."""
        raise NotImplementedError

    def load(self) -> tuple[ExampleSet, ExampleSet]:
        """The source's whole training set and test set."""
        raise NotImplementedError

    @property
    def has_own_val(self) -> bool:
        """Whether the source has a validation set of its own."""
        return False

    @property
    def has_val(self) -> bool:
        """Whether there is a validation set: the source's own, or a share of the training set."""
        return self.has_own_val or bool(self.val_fraction)

    def own_val(self) -> ExampleSet | None:
        """The source's own validation set; None if it has none."""
        return None

    def files(self) -> Mapping[str, Sequence[str]]:
        """Paths of the data files by the folder that they are listed under; empty for generated or missing data.

        They are compared before a finished run is used again.
        """
        return {}

    def splits(self) -> Splits:
        """The splits of a run without a transfer set. Raises as `pools` and `share` do."""
        train, test, val = self.pools()
        return self.seen(self.share(train), test, val)

    def pools(self) -> tuple[ExampleSet, ExampleSet, ExampleSet | None]:
        """Load and check the data, and cut the validation set: training pool, test set, validation set.

        Raises:
            DataError: The data is missing or damaged, contradicts the config, or a share leaves a class empty.
        """
        expected = self.inputs.shape
        train, test = self.load()
        own = self.own_val()
        if own is not None and self.val_fraction:
            raise DataError(f"{self.name} has a validation set of its own; set dataset.val_fraction=0")
        for split, data in (("training", train), ("test", test), ("validation", own)):
            if data is None:
                continue
            if not len(data):
                raise DataError(f"the {split} set of {self.name} is empty")
            self.check(split, data)
            if data.shape != expected:
                raise DataError(
                    f"inputs of the {split} set of {self.name} have the shape {list(data.shape)}, "
                    f"but the configuration says {list(expected)}"
                )
        if self.drop_duplicates:
            train = without_duplicates(train, test, self.name)
        if not self.val_fraction:
            return train, test, own
        train, val = held_out(train, self.val_fraction, self.val_seed)
        return train, test, val

    def share(self, train: ExampleSet) -> ExampleSet:
        """The `fraction` of the training pool, at most `max_examples`. Raises DataError if it leaves a class empty."""
        if self.fraction < 1:
            within = (train.origin, train.pool) if self.fraction_order == "source" else None
            chosen = stratified(train.strata, self.fraction, self.fraction_seed, "fraction", within)
            train = train.subset(chosen.nonzero().flatten())
        if self.max_examples is not None and self.max_examples < len(train):
            train = train.subset(balanced(train.strata, self.max_examples, self.fraction_seed, "max_examples"))
        return train

    def seen(
        self, train: ExampleSet, test: ExampleSet, val: ExampleSet | None, mix: Mix | Alternation | None = None
    ) -> Splits:
        """The splits of a run that trains on `train`."""
        strata = train.strata
        among = (strata >= 0).nonzero().flatten()
        if not len(among):
            among = torch.arange(len(train))
        seen = among[balanced(strata[among].clamp(min=0), self.train_subset, self.fraction_seed, "train_subset")]
        spec = DataSpec(self.task, self.inputs, len(train), train.labels if train.has_classes else None)
        subset = train if len(seen) == len(train) else train.subset(seen)
        return Splits(spec, train, test, val, subset, mix)

    def check(self, split: str, data: ExampleSet) -> None:
        """Raise DataError if targets contradict the task.

        Args:
            split: Name of the set, for the message.
            data: The set.
        """


# Keys that select examples and leave each example, and its position in the source, as it is
SELECTION = tuple(f.name for f in fields(Dataset) if f.name != "name")


@dataclass(frozen=True, kw_only=True)
class ImageDataset(Dataset):
    """A data set of images.

    Attributes:
        input_shape: (C, H, W) of one image.
        mean: Mean of each channel, in units where white is 1.
        std: Standard deviation of each channel, in the same units.
    """

    input_shape: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def inputs(self) -> Images:
        shape, mean, std = tuple(self.input_shape), tuple(self.mean), tuple(self.std)
        if len(shape) != 3 or min(shape) < 1:
            raise DataError(f"input_shape must be three positive numbers (C, H, W), got {list(shape)}")
        if not len(mean) == len(std) == shape[0] or min(std) <= 0:
            raise DataError(
                f"mean and std need one number for each of the {shape[0]} channels, and a positive std; "
                f"got mean {list(mean)}, std {list(std)}"
            )
        if not self.has_own_units:
            check_units(mean, std, "dataset.mean and dataset.std")
        return Images(shape, mean, std)

    @property
    def has_own_units(self) -> bool:
        """Whether inputs are floats of any scale; else white is 1."""
        return False


@dataclass(frozen=True, kw_only=True)
class WithClasses(Dataset):
    """A data set with one class for each example.

    Attributes:
        num_classes: Number of classes C.
        label_noise: Share of the training examples whose label is replaced by another class, drawn uniformly. The
            validation and test sets keep their labels.
        label_noise_seed: Seed of this draw, independent of the run's seed.
    """

    num_classes: PositiveInt
    label_noise: PartialFraction = 0.0
    label_noise_seed: Count = 0

    def pools(self) -> tuple[ExampleSet, ExampleSet, ExampleSet | None]:
        train, test, val = super().pools()
        if self.label_noise:
            train = train.labelled(with_noise(train.labels, self.num_classes, self.label_noise, self.label_noise_seed))
        return train, test, val

    @property
    def task(self) -> Classes:
        return Classes(self.num_classes)

    def class_names(self) -> list[str]:
        """Name of each class for people; its number if the source has no names."""
        return [str(label) for label in range(self.num_classes)]

    def check(self, split: str, data: ExampleSet) -> None:
        low, high = (int(v) for v in torch.aminmax(data.labels))
        if low < 0 or high >= self.num_classes:
            wrong = low if low < 0 else high
            raise DataError(
                f"the {split} set of {self.name} has the label {wrong}, "
                f"outside 0..{self.num_classes - 1} (num_classes is {self.num_classes})"
            )


@dataclass(frozen=True, kw_only=True)
class LabelledImages(WithClasses, ImageDataset):
    """A data set of images with one class each."""


def missing(path: Path, what: str, remedy: str) -> DataError:
    """The error for missing data: the path that was tried, and how to get the data."""
    return DataError(f"{what} not found: looked for {path}; {remedy}, or point KDX_DATA (paths.data) at the folder")
