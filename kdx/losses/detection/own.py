"""The losses of a two-stage detector, each a term of its own: objectness, proposals, classes and boxes of regions.

They read what `kdx.models.detectors.faster_rcnn.FasterRCNN` gives under a method that passes targets, such as
`kdx.methods.detect.Detect`. An example's value is the mean over its own sampled anchors or regions. So several
processes can divide a batch, and its mean is torchvision's where all images have samples of one size.

References:
    Ren et al., "Faster R-CNN", 2015. https://arxiv.org/abs/1506.01497
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.core.task import BOXES, Kinds
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.term import Term

ONLY_BOXES: Kinds = frozenset({BOXES})
BETA = 1 / 9
"""Error below which the loss of a box is quadratic, as in torchvision."""


class DetectorTerm(Term):
    """A term on features of a detector.

    Attributes:
        reads: Roles that the student must have.
        on_boxes: Whether it reads batches of scenes with boxes.
        on_images: Whether it reads batches of scenes that have labels without boxes.
    """

    tasks = ONLY_BOXES
    reads_logits = False
    needs_teacher = False
    reads: tuple[str, ...] = ()
    on_boxes: ClassVar[bool] = True
    on_images: ClassVar[bool] = False

    def student_roles(self) -> tuple[str, ...]:
        return self.reads

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        for whose, shapes in (("student", student), ("teacher", teacher if self.needs_teacher else None)):
            absent = [role for role in self.reads if shapes is not None and role not in shapes.features]
            if absent:
                raise ValueError(
                    f"{type(self).__name__} reads '{absent[0]}', which the {whose} does not give: two-stage detectors "
                    "(faster_rcnn) give rpn and regions, one-stage ones (retinanet) anchors"
                )


def target(outputs: Outputs, role: str) -> Tensor:
    """A target that the network drew. Raises ValueError if it got no boxes.

    Example:
        >>> target(Outputs(torch.zeros(1, 2), {"rpn.labels": torch.ones(1)}), "rpn.labels")
        tensor([1.])
    """
    if role not in outputs.features:
        raise ValueError(f"the detector gives '{role}' where it gets boxes: method._target_=kdx.methods.detect.Detect")
    return outputs.features[role]


def per_example(values: Tensor, owner: Tensor, size: int) -> Tensor:
    """Sum of the values [N] of each example, [size], added in the same order on every run.

    Example:
        >>> per_example(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 1]), 3)
        tensor([1., 5., 0.])
    """
    member = owner == torch.arange(size, device=owner.device)[:, None]
    return member.to(values.dtype) @ values


def owners(outputs: Outputs) -> Tensor:
    """The image of each region, [N]. Raises ValueError if rows of the logits are no regions.

    Example:
        >>> owners(Outputs(torch.zeros(2, 3), owner=torch.tensor([0, 0])))
        tensor([0, 0])
    """
    if outputs.owner is None:
        raise ValueError("this term reads regions, and the rows of this network's logits have no owner")
    return outputs.owner


@full_precision
def objectness_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy over the sampled anchors of each example, [B].

    Args:
        logits: [B, A].
        labels: 1 for an object, 0 for background, -1 for an anchor that is left out, [B, A].

    Example:
        >>> objectness_loss(torch.zeros(1, 3), torch.tensor([[1, 0, -1]]))
        tensor([0.6931])
    """
    sampled = labels >= 0
    loss = F.binary_cross_entropy_with_logits(logits, (labels == 1).to(logits.dtype), reduction="none")
    return (loss * sampled).sum(1) / sampled.sum(1).clamp(min=1)


@full_precision
def anchor_box_loss(deltas: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
    """Smooth L1 over the positive anchors, divided by the number of sampled ones, [B].

    Args:
        deltas, wanted: Box regression, and the one wanted, [B, A, 4].
        labels: As in `objectness_loss`.

    Example:
        >>> anchor_box_loss(torch.ones(1, 2, 4), torch.zeros(1, 2, 4), torch.tensor([[1, 0]]))
        tensor([1.8889])
    """
    loss = F.smooth_l1_loss(deltas, wanted, beta=BETA, reduction="none").sum(2)
    return (loss * (labels == 1)).sum(1) / (labels >= 0).sum(1).clamp(min=1)


@full_precision
def region_class_loss(logits: Tensor, labels: Tensor, owner: Tensor, size: int) -> Tensor:
    """Cross-entropy over the regions of each example, [size]; a label of -1 leaves a region out.

    Args:
        logits: [N, C + 1].
        labels: Class of each region, [N].
        owner: Its example, [N].
        size: Number of examples.

    Example:
        >>> region_class_loss(torch.zeros(3, 2), torch.tensor([0, 1, -1]), torch.tensor([0, 0, 1]), 2)
        tensor([0.6931, 0.0000])
    """
    loss = F.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
    counts = per_example((labels >= 0).to(loss.dtype), owner, size)
    return per_example(loss, owner, size) / counts.clamp(min=1)


@full_precision
def region_box_loss(
    deltas: Tensor, wanted: Tensor, labels: Tensor, background: int, owner: Tensor, size: int
) -> Tensor:
    """Smooth L1 over the regions of objects, divided by the number of regions of the example, [size].

    Args:
        deltas: Box regression of each class or of all, [N, C, 4] or [N, 1, 4].
        wanted: [N, 4].
        labels: Class of each region; `background` or more, and -1, have no box, [N].
        background: Number of the background class, C.
        owner, size: As in `region_class_loss`.

    Example:
        >>> one, none = torch.ones(2, 1, 4), torch.zeros(2, 4)
        >>> region_box_loss(one, none, torch.tensor([0, 3]), 3, torch.tensor([0, 0]), 1)
        tensor([1.8889])
    """
    real = (labels >= 0) & (labels < background)
    column = labels.clamp(0, deltas.shape[1] - 1)
    mine = deltas[torch.arange(len(labels), device=labels.device), column]
    loss = F.smooth_l1_loss(mine, wanted, beta=BETA, reduction="none").sum(1) * real
    counts = per_example((labels >= 0).to(loss.dtype), owner, size)
    return per_example(loss, owner, size) / counts.clamp(min=1)


class Objectness(DetectorTerm):
    """Whether anchors hold an object: the RPN's classification loss."""

    reads = ("rpn.logits",)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return objectness_loss(student.feature("rpn.logits"), target(student, "rpn.labels"))


class ProposalBoxes(DetectorTerm):
    """Regression loss of the RPN, on anchors that are objects."""

    reads = ("rpn.deltas",)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        wanted, labels = target(student, "rpn.targets"), target(student, "rpn.labels")
        return anchor_box_loss(student.feature("rpn.deltas"), wanted, labels)


class RegionClasses(DetectorTerm):
    """Class of each region, background included."""

    reads = ("regions",)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        labels = target(student, "regions.labels")
        return region_class_loss(student.logits, labels, owners(student), len(batch))


class RegionBoxes(DetectorTerm):
    """Regression loss of the regions that are objects, relative to the regions."""

    reads = ("regions", "regions.deltas")

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        super().build(student, teacher, spec)
        self.background = spec.task.num_outputs

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        wanted, labels = target(student, "regions.targets"), target(student, "regions.labels")
        deltas = student.feature("regions.deltas")
        return region_box_loss(deltas, wanted, labels, self.background, owners(student), len(batch))
