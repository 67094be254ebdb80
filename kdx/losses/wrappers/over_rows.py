"""A logits term on tokens, pixels or regions: its rows are the examples of the inner term."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.core.task import CLASSES
from kdx.core.tree import take
from kdx.losses.base.term import Term
from kdx.losses.base.tokens import Average
from kdx.losses.base.wrapper import Wrapper

LABELS = "labels"
MASK = "mask"
"""Target, or role of the student's feature, that is True at the rows that count, bool [B, L], [B, H, W] or [N]."""


class OverRows(Wrapper):
    """A term on logits [B, L, V] of tokens, [B, V, H, W] of pixels or [N, V] of regions, averaged over counted rows.

    The inner term is called once, on all counted rows [N, V], as if each row were an example. Labels [B, L] belong to
    the tokens and labels [B, H, W] to the pixels; labels [B] and other targets belong to all rows of an example. Where
    logits are [N, V], `Outputs.owner` [N] holds the example of each row. A row counts where the target "mask", the
    student's feature "mask" and the mask of a text's tokens are True, if there are any, and, if the inner term skips
    unlabelled examples, the row has a label. An example without a counted row has the value 0 and is left out of the
    mean over the batch.

    Args:
        term: A term on logits, such as KD, DKD, DIST or CrossEntropy.
        average: 'example' is the mean over an example's rows, so that the mean over the batch counts each example
            alike. 'all' scales the values so that their mean over the batch is the mean over all counted rows.
        chunk: Rows per call of the inner term, which bounds the memory: each chunk is recomputed in the backward
            pass. None calls the inner term once.

    Raises:
        ValueError: The inner term reads features or keeps a state per example, or it relates rows to each other and
            `chunk` is set.

    A method over it is a YAML file; this one is KD of tokens:

    ```yaml
    _target_: kdx.methods.distill.Distill
    temperature: 2.0
    terms:
      ce:
        _target_: kdx.losses.wrappers.over_rows.OverRows
        average: all
        chunk: null
        term: {_target_: kdx.losses.logits.cross_entropy.CrossEntropy, label_smoothing: 0.0}
      kd:
        _target_: kdx.losses.wrappers.over_rows.OverRows
        average: all
        chunk: 4096
        term: {_target_: kdx.losses.logits.kd.KD, temperature: "${....temperature}", reduction: batchmean}
    weights: {ce: 0.5, kd: 0.5}
    ```
    """

    tasks = None  # the inner term decides

    def __init__(self, term: Term, average: Average, chunk: PositiveInt | None):
        super().__init__(term)
        name = type(term).__name__
        if average not in ("example", "all"):
            raise ValueError(f"average must be 'example' or 'all', got {average!r}")
        if term.student_roles() or term.teacher_roles() or not term.reads_logits:
            raise ValueError(f"OverRows applies a term on logits to each row, but {name} reads features")
        if term.keyed_by_index:
            raise ValueError(f"OverRows applies a term to rows, but {name} keeps a state per training example")
        if chunk is not None and not all(part.divisible for part in term.modules() if isinstance(part, Term)):
            raise ValueError(f"{name} relates the rows of a batch to each other; set chunk to null")
        self.average: Average = average
        self.chunk = chunk
        # the number of counted rows scales every value of 'all'; `build` finds whether the batch alone states it
        self.divisible = average == "example"
        self._stated = False
        self.reads_logits, self.skips_unlabelled = False, False

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        rows = _row_shapes(student, "student"), None if teacher is None else _row_shapes(teacher, "teacher")
        if spec.task.kind == CLASSES and len(student.logits) == 1:
            raise ValueError(
                "OverRows applies a term to each token or region of an example, and this student gives one vector of "
                "logits per example: use the term itself"
            )
        each = spec.task.each_row
        self.term.build(*rows, spec if each is None else replace(spec, task=each))
        self._stated = len(student.logits) == 2 and MASK not in student.features
        self.divisible |= self._stated

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch, progress: Progress) -> Tensor:
        owner, size = _owners(student, batch), len(batch)
        if teacher is not None and _places(teacher.logits) != _places(student.logits):
            raise ValueError(
                f"OverRows compares the networks row by row, but the student's logits are "
                f"{list(student.logits.shape)} and the teacher's {list(teacher.logits.shape)}"
            )
        examples = row_batch(batch, owner)
        masks = [student.features[MASK]] if MASK in student.features else []
        masks += self._masks(batch, examples.labels if self.term.skips_unlabelled else None)
        kept = torch.stack([mask.flatten() for mask in masks]).all(0).nonzero().squeeze(1) if masks else None

        def values(rows: Tensor | None) -> Tensor:
            given = _rows(student, rows), None if teacher is None else _rows(teacher, rows)
            if not len(given[0].logits):
                return given[0].logits.sum(1)  # empty, with a graph
            return self.term(*given, examples if rows is None else _some(examples, rows), progress)

        found = self._in_chunks(values, kept, owner)
        shape = (size,) if student.owner is not None else (size, len(owner) // size)
        sums, counts = (_per_example(x, kept, owner, shape) for x in (found, torch.ones_like(found)))
        if self.average == "all":
            return sums * (size / counts.sum().clamp(min=1))
        return sums / counts.clamp(min=1) * (size / (counts > 0).to(counts).sum().clamp(min=1))

    def counted_rows(self, batch: Batch) -> Tensor | None:
        """Counted rows, or examples that have some; None where all rows count, or an output says which do."""
        masks = self._masks(batch, batch.labels if self.term.skips_unlabelled else None) if self._stated else []
        if not masks:
            return None
        masks = torch.broadcast_tensors(*(mask if mask.ndim == 2 else mask[:, None] for mask in masks))
        kept = torch.stack(masks).all(0)
        return kept.sum() if self.average == "all" else kept.any(1).sum()

    @staticmethod
    def _masks(batch: Batch, labels: Tensor | None) -> list[Tensor]:
        """The masks of rows that a batch has."""
        found = [] if batch.token_mask is None else [batch.token_mask]
        found += [batch.target(MASK)] if MASK in batch.targets else []
        return found + ([] if labels is None else [labels >= 0])

    def _in_chunks(self, values: Callable[[Tensor | None], Tensor], kept: Tensor | None, owner: Tensor) -> Tensor:
        if self.chunk is None or self.chunk >= len(owner if kept is None else kept):
            return values(kept)
        kept = torch.arange(len(owner), device=owner.device) if kept is None else kept
        parts = [checkpoint(values, part, use_reentrant=False) for part in kept.split(self.chunk)]
        return torch.cat(parts)  # pyright: ignore[reportArgumentType] - torch's stub has no type for checkpoint


def row_batch(batch: Batch, owner: Tensor) -> Batch:
    """A batch whose examples are rows of the examples of another batch.

    Args:
        batch: B examples with labels [B], or with labels [B, L] or [B, H, W] of all N rows in their order, or with
            other targets.
        owner: Position of each row's example in the batch, int64 [N].

    Returns:
        N examples, each with its row's label and its owner's index and other targets; the inputs are the indices.

    Example:
        >>> batch = Batch.of_classes(torch.zeros(2, 3), torch.tensor([7, 8]), torch.tensor([40, 50]))
        >>> row_batch(batch, torch.tensor([0, 0, 1])).labels.tolist()
        [7, 7, 8]
    """
    targets = {name: take(target, owner) for name, target in batch.targets.items() if name not in (MASK, LABELS)}
    if LABELS in batch.targets:
        labels = batch.labels.flatten() if batch.labels.ndim > 1 else batch.labels[owner]
        if len(labels) != len(owner):
            raise ValueError(
                f"{len(labels)} labels cannot belong to {len(owner)} rows: give labels [B], [B, L] or [B, H, W]"
            )
        targets[LABELS] = labels
    return Batch(batch.index[owner], targets, batch.index[owner])


def _owners(outputs: Outputs, batch: Batch) -> Tensor:
    logits = outputs.logits
    if outputs.owner is not None:
        return outputs.owner
    if logits.ndim not in (3, 4):
        raise ValueError(
            f"OverRows reads logits [B, L, V], [B, V, H, W], or [N, V] with an owner for each row; the student's are "
            f"{list(logits.shape)} and have no owner"
        )
    return torch.arange(len(batch), device=logits.device).repeat_interleave(_places(logits)[1:].numel())


def _row_shapes(shapes: Shapes, whose: str) -> Shapes:
    if len(shapes.logits) not in (1, 2, 3):
        raise ValueError(
            f"OverRows reads logits [B, L, V], with the classes last, or [B, V, H, W]; the {whose}'s are "
            f"[B, {', '.join(map(str, shapes.logits))}]"
        )
    return Shapes(shapes.logits[:1] if len(shapes.logits) == 3 else shapes.logits[-1:], {})


def _places(logits: Tensor) -> torch.Size:
    """Shape of the rows: (B, L) of tokens, (B, H, W) of pixels, (N,) of regions."""
    return logits.shape[:-1] if logits.ndim != 4 else torch.Size([logits.shape[0], *logits.shape[2:]])


def _rows(outputs: Outputs, kept: Tensor | None) -> Outputs:
    """The outputs of some rows, [N, V], and of the members of an ensemble for them."""
    logits = (outputs.logits.movedim(1, -1) if outputs.logits.ndim == 4 else outputs.logits).flatten(0, -2)
    members = tuple(_rows(member, kept) for member in outputs.members)
    return Outputs(logits if kept is None else logits[kept], {}, members)


def _some(batch: Batch, rows: Tensor) -> Batch:
    targets = {name: take(target, rows) for name, target in batch.targets.items()}
    return Batch(take(batch.inputs, rows), targets, batch.index[rows])


def _per_example(values: Tensor, kept: Tensor | None, owner: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum of the values of each example, [B], added in the same order on every run.

    Args:
        values: Of the counted rows.
        kept: Their positions among all rows; None where all rows count.
        owner: Example of each row, [N].
        shape: (B, L) of tokens or pixels, (B,) of regions.
    """
    every = values if kept is None else values.new_zeros(len(owner)).index_copy(0, kept, values)
    if len(shape) == 2:
        return every.view(shape).sum(1)
    member = owner == torch.arange(shape[0], device=owner.device)[:, None]
    return member.to(every.dtype) @ every
