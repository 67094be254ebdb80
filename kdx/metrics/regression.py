"""Errors of predicted numbers: RMSE, MAE and the coefficient of determination."""

import torch
from torch import Tensor

from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric

ROUNDING = 1e-12
"""Share of the sum of squares about the reference below which the variation of a target is rounding noise."""


def as_columns(values: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors of numbers as [B, D]; one number per example may come as [B] or as [B, 1].

    Args:
        values: [B] or [B, D].
        others: [B] or [B, D].

    Raises:
        ValueError: The shapes differ. Broadcasting [B, 1] against [B] would compare every pair of examples.

    Example:
        >>> values, others = as_columns(torch.zeros(3), torch.ones(3, 1))
        >>> values.shape, others.shape
        (torch.Size([3, 1]), torch.Size([3, 1]))
    """
    left, right = (t[:, None] if t.ndim == 1 else t for t in (values, others))
    if left.ndim != 2 or left.shape != right.shape:
        raise ValueError(
            f"predictions and targets need the same shape, [B] or [B, D]; "
            f"got {list(values.shape)} and {list(others.shape)}"
        )
    return left, right


class RegressionErrors(StreamingMetric):
    """RMSE, MAE and R² of predicted numbers, as "rmse", "mae" and "r2".

    RMSE and MAE are taken over all numbers of all examples, in the unit that `scale` converts to. R² is
    `1 - sum (y - p)² / sum (y - mean(y))²` in each dimension, averaged over dimensions with equal weights; `scale` does
    not change it.

    A dimension with constant targets has R² 1 where every prediction is exact, else 0. Targets count as constant where
    their variation is below rounding: a standard deviation of less than about a millionth of their distance to
    `reference`. A NaN or infinite prediction makes RMSE and MAE infinite and R² minus infinity.

    Args:
        scale: Factor from the numbers given to the unit of the report, one number or [D]: the standard deviation that
            standardised targets were divided by.
        reference: A value near the targets, one number or [D], about which squares are summed. It does not change the
            result; near the mean, it keeps the sums accurate. 0 for standardised targets.

    Example:
        >>> metric = RegressionErrors(scale=10.0, reference=0.0)
        >>> metric.update(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]))
        >>> metric.update(torch.tensor([4.0]), torch.tensor([4.0]))
        >>> {name: round(value, 4) for name, value in metric.compute().items()}
        {'rmse': 5.7735, 'mae': 3.3333, 'r2': 0.875}
    """

    described = (
        Metric(name="rmse", label="RMSE", better="lower", shown=True),
        Metric(name="mae", label="MAE", better="lower", shown=True),
        Metric(name="r2", label="R²", better="higher", shown=True),
    )

    def __init__(self, scale: Tensor | float, reference: Tensor | float):
        super().__init__()
        self.scale, self.reference = (torch.as_tensor(t, dtype=torch.float64) for t in (scale, reference))

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Count a batch: both [B] or [B, D]. Raises ValueError where the shapes differ."""
        predictions, targets = (t.double() for t in as_columns(predictions, targets))
        scale, reference = (t.to(targets.device) for t in (self.scale, self.reference))
        # a NaN, also that of inf - inf, is an infinite error
        errors = (predictions - targets).abs().nan_to_num(nan=torch.inf, posinf=torch.inf) * scale
        deviations = (targets - reference) * scale
        self.count(targets)
        self.add("errors", errors.sum(0))
        self.add("squared_errors", errors.square().sum(0))
        self.add("deviations", deviations.sum(0))
        self.add("squared_deviations", deviations.square().sum(0))

    def compute(self) -> dict[str, float]:
        n = self.total("examples")
        return {
            "rmse": float((self.total("squared_errors") / n).mean().sqrt()),
            "mae": float((self.total("errors") / n).mean()),
            "r2": float(self.r2().mean()),
        }

    def r2(self) -> Tensor:
        """R² in each dimension, float64 [D]."""
        residual, about = self.total("squared_errors"), self.total("squared_deviations")
        total = about - self.total("deviations").square() / self.total("examples")
        constant = total <= ROUNDING * about
        fit = 1 - residual / torch.where(constant, 1.0, total)
        fit = torch.where(constant, (residual == 0).double(), fit)
        # a broken target leaves NaN sums, a broken prediction an infinite residual
        return torch.where(residual.isfinite() & total.isfinite(), fit, -torch.inf)


def rmse(predictions: Tensor, targets: Tensor) -> float:
    """Root of the mean squared error over all numbers.

    Args:
        predictions: [B] or [B, D].
        targets: Of the same shape.

    Raises:
        ValueError: The shapes differ, or there is no example.

    Example:
        >>> rmse(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
        1.4142135623730951
    """
    return _errors(predictions, targets)["rmse"]


def mae(predictions: Tensor, targets: Tensor) -> float:
    """Mean absolute error over all numbers.

    Args:
        predictions: [B] or [B, D].
        targets: Of the same shape.

    Raises:
        ValueError: The shapes differ, or there is no example.

    Example:
        >>> mae(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
        1.0
    """
    return _errors(predictions, targets)["mae"]


def r2(predictions: Tensor, targets: Tensor) -> float:
    """Coefficient of determination, averaged over dimensions; see `RegressionErrors` for constant targets.

    Args:
        predictions: [B] or [B, D].
        targets: Of the same shape.

    Raises:
        ValueError: The shapes differ, or there is no example.

    Example:
        >>> r2(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0]))
        0.7857142857142857
    """
    return _errors(predictions, targets)["r2"]


def _errors(predictions: Tensor, targets: Tensor) -> dict[str, float]:
    # squares about the first target are exactly 0 where all targets are equal
    near = as_columns(predictions, targets)[1][:1].double().sum(0)
    metric = RegressionErrors(scale=1.0, reference=near)
    if len(targets):
        metric.update(predictions, targets)
    return metric.compute()
