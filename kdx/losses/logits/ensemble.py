"""Terms on the members of an ensemble; a single teacher is an ensemble of one."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.functional import divergence, mean_log_probs
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_same_logits
from kdx.losses.base.heads import holder_of
from kdx.losses.base.numerics import full_precision, soft_log_probs
from kdx.losses.base.term import Term
from kdx.losses.base.weighting import Weighting
from kdx.losses.logits.kd import Reduction, over_classes

Mean = Literal["arithmetic", "geometric"]
Across = Literal["mean", "sum", "count"]


@full_precision
def softened_mean(members: Tensor, weights: Tensor, temperature: float, mean: Mean) -> Tensor:
    """Log of the mean of softened distributions.

    Args:
        members: Logits [M, B, C].
        weights: Non-negative weights [B, M] with a positive sum per row; normalised to sum 1.
        temperature: T of every softmax.
        mean: 'arithmetic' gives probability to each class that any member supports; 'geometric' (normalised, the mean
            of logits) only to those that no member rules out.

    Returns:
        Log-probabilities [B, C].

    Raises:
        ValueError: An unknown mean.

    Example:
        >>> members, weights = torch.randn(2, 3, 5), torch.ones(3, 2)
        >>> expected = members.softmax(2).mean(0)
        >>> torch.allclose(softened_mean(members, weights, 1.0, "arithmetic").exp(), expected)
        True
    """
    weights = (weights / weights.sum(1, keepdim=True)).T.unsqueeze(2)
    log_p = (members / temperature).log_softmax(2)
    if mean == "arithmetic":
        return mean_log_probs(log_p, weights)
    if mean == "geometric":
        return (log_p * weights).sum(0).log_softmax(1)
    raise ValueError(f"mean must be 'arithmetic' or 'geometric', got {mean!r}")


class Members(Term):
    """Base of the terms on members: finds the members and their weights.

    Args:
        weighting: Weight of each member for each sample.
    """

    def __init__(self, weighting: Weighting):
        super().__init__()
        self.weighting = weighting
        self._own: Sequence[float] = ()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        ensemble = holder_of(teacher, "members")
        self._own = () if ensemble is None else ensemble.weights

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        if self.weighting.reads_labels:
            require_labels(spec, "weighing teachers by their cross-entropy")

    def weigh(self, teacher: Outputs, batch: Batch) -> tuple[tuple[Outputs, ...], Tensor]:
        """The members, and their weights [B, M]."""
        members = teacher.members or (teacher,)
        # an ensemble of networks with other classes than its own counts as one member
        own = self._own if len(self._own) == len(members) else (1.0,) * len(members)
        logits = [m.logits.detach() for m in members]
        # filled in on the device, since a copy from the CPU would make a GPU wait
        return members, self.weighting(logits, torch.stack([logits[0].new_full((), w) for w in own]), batch)


class EnsembleKD(Members):
    """Divergence of the softened student from the mean of the softened members, times T^2.

    The mean is taken at the term's temperature, independently of the rule that combines the members' logits elsewhere.

    Args:
        temperature: T, a number or a schedule.
        mean: Mean of the members' softened distributions: 'arithmetic' or 'geometric'.
        weighting: Weight of each member in it.
        reduction: As in `KD`.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
        https://arxiv.org/abs/1503.02531
    """

    def __init__(self, temperature: Positive | Schedule, mean: Mean, weighting: Weighting, reduction: Reduction):
        super().__init__(weighting)
        if mean not in ("arithmetic", "geometric"):
            raise ValueError(f"mean must be 'arithmetic' or 'geometric', got {mean!r}")
        self.temperature = temperature
        self.mean: Mean = mean
        self.reduction: Reduction = reduction

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        super().build(student, teacher, spec)
        require_same_logits(student, teacher, "EnsembleKD")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        members, weights = self.weigh(teacher, batch)
        temperature = at(self.temperature, progress)
        log_p = softened_mean(torch.stack([m.logits.detach() for m in members]), weights, temperature, self.mean)
        log_q = soft_log_probs(student.logits, temperature)
        return over_classes(divergence(log_p, log_q) * temperature**2, log_q.shape[1], self.reduction)


class EachMember(Members):
    """Another term with each member as its teacher, summed with weights.

    For divergences and equal weights, its gradient is that of the divergence from the arithmetic mean.

    Args:
        term: A term on logits, such as KD, DKD or LogitMSE, without parameters.
        weighting: Weight of each member.
        across: 'mean' normalises the weights of a sample to sum 1; 'sum' takes them as they are, 1 by default; 'count'
            divides that sum by the number of members, as the code of CA-MKD does.

    Raises:
        ValueError: A term that reads no teacher, reads features or has parameters.
    """

    def __init__(self, term: Term, weighting: Weighting, across: Across):
        super().__init__(weighting)
        name = type(term).__name__
        if not term.needs_teacher:
            raise ValueError(f"EachMember sums a term over teachers, but {name} reads no teacher")
        if term.teacher_roles() or any(True for _ in term.parameters()):
            raise ValueError(f"EachMember sums a term on logits without parameters, which {name} is not")
        if across not in ("mean", "sum", "count"):
            raise ValueError(f"across must be 'mean', 'sum' or 'count', got {across!r}")
        self.term = term
        self.skips_unlabelled, self.keyed_by_index = term.skips_unlabelled, term.keyed_by_index
        self.across: Across = across

    def student_roles(self) -> tuple[str, ...]:
        return self.term.student_roles()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().attach(student, teacher)
        self.term.attach(student, teacher)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        super().build(student, teacher, spec)
        self.term.build(student, teacher, spec)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        members, weights = self.weigh(teacher, batch)
        if self.across == "mean":
            weights = weights / weights.sum(1, keepdim=True)
        elif self.across == "count":
            weights = weights / len(members)
        rows = [self.term(student, member, batch, progress) for member in members]
        return (torch.stack(rows, 1) * weights).sum(1)
