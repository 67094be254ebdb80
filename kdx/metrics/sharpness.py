"""Sharpness of predictions: how far the largest logits stand out."""

from torch import Tensor

from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric

SMALLEST = 1e-6


class SharpnessGap(StreamingMetric):
    """Relative difference of the mean sharpness of student and teacher, as "sharpness".

    The sharpness of an example is the logarithm of the sum of the exponentials of its centred logits: log C for a
    uniform prediction over C classes, and about the largest logit for a certain one. Centred, since a constant added to
    all logits changes no prediction.

    References:
        Guo, "Reducing the Teacher-Student Gap via Adaptive Temperatures", 2021 (log-sum-exp as sharpness; from memory).

    Example:
        >>> metric = SharpnessGap()
        >>> metric.update(torch.zeros(2, 3), torch.zeros(2, 3) + 7)
        >>> metric.compute()
        {'sharpness': 0.0}
    """

    described = (Metric(name="sharpness", label="sharpness gap", digits=3, better="lower"),)

    def update(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Add a batch: logits of both networks, [B, C] each."""
        self.count(student_logits)
        for name, logits in (("student", student_logits), ("teacher", teacher_logits)):
            rows = logits.double()
            self.add(name, (rows - rows.mean(1, keepdim=True)).logsumexp(1).sum())

    def compute(self) -> dict[str, float]:
        mine, theirs = self.mean("student"), self.mean("teacher")
        return {"sharpness": abs(theirs - mine) / (abs(theirs) + SMALLEST)}
