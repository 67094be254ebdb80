"""Random points of a square, for functions that are their own teachers."""

from dataclasses import dataclass

import torch

from kdx.core.ranges import Count, PositiveInt
from kdx.core.seed import generator
from kdx.data.dataset import Dataset
from kdx.data.sets import TensorSet


@dataclass(frozen=True, kw_only=True)
class Plane(Dataset):
    """Points drawn at random from a grid of 256 x 256 or more dimensions, as images of one row: any number, no files.

    A coordinate is (k / 255 - mean) / std with k from 0 to 255. There is one class, that of all points.

    Attributes:
        train_size: Number of training points.
        test_size: Number of test points.
        seed: Chooses them.
    """

    train_size: PositiveInt
    test_size: PositiveInt
    seed: Count

    def load(self) -> tuple[TensorSet, TensorSet]:
        return self._draw("train", self.train_size), self._draw("test", self.test_size)

    def _draw(self, split: str, size: int) -> TensorSet:
        c, h, w = self.input_shape
        g = generator(self.seed, "plane", split)
        points = torch.randint(256, (size, h, w, c), generator=g, dtype=torch.uint8)
        return TensorSet(points, torch.zeros(size, dtype=torch.int64), 255)
