"""Synthetic images with a learnable signal."""

from dataclasses import dataclass

import torch

from kdx.core.ranges import Count, NonNegative, PositiveInt
from kdx.core.seed import generator
from kdx.data.dataset import LabelledImages
from kdx.data.sets import TensorSet


@dataclass(frozen=True, kw_only=True)
class Synthetic(LabelledImages):
    """A coarse random pattern per class plus pixel noise: any size, no files, the same on every machine.

    Attributes:
        train_size: Number of training examples; labels cycle through the classes.
        test_size: Number of test examples; labels cycle through the classes.
        noise: Standard deviation of the pixel noise, in units where white is 1.
        seed: Seed of the patterns and the noise.
    """

    train_size: PositiveInt
    test_size: PositiveInt
    noise: NonNegative
    seed: Count

    def load(self) -> tuple[TensorSet, TensorSet]:
        return self._make("train", self.train_size), self._make("test", self.test_size)

    def _make(self, split: str, size: int) -> TensorSet:
        c, h, w = self.input_shape
        # 4x4 blocks, so that a shift by a few pixels keeps the pattern
        coarse = torch.rand(self.num_classes, c, 4, 4, generator=generator(self.seed, "synthetic", "patterns"))
        patterns = torch.nn.functional.interpolate(coarse, size=(h, w), mode="nearest").permute(0, 2, 3, 1)
        labels = torch.arange(size) % self.num_classes
        g = generator(self.seed, "synthetic", split)
        images = torch.empty(size, h, w, c, dtype=torch.uint8)
        for s in range(0, size, 1024):
            part = patterns[labels[s : s + 1024]]
            part = part + self.noise * torch.randn(part.shape, generator=g)
            images[s : s + 1024] = part.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
        return TensorSet(images, labels, 255)
