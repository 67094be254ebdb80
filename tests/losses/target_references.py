"""Losses against values and against several labels, as loops over Python floats, from the equations alone."""

import math
from collections.abc import Callable

from loss_references import Reference, over_logits
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.base.term import Term


def over_targets(name: str, cell: Callable[[float, float], float], divisor: int) -> Reference:
    """A reference that sums over pairs (student's output, target)."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        found = batch.targets[name]
        assert isinstance(found, Tensor)
        rows = zip(student.logits.tolist(), found.tolist(), strict=True)
        return [math.fsum(cell(z, y) for z, y in zip(*row, strict=True)) / divisor for row in rows]

    return reference


squared_error = over_targets("values", lambda z, y: (z - y) ** 2, 5)
absolute_error = over_targets("values", lambda z, y: abs(z - y), 5)


def huber(delta: float) -> Reference:
    def cell(z: float, y: float) -> float:
        error = abs(z - y)
        return error**2 / 2 if error <= delta else delta * (error - delta / 2)

    return over_targets("values", cell, 5)


def label_cross_entropy(divisor: int) -> Reference:
    def cell(z: float, y: float) -> float:
        p = 1 / (1 + math.exp(-z))
        return -(y * math.log(p) + (1 - y) * math.log(1 - p))

    return over_targets("presence", cell, divisor)


def full_softmax(classes: list[int]) -> Reference:
    """The label's cross-entropy for examples of the classes, and that with the teacher's softmax for the others."""

    def row(z: list[float], v: list[float], y: int) -> float:
        log_total = math.log(math.fsum(math.exp(x) for x in z))
        if y in classes:
            return log_total - z[y]
        mass = math.fsum(math.exp(x) for x in v)
        return math.fsum(math.exp(x) / mass * (log_total - own) for x, own in zip(v, z, strict=True))

    return over_logits(row)


def hard_binary_cross_entropy(label_smoothing: float, divisor: int) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        target = [label_smoothing / len(z) + (1 - label_smoothing) * (c == y) for c in range(len(z))]
        right = [1 / (1 + math.exp(-x)) for x in z]
        cells = [-(t * math.log(p) + (1 - t) * math.log(1 - p)) for t, p in zip(target, right, strict=True)]
        return math.fsum(cells) / divisor

    return over_logits(row)
