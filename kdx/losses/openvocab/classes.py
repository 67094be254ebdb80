"""Regions against class names: base classes from boxes, all classes from pseudo boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.detection.own import DetectorTerm, owners, per_example, target


@full_precision
def seen_class_loss(logits: Tensor, labels: Tensor, seen: Tensor, owner: Tensor, size: int) -> Tensor:
    """Binary cross-entropy of each region with each class that has boxes: sum over classes, mean over regions, [size].

    The target of a background region is zero for all classes. Columns of other classes get no gradient.

    Args:
        logits: [N, C].
        labels: Class of each region, [N]; C or more for background; -1 leaves a region out.
        seen: Which classes have boxes, bool [C].
        owner: Example of each region, [N].
        size: Number of examples.

    References:
        Rasheed et al., "Bridging the Gap between Object and Image-level Representations for Open-Vocabulary
        Detection", 2022. https://arxiv.org/abs/2207.03482 (its code; the paper writes a softmax)

    Example:
        >>> loss = seen_class_loss(torch.zeros(2, 3), torch.tensor([0, 3]), torch.tensor([1, 1, 0]), torch.zeros(2), 1)
        >>> torch.allclose(loss, 2 * torch.tensor([2.0]).log())
        True
    """
    wanted = (labels[:, None] == torch.arange(logits.shape[1], device=labels.device)).to(logits.dtype)
    cells = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    counted = (labels >= 0).to(logits.dtype)
    rows = torch.where(seen.bool(), cells, 0.0).sum(1) * counted
    return per_example(rows, owner, size) / per_example(counted, owner, size).clamp(min=1)


class SeenClasses(DetectorTerm):
    """Classes of the regions of scenes with boxes; classes that are left out are not compared."""

    reads = ("regions",)
    seen: Tensor

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        super().build(student, teacher, spec)
        self.register_buffer("seen", torch.ones(spec.task.num_outputs, dtype=torch.bool), persistent=False)

    def leave_out(self, novel: Sequence[int]) -> None:
        """Leave out the classes at these positions, which have no boxes."""
        self.seen[list(novel)] = False

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        labels = target(student, "regions.labels")
        return seen_class_loss(student.logits[:, :-1], labels, self.seen, owners(student), len(batch))


class PseudoBoxes(DetectorTerm):
    """Classes of the pseudo boxes of image-labelled scenes, over all classes: mean over a scene's labels.

    Only the classifier and the layers below it learn from it; boxes and objectness do not.
    """

    reads = ("regions",)
    on_boxes, on_images = False, True

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        labels = batch.target("pseudo_labels").flatten()
        logits = student.logits[:, :-1]
        every = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        return seen_class_loss(logits, labels, every, owners(student), len(batch))
