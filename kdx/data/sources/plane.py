"""Random points of a square, and a function's values at these points, for regression."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.outputs import Outputs
from kdx.core.ranges import Count, PositiveInt
from kdx.core.seed import generator
from kdx.data.dataset import ImageDataset
from kdx.data.sets import TensorSet
from kdx.data.units import standardised_values
from kdx.tasks.values import Values


@dataclass(frozen=True, kw_only=True)
class Plane(ImageDataset):
    """Random points of a grid with 256 values per coordinate and two or more coordinates, as images of one row.

    A coordinate is (k / 255 - mean) / std with k from 0 to 255. The target of a point is its function value, minus
    `target_mean`, divided by `target_std`.

    Attributes:
        num_outputs: K, the number of values of a point.
        function: Maps points [B, C, H, W] to outputs whose logits are the values [B, K].
        target_mean: Number subtracted from each of the K values.
        target_std: Divisor of each value after that.
        train_size: Number of training points.
        test_size: Number of test points.
        seed: Seed of the points.
    """

    num_outputs: PositiveInt
    function: Callable[[Tensor], Outputs]
    target_mean: Sequence[float]
    target_std: Sequence[float]
    train_size: PositiveInt
    test_size: PositiveInt
    seed: Count

    @property
    def task(self) -> Values:
        return standardised_values(self.num_outputs, self.target_mean, self.target_std)

    def load(self) -> tuple[TensorSet, TensorSet]:
        return self._draw("train", self.train_size), self._draw("test", self.test_size)

    def _draw(self, split: str, size: int) -> TensorSet:
        c, h, w = self.input_shape
        g = generator(self.seed, "plane", split)
        points = torch.randint(256, (size, h, w, c), generator=g, dtype=torch.uint8)
        mean, std = (torch.tensor(list(t)) for t in (self.mean, self.std))
        with torch.no_grad():
            values = self.function(((points / 255 - mean) / std).permute(0, 3, 1, 2)).logits
        values = (values - torch.tensor(list(self.target_mean))) / torch.tensor(list(self.target_std))
        return TensorSet(points, {"values": values}, 255)
