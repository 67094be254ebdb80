"""The contract of a metric that streams over batches."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from kdx.core.metric import Metric


class StreamingMetric:
    """Sums over examples, in float64 on the device of the data; a subclass adds `update` and `compute`.

    Every state is a sum, so a short last batch counts exactly, and adding the `sums` of several processes gives the
    metric over all of them. No value leaves the device before `compute`.

    Attributes:
        described: The metrics that `compute` returns, by their short names.
    """

    described: ClassVar[Sequence[Metric]] = ()

    def __init__(self):
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, amount: Tensor) -> None:
        """Add to one of the sums."""
        amount = amount.detach().double()
        self.sums[name] = self.sums[name] + amount if name in self.sums else amount

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Add the sums over other examples."""
        for name, amount in sums.items():
            self.add(name, amount.to(self.sums[name].device) if name in self.sums else amount)

    def total(self, name: str) -> Tensor:
        """One of the sums. Raises ValueError before the first update."""
        if name not in self.sums:
            raise ValueError(f"{type(self).__name__} has seen no examples, so there is nothing to compute")
        return self.sums[name]

    def mean(self, name: str) -> float:
        """One of the sums divided by the number of examples, which `update` counts as "examples"."""
        return float(self.total(name) / self.total("examples"))

    def count(self, batch: Tensor) -> None:
        """Count the examples of a batch [B, ...]."""
        self.add("examples", torch.full((), len(batch), device=batch.device))

    def compute(self) -> dict[str, float]:
        """The metrics by name."""
        raise NotImplementedError
