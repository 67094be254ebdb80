"""Mean squared difference of two maps, pooled to the same size; the loss of SimKD."""

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.memory_format import examples
from kdx.losses.base.pairs import Paired
from kdx.losses.features.at import to_common_size


class MapMSE(Paired):
    """Mean squared difference of two maps with the same channels; the larger is pooled to the smaller.

    Args:
        student_role: The student's map.
        teacher_role: The teacher's map.

    References:
        Chen, Mei, Zhang, Wang, Feng, Chen, "Knowledge Distillation with the Reused Teacher Classifier", 2022.
        https://arxiv.org/abs/2203.14001
    """

    called = "MapMSE"

    def __init__(self, student_role: str, teacher_role: str):
        super().__init__({student_role: teacher_role})

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, theirs),) = self.maps(student, teacher)
        if mine[0] != theirs[0]:
            role, other = self.pairs[0]
            raise ValueError(
                f"maps are compared channel by channel, but the student's '{role}' has {mine[0]} and the teacher's "
                f"'{other}' {theirs[0]}"
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        mine, theirs = to_common_size(mine, theirs)
        return examples(mine - theirs).square().mean(1)
