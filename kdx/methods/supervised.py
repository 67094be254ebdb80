"""Learning from labels alone: the baseline of every table and the method that trains teachers."""

from collections.abc import Mapping

from torch import nn

from kdx.core.batch import Batch
from kdx.core.method import Method
from kdx.core.outputs import Step
from kdx.core.ranges import PartialFraction
from kdx.core.schedule import Progress, Schedule, Weight
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_some_labels
from kdx.losses.logits.cross_entropy import CrossEntropy


class Supervised(Method):
    """Runs the student on the batch and compares it with the labels; no teacher.

    Args:
        student: A network that returns `Outputs`.
        spec: Facts of the training data.
        weights: A number or a schedule for "ce".
        label_smoothing: Share of the label's mass that is spread over all classes.

    Raises:
        ValueError: No example has a label.
    """

    uses_teacher = False
    frozen = ()

    def __init__(
        self,
        student: nn.Module,
        spec: DataSpec,
        weights: Mapping[str, Weight],
        label_smoothing: PartialFraction | Schedule,
    ):
        super().__init__()
        require_some_labels(spec, "learning from labels")
        self.student = student
        self.weights = dict(weights)
        self.ce = CrossEntropy(label_smoothing=label_smoothing)

    def models(self) -> Mapping[str, nn.Module]:
        return {"student": self.student}

    def forward(self, batch: Batch, progress: Progress) -> Step:
        outputs = self.student(batch.inputs).float()
        return Step({"ce": self.ce(outputs, None, batch, progress).mean()}, outputs=outputs.detach())
