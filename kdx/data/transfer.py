"""The transfer set: the student's training examples, if they differ from the plain training set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kdx.core.batch import UNLABELLED
from kdx.core.ranges import Count, OpenFraction, PartialFraction, Probability
from kdx.core.task import CLASSES, Task
from kdx.data.dataset import Dataset, Splits
from kdx.data.order import Mix
from kdx.data.regime import special, stratified
from kdx.data.sets import DataError, ExampleSet
from kdx.data.sources.concat import concatenated
from kdx.data.sources.unlabelled_sources import Source
from kdx.tasks.classes import Classes


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Selects the student's training examples, and those with labels; validation and test sets stay whole.

    It starts from the training set without its validation share, in this order: `held_out` is cut, so that a teacher
    trained by kdx sees one part and its student the other; `dataset.fraction` of the student's part is labelled;
    unlabelled images are added; classes are left out. So runs that differ in one of these settings share the others.
    The selection depends on this config and the data set alone.

    The label of an unlabelled example is -1; see `kdx.core.batch.Batch`.

    Attributes:
        held_out: Share of the training set for the student alone, which the teacher's own training does not see; 0
            gives both the whole set. It has no effect on a teacher with given weights.
        held_out_seed: Seed of the share.
        part: Part of the training set that the run uses; the teacher's own training uses "rest".
        unlabelled: "rest" for the examples outside `dataset.fraction`, examples of another source, or None.
        labelled_share: Labelled part of each batch; an epoch is then one pass over the unlabelled examples. 0 leaves
            out the labelled examples, None shuffles all examples together.
        omit_classes: Classes without examples in the transfer set.
        only_classes: The only classes with examples; None for all. Neither key affects images of another source, which
            have no class.
        special_classes: Classes of a specialist; the others form one class, the last, in every split. An epoch is one
            pass over the examples of these classes. None leaves the classes as they are.
        special_share: Part of these classes in each batch; the other examples are drawn at random.
        rest_class: Whether a specialist's other classes form one class; False keeps all classes as they are, in batches
            of the same shares.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (transfer sets, omitted
        classes, specialists). https://arxiv.org/abs/1503.02531
    """

    held_out: PartialFraction
    held_out_seed: Count
    part: Literal["held_out", "rest"]
    unlabelled: Literal["rest"] | Source | None
    labelled_share: Probability | None
    omit_classes: Sequence[int]
    only_classes: Sequence[int] | None
    special_classes: Sequence[int] | None
    special_share: OpenFraction
    rest_class: bool = True  # for the configs of runs that were finished before this key

    @property
    def outputs(self) -> Sequence[int] | None:
        """Classes with an output of their own, before that of the rest; None for an output of each class."""
        return self.special_classes if self.rest_class else None

    @property
    def has_foreign(self) -> bool:
        """Whether images of another source are added."""
        return isinstance(self.unlabelled, Source)

    def misfits(self, task: Task, fraction: float) -> Iterator[str]:
        """A sentence for each setting that contradicts another or the data set's facts."""
        if task.kind != CLASSES:
            yield from self._without_classes(task)
            return
        num_classes = task.num_outputs
        if self.labelled_share is not None and self.unlabelled is None:
            yield "labelled_share mixes labelled and unlabelled examples, but unlabelled is null"
        if self.labelled_share == 1:
            yield "a labelled_share of 1 leaves no unlabelled examples; that is transfer=train"
        if self.unlabelled == "rest" and fraction == 1:
            yield "unlabelled is the rest of the training set, but dataset.fraction=1 leaves none; lower it"
        if self.omit_classes and self.only_classes is not None:
            yield "give omit_classes or only_classes, not both"
        named = {key: getattr(self, key) or () for key in ("omit_classes", "only_classes", "special_classes")}
        for key, classes in named.items():
            if wrong := [c for c in classes if not 0 <= c < num_classes]:
                yield f"{key} has {wrong[0]}, but the classes are 0 to {num_classes - 1}"
        if len(set(self.omit_classes)) == num_classes:
            yield "omit_classes leaves no class to learn from"
        if self.only_classes is not None and not self.only_classes:
            yield "only_classes needs at least one class"
        if self.special_classes is not None:
            if not 0 < len(set(self.special_classes)) == len(self.special_classes) < num_classes:
                yield f"special_classes must be different classes, some but not all, found {list(self.special_classes)}"
            if self.unlabelled is not None:
                yield "special_classes needs a label for every example, but unlabelled is not null"
        elif not self.rest_class:
            yield "rest_class=false belongs to a specialist, but special_classes is null"

    def _without_classes(self, task: Task) -> Iterator[str]:
        for key in ("omit_classes", "only_classes", "special_classes"):
            if getattr(self, key):
                yield f"{key} needs a task with classes, and this task has {task.kind}"
        if self.unlabelled is not None:
            yield f"unlabelled needs a task with classes, and this task has {task.kind}"
        if self.labelled_share is not None:
            yield f"labelled_share needs a task with classes, and this task has {task.kind}"

    def task(self, of: Task) -> Task:
        """The student's task on a data set of task `of`; a specialist has fewer classes."""
        return of if self.outputs is None else Classes(len(self.outputs) + 1)

    def marks(self, size: int, task: Task) -> Tensor | None:
        """Synthetic labels that lack the same classes or labels as the transfer set, int64 [size].

        None if the task has no classes.
        """
        if task.kind != CLASSES:
            return None
        num_classes = task.num_outputs
        labels = torch.arange(size) % num_classes
        kept = self._keeps(labels)
        labels = labels[kept].repeat(num_classes)[:size]
        if self.outputs is not None:
            labels = special(labels, self.outputs, num_classes)
        if self.unlabelled is None:
            return labels
        labels[: size if self.labelled_share == 0 else size // 2] = UNLABELLED
        return labels

    def splits(self, dataset: Dataset) -> Splits:
        """The splits of a data set that a run uses.

        Raises:
            DataError: The data is missing or contradicts the config, or the transfer set is empty.
        """
        for problem in self.misfits(dataset.task, dataset.fraction):
            raise DataError(problem)
        train, test, val = dataset.pools()
        if self.held_out:
            held = stratified(train.strata, self.held_out, self.held_out_seed, "held_out")
            train = train.subset((held if self.part == "held_out" else ~held).nonzero().flatten())
        if self.unlabelled == "rest":
            labelled = torch.zeros(train.pool, dtype=torch.bool)
            labelled[dataset.share(train).origin] = True
            kept = self._keeps(train.labels)
            labels = torch.where(labelled[train.origin], train.labels, UNLABELLED)
            if self.labelled_share == 0:
                kept &= labels < 0
            train = train.labelled(labels).subset(kept.nonzero().flatten())
        else:
            share = dataset.share(train)
            if self.omit_classes or self.only_classes is not None:
                share = share.subset(self._keeps(share.labels).nonzero().flatten())
            if self.unlabelled is not None:
                others = self.unlabelled.take(train, dataset)
                share = concatenated((others,) if self.labelled_share == 0 else (share, others))
            train = share
        if not len(train):
            raise DataError("the transfer set is empty: no example of these classes is left to learn from")
        if self.special_classes is not None:
            return self._specialist(dataset, train, test, val)
        mix = Mix(train.labels >= 0, self.labelled_share) if self.labelled_share else None
        return dataset.seen(train, test, val, mix)

    def _specialist(self, dataset: Dataset, train: ExampleSet, test: ExampleSet, val: ExampleSet | None) -> Splits:
        assert self.special_classes is not None
        classes, of = self.special_classes, dataset.task.num_outputs
        if not self.rest_class:
            others = ~torch.isin(train.labels, torch.tensor(list(classes)))
            return dataset.seen(train, test, val, Mix(others, 1 - self.special_share))
        train, test = (part.labelled(special(part.labels, classes, of)) for part in (train, test))
        val = None if val is None else val.labelled(special(val.labels, classes, of))
        splits = dataset.seen(train, test, val, Mix(train.labels == len(classes), 1 - self.special_share))
        return replace(splits, spec=replace(splits.spec, task=self.task(splits.spec.task)))

    def _keeps(self, labels: Tensor) -> Tensor:
        """Mask of the examples whose classes are kept, bool [N]."""
        if self.only_classes is not None:
            return torch.isin(labels, torch.tensor(list(self.only_classes)))
        return ~torch.isin(labels, torch.tensor(list(self.omit_classes), dtype=torch.int64))
