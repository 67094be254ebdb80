"""PS-KD: the network's predictions of the previous epoch soften its labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Probability
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_vector
from kdx.losses.base.term import Term
from kdx.losses.logits.cross_entropy import cross_entropy


class PastPredictions(Term):
    """Cross-entropy with `(1 - share) label + share p`, where p is the prediction of the example's previous visit.

    The memory holds C numbers for each training example and is part of a checkpoint. Before an example's first visit,
    its label replaces p.

    Args:
        share: Weight of the past prediction; a number or a schedule.

    Raises:
        UserError: Examples are mixed, so the past prediction belongs to another image.

    References:
        Kim, Ji, Yoon, Hwang, "Self-Knowledge Distillation with Progressive Refinement of Targets", 2021.
        https://arxiv.org/abs/2006.12000
    """

    needs_teacher = False
    divisible = False
    keyed_by_index = True
    memory: Tensor

    def __init__(self, share: Probability | Schedule):
        super().__init__()
        self.share = share

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_vector(student, "student", "PS-KD")
        require_labels(spec, "PS-KD")
        # rows of probabilities; zeros before an example's first visit
        self.register_buffer("memory", torch.zeros(spec.num_examples, spec.num_classes))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        if batch.soft_labels is not None:
            raise UserError(
                "PS-KD stores the prediction of each example, which mixed examples do not have; choose an augmentation "
                "without mixing"
            )
        logits = student.logits
        labels = F.one_hot(batch.labels, logits.shape[1]).to(logits.dtype)
        past = self.memory[batch.index].to(logits.dtype)
        past = torch.where(past.sum(1, keepdim=True) > 0, past, labels)
        targets = labels.lerp(past, at(self.share, progress))
        if self.training:
            self.memory[batch.index] = logits.detach().softmax(1).to(self.memory.dtype)
        return cross_entropy(logits, targets, 0.0)
