"""MLKD: predictions aligned per sample, between samples and between classes, at several temperatures."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_same_logits
from kdx.losses.base.numerics import full_precision, soft_log_probs
from kdx.losses.base.term import Term
from kdx.losses.base.wrapper import Wrapper
from kdx.losses.logits.kd import kl_divergence

Kept = Literal["all", "each", "share"]


@full_precision
def least_confident(logits: Tensor) -> Tensor:
    """1 for each sample whose highest probability is at most the median of the batch, else 0: [B, C] to [B].

    The median of an even number of samples is the mean of the middle two.

    Example:
        >>> least_confident(torch.tensor([[9.0, 0.0], [1.0, 0.0], [3.0, 0.0]]))
        tensor([0., 1., 1.])
    """
    values = logits.softmax(1).amax(1)
    return (values <= torch.quantile(values, 0.5)).to(values.dtype)


@full_precision
def least_predicted(logits: Tensor) -> Tensor:
    """1 for each class whose probability, summed over the batch, is at most the median class's, else 0.

    Args:
        logits: [B, C].

    Returns:
        [C].

    Example:
        >>> least_predicted(torch.tensor([[9.0, 0.0, 1.0]]))
        tensor([0., 1., 1.])
    """
    values = logits.softmax(1).sum(0)
    return (values <= torch.quantile(values, 0.5)).to(values.dtype)


def _check(keep: str) -> None:
    if keep not in ("all", "each", "share"):
        raise ValueError(f"keep must be 'all', 'each' or 'share', got {keep!r}")


@full_precision
def sample_alignment(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Squared differences of the rows of `P P^T`, the similarities of the predictions of a batch's samples.

    The mean over the batch is `||P_t P_t^T - P_s P_s^T||_F^2 / B`.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T of both softmaxes, above 0.

    Returns:
        [B].

    References:
        Jin, Wang, Lin, "Multi-Level Logit Distillation", 2023.
        https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html

    Example:
        >>> z = torch.randn(4, 5)
        >>> sample_alignment(z.flip(1), z, 2.0).abs().max() < 1e-10  # the order of the classes does not matter
        tensor(True)
    """
    p, q = (soft_log_probs(z, temperature).exp() for z in (teacher_logits.detach(), student_logits))
    return (p @ p.T - q @ q.T).square().sum(1)


@full_precision
def class_alignment(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Squared differences of the rows of `P^T P`, the products of the predicted probabilities of classes over a batch.

    The mean over classes is `||P_t^T P_t - P_s^T P_s||_F^2 / C`.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        temperature: T of both softmaxes, above 0.

    Returns:
        [C].

    References:
        As in `sample_alignment`.

    Example:
        >>> z = torch.randn(4, 5)
        >>> class_alignment(z.flip(0), z, 2.0).abs().max() < 1e-10  # the order of the samples does not matter
        tensor(True)
    """
    p, q = (soft_log_probs(z, temperature).exp() for z in (teacher_logits.detach(), student_logits))
    return (p.T @ p - q.T @ q).square().sum(1)


class InstanceAlignment(Term):
    """Softened divergence times T^2, summed over temperatures.

    Args:
        temperatures: Each T, a number or a schedule.
    """

    def __init__(self, temperatures: Sequence[Positive | Schedule]):
        super().__init__()
        if not temperatures:
            raise ValueError(f"{type(self).__name__} needs at least one temperature")
        self.temperatures = tuple(temperatures)
        # learned temperatures are registered, so that they are trained and saved
        self.learned = nn.ModuleList(t for t in temperatures if isinstance(t, nn.Module))

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "MLKD")

    def rows(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Value at one temperature, [B]."""
        return kl_divergence(student, teacher, temperature, "batchmean")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        numbers = [at(t, progress) for t in self.temperatures]
        return torch.stack([self.rows(student.logits, teacher.logits, t) for t in numbers]).sum(0)


class SampleAlignment(InstanceAlignment):
    """Difference of the samples' similarities, summed over temperatures. Arguments as in `InstanceAlignment`."""

    divisible = False

    def rows(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        return sample_alignment(student, teacher, temperature)


class ClassAlignment(InstanceAlignment):
    """Difference of the classes' similarities, summed over temperatures; equal for all examples of a batch.

    Args:
        temperatures: Each T, a number or a schedule.
        keep: 'all' classes; 'each' class whose probability, summed over the batch by the teacher at T = 1, is at most
            the median over classes (the others count 0); or 'share', all classes times the share of those.
    """

    divisible = False

    def __init__(self, temperatures: Sequence[Positive | Schedule], keep: Kept):
        super().__init__(temperatures)
        _check(keep)
        self.keep: Kept = keep

    def rows(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        cells = class_alignment(student, teacher, temperature)
        if self.keep != "all":
            kept = least_predicted(teacher.detach())
            cells = cells * (kept if self.keep == "each" else kept.mean())
        return cells.mean().expand(len(student))


class LeastConfident(Wrapper):
    """Another term, on the half of a batch on which the teacher is least confident.

    The mean stays over the whole batch.

    Args:
        term: The inner term. The confidence is that of the teacher's own logits, also where the inner term changes
            them.
        keep: 'all' samples; 'each' sample whose highest probability by the teacher at T = 1 is at most the median over
            samples (the others count 0); or 'share', all samples times the share of those.
    """

    divisible = False

    def __init__(self, term: Term, keep: Kept):
        super().__init__(term)
        _check(keep)
        self.keep: Kept = keep

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "MLKD")
        super().build(student, teacher, spec)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows = self.term(student, teacher, batch, progress)
        if self.keep == "all":
            return rows
        kept = least_confident(teacher.logits.detach())
        return rows * (kept if self.keep == "each" else kept.mean())
