"""MGD: the student generates the teacher's features from its own masked ones."""

from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PartialFraction
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.features.at import to_common_size

Masked = Literal["channels", "positions"]


@full_precision
def generation_error(generated: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared difference, summed over all axes but the batch.

    Args:
        generated: [B, C, H, W].
        teacher_features: [B, C, H, W]; gets no gradient.

    Returns:
        [B].

    References:
        Yang, Li, Shao, Shi, Yuan, Yuan, "Masked Generative Distillation", 2022. https://arxiv.org/abs/2205.01529

    Example:
        >>> generation_error(torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3))
        tensor([18.])
    """
    return examples(generated - teacher_features.detach()).square().sum(1)


class MGD(Paired):
    """Error with which two 3 x 3 convolutions generate the teacher's map from the student's masked map.

    Where the numbers of channels differ, a 1 x 1 convolution first maps the student's feature to the teacher's
    channels; the larger map is pooled to the smaller one. The masks of each example are drawn from the global stream.

    Args:
        student_role: The student's map.
        teacher_role: The teacher's map.
        masked: What is masked as a whole: channels (the authors' code for classification) or positions
            (their paper, and their code for detection).
        mask_fraction: Expected share that is masked; a number or a schedule.
    """

    called = "MGD"
    align: nn.Module
    generate: nn.Module

    def __init__(self, student_role: str, teacher_role: str, masked: Masked, mask_fraction: PartialFraction | Schedule):
        super().__init__({student_role: teacher_role})
        if masked not in ("channels", "positions"):
            raise ValueError(f"masked must be 'channels' or 'positions', got {masked!r}")
        self.masked, self.mask_fraction = masked, mask_fraction

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, theirs),) = self.maps(student, teacher)
        width = theirs[0]
        self.align = nn.Identity() if mine[0] == width else nn.Conv2d(mine[0], width, 1)
        self.generate = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        mine, theirs = to_common_size(mine, theirs)
        aligned = self.align(mine)
        size, channels, *places = aligned.shape
        shape = (size, channels, 1, 1) if self.masked == "channels" else (size, 1, *places)
        kept = torch.rand(shape, device=aligned.device) >= at(self.mask_fraction, progress)
        return generation_error(self.generate(aligned * kept), theirs)
