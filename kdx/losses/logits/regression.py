"""Regression of target values: squared, absolute and Huber error."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.core.task import VALUES
from kdx.losses.base.checks import require_vector
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term


def _errors(predictions: Tensor, values: Tensor) -> Tensor:
    if predictions.ndim != 2 or predictions.shape != values.shape:
        raise ValueError(
            f"regression compares outputs [B, K] with values [B, K], "
            f"got {list(predictions.shape)} and {list(values.shape)}"
        )
    return predictions - values.to(predictions.dtype)


@full_precision
def squared_error(predictions: Tensor, values: Tensor) -> Tensor:
    """Squared difference, mean over the K outputs.

    Args:
        predictions: [B, K].
        values: [B, K].

    Returns:
        [B].

    Raises:
        ValueError: The shapes differ. Broadcasting would compare every pair of examples.

    Example:
        >>> squared_error(torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0, 2.0]]))
        tensor([2.])
    """
    return _errors(predictions, values).square().mean(1)


@full_precision
def absolute_error(predictions: Tensor, values: Tensor) -> Tensor:
    """Absolute difference, mean over the K outputs. Its minimum is the median of the values.

    Args:
        predictions: [B, K].
        values: [B, K].

    Returns:
        [B].

    Raises:
        ValueError: As in `squared_error`.

    Example:
        >>> absolute_error(torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0, 2.0]]))
        tensor([1.])
    """
    return _errors(predictions, values).abs().mean(1)


@full_precision
def huber(predictions: Tensor, values: Tensor, delta: float) -> Tensor:
    """Huber loss: `e² / 2` for errors up to delta, `delta (|e| - delta / 2)` beyond, mean over the K outputs.

    Args:
        predictions: [B, K].
        values: [B, K].
        delta: Above 0, in the unit of the values; large errors have a gradient of this size. Half the squared error as
            delta grows, `delta` times the absolute error as it shrinks.

    Returns:
        [B].

    Raises:
        ValueError: As in `squared_error`, or delta is not above 0.

    References:
        Huber, "Robust Estimation of a Location Parameter", 1964. https://doi.org/10.1214/aoms/1177703732

    Example:
        >>> huber(torch.tensor([[0.5, 4.0]]), torch.zeros(1, 2), delta=1.0)
        tensor([1.8125])
    """
    if not delta > 0:
        raise ValueError(f"delta of the Huber loss must be above 0, got {delta}")
    errors = _errors(predictions, values)
    return F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=delta).mean(1)


class SquaredError(Term):
    """Squared error of the outputs against the batch's target values, mean over outputs."""

    tasks = frozenset({VALUES})
    needs_teacher = False

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_vector(student, "student", type(self).__name__)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return squared_error(student.logits, batch.target("values"))


class AbsoluteError(SquaredError):
    """Absolute error of the outputs against the batch's target values, mean over outputs."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return absolute_error(student.logits, batch.target("values"))


class Huber(SquaredError):
    """Huber loss of the outputs against the batch's target values, mean over outputs.

    Args:
        delta: Error from which on the loss grows linearly; a number or a schedule.
    """

    def __init__(self, delta: Positive | Schedule):
        super().__init__()
        self.delta = delta

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return huber(student.logits, batch.target("values"), at(self.delta, progress))
