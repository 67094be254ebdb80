"""RandAugment and TrivialAugment: random colour and shape operations for each sample."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kdx.core.ranges import Count, PositiveInt
from kdx.data.sets import DataError
from kdx.data.views.ops import OPERATIONS, SIGNED, magnitudes, operate

BINS = 31


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Apply `num_ops` operations in sequence to each sample, each drawn uniformly from fourteen.

    RandAugment uses the narrow ranges, two operations and one fixed magnitude; TrivialAugment uses the wide ranges, one
    operation and a random magnitude. Both follow torchvision: on bytes, with black borders.

    Attributes:
        ranges: Range of the magnitudes: RandAugment's ("narrow") or TrivialAugment's ("wide").
        num_ops: Number of operations in sequence.
        magnitude: Magnitude on a scale of 0..30; None to draw one for each operation.

    References:
        E. Cubuk, B. Zoph, J. Shlens, Q. Le. RandAugment: Practical automated data augmentation with a reduced
        search space. NeurIPS 2020. https://arxiv.org/abs/1909.13719
        S. Mueller, F. Hutter. TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation. ICCV 2021.
        https://arxiv.org/abs/2103.10158
    """

    ranges: Literal["narrow", "wide"]
    num_ops: PositiveInt
    magnitude: Count | None

    def __post_init__(self) -> None:
        if self.magnitude is not None and self.magnitude >= BINS:
            raise ValueError(f"magnitude must lie in 0..{BINS - 1}, got {self.magnitude}")

    def draw(self, pool: int, generator: torch.Generator) -> Tensor:
        """Draw the operation, magnitude bin and sign of each step, uint8 [pool, num_ops, 3]."""
        size = (pool, self.num_ops)
        op = torch.randint(len(OPERATIONS), size, generator=generator)
        level = torch.randint(BINS, size, generator=generator)
        if self.magnitude is not None:
            level.fill_(self.magnitude)
        sign = torch.randint(2, size, generator=generator)
        return torch.stack((op, level, sign), 2).to(torch.uint8)

    def apply(self, images: Tensor, scale: int, drawn: Tensor) -> Tensor:
        """Apply the drawn operations [B, num_ops, 3] to images uint8 [B, H, W, C]; returns uint8 [B, H, W, C]."""
        if scale != 255:
            raise DataError(f"an augmentation policy needs pixels 0..255, but this data set has 0..{scale}")
        _, h, w, _ = images.shape
        table = magnitudes(self.ranges, BINS, h, w)
        images = images.permute(0, 3, 1, 2)
        for op, level, sign in (step.unbind(1) for step in drawn.long().unbind(1)):
            signed = SIGNED[op] & (sign == 1)
            strength = torch.where(signed, -table[op, level], table[op, level])
            images = operate(images, op, strength)
        return images.permute(0, 2, 3, 1)
