"""SRRL: the teacher's classifier gives the student's features the same logits as the teacher's features."""

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.notice import notice
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.adapters import pointwise
from kdx.losses.base.checks import require_same_logits
from kdx.losses.base.heads import classifier_of
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired


@full_precision
def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over all axes but the batch: [B]; the teacher gets no gradient.

    Example:
        >>> mean_square(torch.zeros(1, 4), torch.full((1, 4), 2.0))
        tensor([4.])
    """
    return (student - teacher.detach()).square().flatten(1).mean(1)


class SRRL(Paired):
    """Difference of pooled features, and of the logits that the teacher's classifier computes from them.

    A 1 x 1 convolution, a batch norm and a ReLU map the student's feature to the teacher's channels; they are trained,
    the classifier is not.

    Args:
        student_role: The student's last map, or its pooled vector.
        teacher_role: What the teacher's classifier reads: its pooled vector.
        feature_weight: Of the mean squared difference of pooled features; a number or a schedule.
        logit_weight: Of the mean squared difference of logits; a number or a schedule.

    References:
        Yang, Martinez, Bulat, Tzimiropoulos, "Knowledge Distillation via Softmax Regression Representation
        Learning", 2021. https://openreview.net/forum?id=ZzwDy_wiWv
    """

    reads_logits = True
    tasks = ONLY_CLASSES
    called = "SRRL"
    connector: nn.Module

    def __init__(
        self,
        student_role: str,
        teacher_role: str,
        feature_weight: NonNegative | Schedule,
        logit_weight: NonNegative | Schedule,
    ):
        super().__init__({student_role: teacher_role})
        self.feature_weight, self.logit_weight = feature_weight, logit_weight
        # tuples, so that they do not become submodules: they belong to the teacher
        self._teacher: tuple[nn.Module | None] = (None,)
        self._head: tuple[nn.Module, ...] = ()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self._teacher = (teacher,)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, theirs),) = self.shapes(student, teacher)
        require_same_logits(student, teacher, self.called)
        role, other = self.pairs[0]
        if len(mine) not in (1, 3) or len(theirs) != 1:
            raise ValueError(
                f"SRRL reads a map or a vector of the student and a vector of the teacher; without the batch axis, the "
                f"student's '{role}' has shape {mine}, the teacher's '{other}' {theirs}"
            )
        assert teacher is not None
        try:
            head = classifier_of(self._teacher[0], other, theirs[0], "teacher", self.called)
        except ValueError:
            if other != "pooled" or "pre_logits" not in teacher.features:
                raise
            notice("the teacher's classifier does not read 'pooled'; SRRL reads 'pre_logits' instead")
            other, theirs = "pre_logits", teacher.feature("pre_logits", "teacher")
            head = classifier_of(self._teacher[0], other, theirs[0], "teacher", self.called)
            self.pairs = ((role, other),)
        self._head = (head,)
        self.connector = nn.Sequential(*pointwise(mine[0], theirs[0]), nn.ReLU())

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        mine = self.connector(mine if mine.ndim == 4 else mine[:, :, None, None]).mean((2, 3))
        (head,) = self._head
        features = mean_square(mine, theirs)
        logits = mean_square(_frozen(head, mine), teacher.logits)
        return at(self.feature_weight, progress) * features + at(self.logit_weight, progress) * logits


def _frozen(head: nn.Module, x: Tensor) -> Tensor:
    """The head's output, without gradients for its parameters."""
    if isinstance(head, nn.Linear):
        return nn.functional.linear(x, head.weight.detach(), None if head.bias is None else head.bias.detach())
    state = {name: value.detach() for name, value in (*head.named_parameters(), *head.named_buffers())}
    return torch.func.functional_call(head, state, (x,))
