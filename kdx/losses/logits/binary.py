"""Binary losses: each class is a binary problem of its own."""

from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PartialFraction, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.core.task import CLASSES, LABELS
from kdx.losses.base.checks import require_same_logits, require_vector
from kdx.losses.base.numerics import full_precision, soft_log_probs, tempered
from kdx.losses.base.term import Term
from kdx.losses.logits.cross_entropy import over_labelled
from kdx.losses.logits.kd import Reduction, over_classes
from kdx.losses.logits.labels import label_cross_entropy


@full_precision
def binary_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, reduction: Reduction
) -> Tensor:
    """Binary cross-entropy of each student logit with the teacher's probability of the class.

    The teacher's probabilities are a softmax at T, the student's are sigmoids at 1. The student's logits then estimate
    log-odds, and their softmax at test time is not calibrated.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T of the teacher, above 0.
        reduction: 'mean' over classes, as in the authors' code, or 'batchmean' for their sum.

    Returns:
        [B], in nats.

    References:
        Hao, Guo, Han, Hu, Xu, Wang, "Revisit the Power of Vanilla Knowledge Distillation: from Small Scale to
        Large Scale", 2023. https://arxiv.org/abs/2305.15781

    Example:
        >>> z = torch.zeros(1, 4)  # sigmoids of 1/2: log 2 per class, whatever the teacher's probabilities
        >>> torch.allclose(binary_cross_entropy(z, torch.randn(1, 4), 1.0, "mean"), torch.tensor([2.0]).log())
        True
    """
    p = soft_log_probs(teacher_logits.detach(), temperature).exp()
    cells = F.binary_cross_entropy_with_logits(student_logits, p, reduction="none")
    return over_classes(cells.sum(1), cells.shape[1], reduction)


@full_precision
def binary_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, reduction: Reduction
) -> Tensor:
    """`T^2 KL` between the two Bernoulli distributions of each label, sigmoids at T on both sides.

    For data in which several labels may hold at once. The gradient is `T (sigmoid(z / T) - sigmoid(v / T))` for each
    label.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T, above 0.
        reduction: 'mean' over labels, or 'batchmean' for their sum.

    Returns:
        [B], in nats.

    References:
        Yang, Xie, Zong, Feng, Niu, Sugiyama, Huang, "Multi-Label Knowledge Distillation", 2023 (its baseline).
        https://arxiv.org/abs/2308.06453

    Example:
        >>> z = torch.randn(2, 4)
        >>> binary_divergence(z, z, 4.0, "mean")
        tensor([0., 0.])
    """
    z, v = tempered(student_logits, temperature), tempered(teacher_logits.detach(), temperature)
    yes = v.sigmoid() * (F.logsigmoid(v) - F.logsigmoid(z))
    no = (-v).sigmoid() * (F.logsigmoid(-v) - F.logsigmoid(-z))
    return over_classes((yes + no).sum(1) * temperature**2, z.shape[1], reduction)


class BinaryCrossEntropy(Term):
    """Binary cross-entropy of the student's logits with the teacher's softmax.

    Args:
        temperature: T of the teacher, a number or a schedule.
        reduction: 'mean' (over classes) or 'batchmean' (their sum).
    """

    measure = staticmethod(binary_cross_entropy)

    def __init__(self, temperature: Positive | Schedule, reduction: Reduction):
        super().__init__()
        self.temperature = temperature
        self.reduction: Reduction = reduction

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, type(self).__name__)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return self.measure(student.logits, teacher.logits, at(self.temperature, progress), self.reduction)


class HardBinaryCrossEntropy(Term):
    """Binary cross-entropy of the student's logits with the labels of classes, mixed and smoothed, as timm's.

    Args:
        label_smoothing: Share of the label's mass that is spread evenly over all classes; a number or a schedule.
        reduction: 'mean' (over classes, as in timm) or 'batchmean' (their sum).

    References:
        Wightman, Touvron, Jegou, "ResNet strikes back: An improved training procedure in timm", 2021.
        https://arxiv.org/abs/2110.00476
    """

    needs_teacher = False
    skips_unlabelled = True

    def __init__(self, label_smoothing: PartialFraction | Schedule, reduction: Reduction):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.reduction: Reduction = reduction

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_vector(student, "student", "binary cross-entropy")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        classes = student.logits.shape[1]
        given = batch.soft_labels
        # an unlabelled example has some target here, and the value 0 below
        target = F.one_hot(batch.labels.clamp(min=0), classes) if given is None else given
        share = at(self.label_smoothing, progress)
        target = target.to(student.logits.dtype) * (1 - share) + share / classes
        return over_labelled(label_cross_entropy(student.logits, target, self.reduction), batch.labels)


class BinaryKL(BinaryCrossEntropy):
    """Divergence of the Bernoulli distributions of each label, times T^2.

    Args:
        temperature: T of both sides, a number or a schedule.
        reduction: 'mean' (over labels) or 'batchmean' (their sum).
    """

    tasks = frozenset({CLASSES, LABELS})
    measure = staticmethod(binary_divergence)
