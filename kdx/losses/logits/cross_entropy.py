"""Cross-entropy with the labels, the supervised part of every recipe."""

from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import UNLABELLED, Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PartialFraction
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_vector
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term


@full_precision
def cross_entropy(student_logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of the student with hard or soft labels, in nats.

    Args:
        student_logits: [B, C].
        labels: Class indices [B], -1 for none, or class probabilities [B, C] where samples are mixed.
        label_smoothing: Share of the label's mass that is spread evenly over all C classes.

    Returns:
        [B]; 0 where the index is -1.

    References:
        Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer
        Vision", 2016 (label smoothing). https://arxiv.org/abs/1512.00567

    Example:
        >>> cross_entropy(torch.zeros(2, 10), torch.tensor([3, -1]), 0.0)  # log 10, and 0 without a label
        tensor([2.3026, 0.0000])
    """
    if labels.is_floating_point():
        labels = labels.to(student_logits.dtype)
        return F.cross_entropy(student_logits, labels, reduction="none", label_smoothing=label_smoothing)
    return F.cross_entropy(
        student_logits, labels, reduction="none", label_smoothing=label_smoothing, ignore_index=UNLABELLED
    )


def over_labelled(rows: Tensor, labels: Tensor) -> Tensor:
    """Set the rows of unlabelled examples to 0 and scale the others by B / num_labelled.

    The mean over the batch is then the mean over the labelled examples; 0 where there is none.

    Args:
        rows: Values [B].
        labels: Class indices [B], -1 for none.

    Returns:
        [B].

    Example:
        >>> over_labelled(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([0, 2, -1])).mean()
        tensor(2.)
    """
    known = labels >= 0
    return rows * (known * (len(labels) / known.sum().clamp(min=1)))


class CrossEntropy(Term):
    """Cross-entropy with the batch's labels, or with its soft labels where an augmentation mixes samples.

    Unlabelled examples have the value 0, and labelled ones are scaled by B / num_labelled, so that the mean over the
    batch is the mean over the labelled examples. The value of a batch with both is therefore not the sum of its parts'
    values.

    Args:
        label_smoothing: Share of the label's mass that is spread evenly over all classes; a number or a schedule.
    """

    needs_teacher = False
    skips_unlabelled = True

    def __init__(self, label_smoothing: PartialFraction | Schedule):
        super().__init__()
        self.label_smoothing = label_smoothing

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_vector(student, "student", "cross-entropy")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        labels = batch.labels if batch.soft_labels is None else batch.soft_labels
        rows = cross_entropy(student.logits, labels, at(self.label_smoothing, progress))
        return over_labelled(rows, batch.labels)
