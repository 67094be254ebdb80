"""ICKD: the correlations between channels."""

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.adapters import Initial, pointwise
from kdx.losses.base.memory_format import channel_products, positions
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired


@full_precision
def channel_correlation(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared difference of the rows of the two channel correlation matrices, each scaled to length 1, divided by C.

    Args:
        student_features: [B, C, H, W], with the teacher's channels.
        teacher_features: [B, C, H', W']; gets no gradient.

    Returns:
        [B].

    References:
        Liu, Huang, Lin, Zhang, Wang, Shen, Yuille, Hu, "Exploring Inter-Channel Correlation for
        Diversity-preserved Knowledge Distillation", 2021. https://arxiv.org/abs/2202.03680

    Example:
        >>> maps = torch.randn(2, 3, 4, 4)
        >>> channel_correlation(2 * maps, maps).abs().max() < 1e-12
        tensor(True)
    """
    flat = (positions(features) for features in (student_features, teacher_features.detach()))
    mine, theirs = (unit(channel_products(f), 2) for f in flat)
    return (mine - theirs).square().sum(2).mean(1)


class ICKD(Paired):
    """Difference of the inter-channel correlations (ICKD-C, the variant for classification).

    A 1 x 1 convolution and a batch norm map the student's feature to the teacher's channels.

    Args:
        student_role: The student's map.
        teacher_role: The teacher's map; its size may differ.
        initial: Initialisation of the convolution: 'he' (normal over fan_out) or 'torch' (its default, uniform).
    """

    called = "ICKD"
    embed: nn.Module

    def __init__(self, student_role: str, teacher_role: str, initial: Initial = "he"):
        super().__init__({student_role: teacher_role})
        if initial not in ("he", "torch"):
            raise ValueError(f"initial must be 'he' or 'torch', got {initial!r}")
        self.initial: Initial = initial

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, theirs),) = self.maps(student, teacher)
        self.embed = pointwise(mine[0], theirs[0], self.initial)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return channel_correlation(self.embed(mine), theirs)
