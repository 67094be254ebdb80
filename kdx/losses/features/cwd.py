"""CWD: each channel's distribution over positions."""

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.functional import divergence
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import positions
from kdx.losses.base.numerics import full_precision, soft_log_probs
from kdx.losses.base.pairs import Paired
from kdx.losses.features.at import to_common_size


@full_precision
def channel_divergence(student_features: Tensor, teacher_features: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(p || q)` of the softmax over positions, teacher p and student q, averaged over channels.

    The larger map is pooled to the smaller one first.

    Args:
        student_features: [B, C, H, W], with the teacher's channels.
        teacher_features: [B, C, H', W']; gets no gradient.
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Shu, Liu, Gao, Yan, Shen, "Channel-wise Knowledge Distillation for Dense Prediction", 2021.
        https://arxiv.org/abs/2011.13256

    Example:
        A constant added to a channel does not change its distribution.

        >>> maps = torch.randn(2, 3, 4, 4)
        >>> channel_divergence(maps + 7, maps, 4.0).abs().max() < 1e-5
        tensor(True)
    """
    pair = to_common_size(student_features, teacher_features.detach())
    log_q, log_p = (soft_log_probs(positions(maps), temperature) for maps in pair)
    return temperature**2 * divergence(log_p, log_q).mean(1)


class CWD(Paired):
    """Divergence of each channel's distribution over positions.

    Where the numbers of channels differ, a 1 x 1 convolution maps the student's feature to the teacher's channels.

    Args:
        student_role: The student's map.
        teacher_role: The teacher's map.
        temperature: T of both softmaxes; a number or a schedule.
    """

    called = "CWD"
    align: nn.Module

    def __init__(self, student_role: str, teacher_role: str, temperature: Positive | Schedule):
        super().__init__({student_role: teacher_role})
        self.temperature = temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, theirs),) = self.maps_of_positions(student, teacher)
        self.align = nn.Identity() if mine[0] == theirs[0] else nn.Conv2d(mine[0], theirs[0], 1)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return channel_divergence(self.align(mine), theirs, at(self.temperature, progress))
