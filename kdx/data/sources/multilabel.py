"""Made-up images in which several labels hold at once, with labels that depend on each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.ranges import Count, NonNegative, OpenFraction, PartialFraction, PositiveInt
from kdx.core.seed import generator
from kdx.data.dataset import ImageDataset
from kdx.data.sets import DataError, TensorSet
from kdx.tasks.labels import Labels

FACTORS = 3
"""Hidden numbers of each example that its labels depend on."""
AMPLITUDE = 0.25
"""Size of a label's pattern, in units where white is 1."""


@dataclass(frozen=True, kw_only=True)
class SyntheticLabels(ImageDataset):
    """Sums of the coarse patterns of the labels that hold, under pixel noise: any size, no files, the same everywhere.

    A label holds where a normal score exceeds a threshold. A share of each score's variance comes from three factors
    that all labels of an example have in common, so some labels come together and others exclude each other.

    Attributes:
        num_classes: Number of labels C.
        train_size: Number of training examples.
        test_size: Number of test examples.
        prevalence: Probability that a label holds, averaged over labels; it rises from half of that for the first label
            to one and a half times for the last.
        shared: Share of a score's variance that comes from the common factors; 0 for independent labels.
        noise: Standard deviation of the pixel noise, in units where white is 1.
        seed: Chooses patterns, dependence, labels and noise.
    """

    num_classes: PositiveInt
    train_size: PositiveInt
    test_size: PositiveInt
    prevalence: OpenFraction
    shared: PartialFraction
    noise: NonNegative
    seed: Count

    @property
    def task(self) -> Labels:
        if self.prevalence >= 2 / 3:
            raise DataError(f"prevalence must be below 2/3, since one label has 1.5 times of it; got {self.prevalence}")
        return Labels(self.num_classes)

    def load(self) -> tuple[TensorSet, TensorSet]:
        return self._make("train", self.train_size), self._make("test", self.test_size)

    def _make(self, split: str, size: int) -> TensorSet:
        presence = correlated_labels(size, self.num_classes, self.prevalence, self.shared, self.seed, split)
        images = patterned_images(presence, self.input_shape, self.noise, self.seed, split)
        return TensorSet(images, {"presence": presence.float()}, 255)


def loadings(num_labels: int, seed: int) -> Tensor:
    """Direction of each label's score in the space of the factors, unit vectors float64 [C, 3]."""
    drawn = torch.randn(num_labels, FACTORS, generator=generator(seed, "multilabel", "loadings"), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def correlated_labels(size: int, num_labels: int, prevalence: float, shared: float, seed: int, split: str) -> Tensor:
    """Which labels hold, bool [size, num_labels]; see `SyntheticLabels` for the arguments.

    The scores of two labels correlate by `shared` times the cosine of their loadings.
    """
    draws = generator(seed, "multilabel", "labels", split)
    factors, own = (torch.randn(size, n, generator=draws, dtype=torch.float64) for n in (FACTORS, num_labels))
    scores = math.sqrt(shared) * factors @ loadings(num_labels, seed).T + math.sqrt(1 - shared) * own
    wanted = prevalence * torch.linspace(0.5, 1.5, num_labels, dtype=torch.float64)
    return scores > -torch.special.ndtri(wanted)


def patterned_images(presence: Tensor, shape: Sequence[int], noise: float, seed: int, split: str) -> Tensor:
    """An image for each row of labels, uint8 [N, H, W, C]: grey, the patterns of the labels that hold, and noise.

    Args:
        presence: bool [N, labels].
        shape: (C, H, W).
        noise: Standard deviation, in units where white is 1.
        seed, split: Choose patterns (the seed alone) and noise.
    """
    c, h, w = shape
    # 4x4 blocks, so that the pattern survives a shift by a few pixels
    coarse = torch.rand(presence.shape[1], c, 4, 4, generator=generator(seed, "multilabel", "patterns")) * 2 - 1
    patterns = torch.nn.functional.interpolate(coarse, size=(h, w), mode="nearest").permute(0, 2, 3, 1)
    g = generator(seed, "multilabel", "noise", split)
    images = torch.empty(len(presence), h, w, c, dtype=torch.uint8)
    for s in range(0, len(presence), 1024):
        part = 0.5 + AMPLITUDE * torch.tensordot(presence[s : s + 1024].float(), patterns, 1)
        part = part + noise * torch.randn(part.shape, generator=g)
        images[s : s + 1024] = part.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return images
