"""Colour and shape operations chosen at random for each sample: RandAugment and TrivialAugment."""

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
    """`num_ops` operations in a row for each sample, each drawn evenly from the same fourteen.

    RandAugment is the narrow ranges, two operations, one magnitude for all; TrivialAugment the wide ranges, one
    operation, a magnitude drawn for each. Both as torchvision plays them, on bytes, with black borders.

    Attributes:
        ranges: How strong the strongest magnitude is: RandAugment's ("narrow") or TrivialAugment's ("wide").
        num_ops: Operations in a row.
        magnitude: Strength on a scale of 0..30; None to draw it anew for each operation.

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
        """Operation, magnitude bin and sign of each step, uint8 [pool, num_ops, 3]."""
        size = (pool, self.num_ops)
        op = torch.randint(len(OPERATIONS), size, generator=generator)
        level = torch.randint(BINS, size, generator=generator)
        if self.magnitude is not None:
            level.fill_(self.magnitude)
        sign = torch.randint(2, size, generator=generator)
        return torch.stack((op, level, sign), 2).to(torch.uint8)

    def apply(self, images: Tensor, scale: int, drawn: Tensor) -> Tensor:
        """Images uint8 [B, H, W, C] and what was drawn for them, [B, num_ops, 3] -> uint8 [B, H, W, C]."""
        if scale != 255:
            raise DataError(f"a policy works on bytes 0..255, but the pixels of this data set end at {scale}")
        _, h, w, _ = images.shape
        table = magnitudes(self.ranges, BINS, h, w)
        images = images.permute(0, 3, 1, 2)
        for op, level, sign in (step.unbind(1) for step in drawn.long().unbind(1)):
            signed = SIGNED[op] & (sign == 1)
            strength = torch.where(signed, -table[op, level], table[op, level])
            images = operate(images, op, strength)
        return images.permute(0, 2, 3, 1)
