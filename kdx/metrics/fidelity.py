"""Fidelity of a student to its teacher, independent of the labels."""

import torch
from torch import Tensor

from kdx.core.functional import divergence
from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Whether both networks predict the same class, bool [B]; False where one of them gives NaN.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].

    Example:
        >>> agreement(torch.tensor([[2.0, 1.0]]), torch.tensor([[9.0, 0.0]]))
        tensor([True])
    """
    valid = ~(student_logits.isnan().any(1) | teacher_logits.isnan().any(1))
    return (student_logits.argmax(1) == teacher_logits.argmax(1)) & valid


def prediction_divergence(logits: Tensor, other_logits: Tensor) -> Tensor:
    """KL(p || q) at temperature 1, in nats, between the predictions p and q.

    Args:
        logits: Of p, [B, C].
        other_logits: Of q, [B, C].

    Returns:
        float64 [B].

    Example:
        >>> z = torch.randn(2, 5)
        >>> prediction_divergence(z + 3, z).abs().max() < 1e-12
        tensor(True)
    """
    return divergence(logits.double().log_softmax(1), other_logits.double().log_softmax(1))


class ClassFidelity(StreamingMetric):
    """Agreement of predictions and both KL divergences at temperature 1, means over examples.

    Reports "agreement" (fraction), "kl" = KL(teacher || student) and "reverse_kl" = KL(student || teacher) (nats).

    References:
        Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", 2021.
        https://arxiv.org/abs/2106.05945
    """

    described = (
        Metric(name="agreement", label="agreement", unit="%", digits=2, better="higher", shown=True),
        Metric(name="kl", label="KL(teacher‖student) T=1", unit="nats", better="lower", shown=True),
        Metric(name="reverse_kl", label="KL(student‖teacher) T=1", unit="nats", better="lower"),
    )

    def update(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Add a batch: logits of both networks, [B, C] each."""
        self.count(student_logits)
        self.add("agreement", agreement(student_logits, teacher_logits).sum())
        self.add("kl", prediction_divergence(teacher_logits, student_logits).sum())
        self.add("reverse_kl", prediction_divergence(student_logits, teacher_logits).sum())

    def compute(self) -> dict[str, float]:
        return {name: self.mean(name) for name in ("agreement", "kl", "reverse_kl")}


class ValueFidelity(StreamingMetric):
    """Root of the mean squared difference between a student's and a teacher's values, as "rmse_to_teacher".

    Args:
        scale: Factor from the numbers given to the unit of the report, one number or [K].

    Example:
        >>> metric = ValueFidelity(scale=10.0)
        >>> metric.update(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
        >>> round(metric.compute()["rmse_to_teacher"], 4)
        7.0711
    """

    described = (Metric(name="rmse_to_teacher", label="RMSE to teacher", better="lower", shown=True),)

    def __init__(self, scale: Tensor | float):
        super().__init__()
        self.scale = torch.as_tensor(scale, dtype=torch.float64)

    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Count a batch: values of both networks, [B, K] each."""
        gaps = (student.double() - teacher.double()) * self.scale.to(student.device)
        self.count(gaps)
        self.add("squares", gaps.square().mean(1).sum())

    def compute(self) -> dict[str, float]:
        return {"rmse_to_teacher": self.mean("squares") ** 0.5}
