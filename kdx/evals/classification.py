"""Accuracy and calibration of a classifier."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.core.types import Batch
from kdx.evals.base import SplitEvaluator, computed, network
from kdx.metrics.accuracy import TopK
from kdx.metrics.base import Metric
from kdx.metrics.calibration import Calibration

BINS = 15  # the number that calibration papers use


class Classification(SplitEvaluator):
    """Measures `{split}/top1`, `top5` (from 5 classes on), `nll` (nats), `brier` and `ece` (15 bins).

    Args:
        model: Role of the network to measure. For roles other than the student, the metric names carry
            the role: `teacher/test/top1`.
        loaders, device, split, every: As in `SplitEvaluator`.
    """

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Batch]],
        device: torch.device,
        split: str,
        model: str,
        every: Positive | None,
    ):
        super().__init__(loaders, device, split, every)
        self.model = model

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        net = network(models, self.model)
        prefix = f"{self.split}/" if self.model == "student" else f"{self.model}/{self.split}/"
        return {prefix + name: value for name, value in self.measure(net).items()}

    @torch.no_grad()
    def measure(self, net: nn.Module) -> dict[str, float]:
        """The measurements of a network in evaluation mode, by short name; several processes divide the batches."""
        accuracy, calibration = None, Calibration(bins=BINS)
        for batch in self.share(net):
            if accuracy is None and bool((batch.labels < 0).any()):
                raise UserError(f"accuracy needs labels, and the split '{self.split}' of this transfer set has none")
            logits = net(batch.inputs).logits.float()
            if accuracy is None:
                accuracy = TopK(ks=(1, 5) if logits.shape[1] >= 5 else (1,))
            accuracy.update(logits, batch.labels)
            calibration.update(logits, batch.labels)
        metrics: dict[str, Metric] = {} if accuracy is None else {"accuracy": accuracy, "calibration": calibration}
        return computed(metrics, lambda: {k: v for m in metrics.values() for k, v in m.compute().items()}, net)
