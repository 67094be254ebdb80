"""Regression: K numbers for each example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.metric import Metric
from kdx.core.outputs import Outputs
from kdx.core.task import VALUES, PairMetric
from kdx.metrics.fidelity import ValueFidelity
from kdx.metrics.regression import RegressionErrors
from kdx.tasks.base import BaseTask, describe, metric_of


@dataclass(frozen=True)
class Values(BaseTask):
    """Outputs [B, K] against standardised target values [B, K]; measured by RMSE, MAE and R².

    Attributes:
        mean: Mean of each target over the training set, subtracted to standardise; K numbers.
        std: Standard deviation of each target, the divisor. Errors are measured in the targets' own units.

    Example:
        >>> Values((152.1,), (77.0,)).primary.heading
        'RMSE'
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def kind(self) -> str:
        return VALUES

    @property
    def num_outputs(self) -> int:
        return len(self.mean)

    @property
    def described(self) -> Sequence[Metric]:
        return describe(RegressionErrors.described)

    @property
    def primary(self) -> Metric:
        return metric_of(RegressionErrors.described, "rmse")

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Mean squared error of the standardised values."""
        errors = (outputs.logits - batch.target("values")).square().mean(1)
        return {"mse": (errors.sum(), torch.full((), len(errors), device=errors.device))}

    def metrics(self) -> Mapping[str, PairMetric]:
        return {"errors": RegressionErrors(scale=torch.tensor(self.std), reference=0.0)}

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        return outputs.logits.float(), batch.target("values")

    def fidelity(self) -> PairMetric:
        return ValueFidelity(scale=torch.tensor(self.std))

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Mean of the networks' values, [B, K]."""
        return torch.stack(list(logits)).mean(0)

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """ "value" float32 [B, K], in the targets' own units."""
        mean, std = (torch.tensor(t, device=outputs.logits.device) for t in (self.mean, self.std))
        return {"value": (outputs.logits.double() * std + mean).float()}

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        values = batch.target("values")
        mean, std = (torch.tensor(t, device=values.device) for t in (self.mean, self.std))
        return {"target": (values.double() * std + mean).float()}

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        return {"values": torch.linspace(-1, 1, size)[:, None].expand(-1, self.num_outputs).contiguous()}
