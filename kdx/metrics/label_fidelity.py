"""How closely a student follows its teacher on several labels."""

from torch import Tensor
from torch.nn import functional as F

from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric


class LabelFidelity(StreamingMetric):
    """How closely a student follows its teacher's labels: "agreement", "kl" and "reverse_kl".

    Agreement is the share of labels on which both decide alike at a probability of one half; a logit that is not finite
    agrees with none. "kl" is KL(teacher || student) in nats between the two Bernoulli distributions of a label, summed
    over labels and averaged over examples; "reverse_kl" is KL(student || teacher).

    Example:
        >>> import torch
        >>> metric = LabelFidelity()
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, -1.0]]))
        >>> {name: round(value, 4) for name, value in metric.compute().items()}
        {'agreement': 0.5, 'kl': 0.4621, 'reverse_kl': 0.4621}
    """

    described = (
        Metric(name="agreement", label="agreement", unit="%", digits=2, better="higher", shown=True),
        Metric(name="kl", label="KL(teacher‖student) T=1", unit="nats", better="lower", shown=True),
        Metric(name="reverse_kl", label="KL(student‖teacher) T=1", unit="nats", better="lower"),
    )

    def update(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Count a batch: logits of both networks, [B, C] each."""
        student, teacher = student_logits.double(), teacher_logits.double()
        finite = student.isfinite() & teacher.isfinite()
        self.count(student)
        self.add("agreement", (((student >= 0) == (teacher >= 0)) & finite).double().mean(1).sum())
        self.add("kl", bernoulli_divergence(teacher, student).sum())
        self.add("reverse_kl", bernoulli_divergence(student, teacher).sum())

    def compute(self) -> dict[str, float]:
        return {name: self.mean(name) for name in ("agreement", "kl", "reverse_kl")}


def bernoulli_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) between the Bernoulli distributions of each label, in nats, from their log-odds.

    Args:
        p: Log-odds of p, float64 [B, C].
        q: Log-odds of q, float64 [B, C].

    Returns:
        float64 [B, C].

    Example:
        >>> import torch
        >>> bernoulli_divergence(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
        tensor([[0.]])
    """
    yes = p.sigmoid() * (F.logsigmoid(p) - F.logsigmoid(q))
    return yes + (-p).sigmoid() * (F.logsigmoid(-p) - F.logsigmoid(-q))
