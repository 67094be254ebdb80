"""Detection: any number of objects in each image, each a box with a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.outputs import Outputs
from kdx.core.task import BOXES, PairMetric, Task
from kdx.metrics.detection import AveragePrecision, DetectionFidelity, described
from kdx.tasks.base import BaseTask, metric_of
from kdx.tasks.classes import Classes

DETECTIONS = "detections"
"""Role of a detector's detections [B, D, 6]: x1, y1, x2, y2 in pixels of the input, score, class; -1 for padding."""


@dataclass(frozen=True)
class Boxes(BaseTask):
    """Detections against boxes with classes; measured by average precision, as in the COCO benchmark.

    Targets of a batch, padded to N >= 1 objects:
        boxes: x1, y1, x2, y2 in pixels of the input, float [B, N, 4].
        box_labels: Class of each object, int64 [B, N]; -1 for padding.
        crowd: Whether the object is ignored, as crowds and difficult objects are, bool [B, N].
        areas: Area of the object in pixels of the original image, float [B, N].
        scales: Pixels of the input for each of the original image, along x and y, float [B, 2].

    Attributes:
        classes: Name of each class.

    Example:
        >>> Boxes(("car", "person")).primary.heading
        'AP %'
    """

    classes: tuple[str, ...]

    @property
    def kind(self) -> str:
        return BOXES

    @property
    def num_outputs(self) -> int:
        return len(self.classes)

    @property
    def each_row(self) -> Task:
        """The task of a region: one of the classes or background, which is the last."""
        return Classes(self.num_outputs + 1)

    @property
    def described(self) -> Sequence[Metric]:
        return described(self.classes)

    @property
    def primary(self) -> Metric:
        return metric_of(self.described, "ap")

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """None: in training a detector classifies regions, whose share of background says little."""
        return {}

    def metrics(self) -> Mapping[str, PairMetric]:
        return {"precision": AveragePrecision(self.classes)}

    def answer(self, outputs: Outputs) -> Tensor:
        """The detections [B, D, 6]. Raises UserError if the network gives none."""
        if DETECTIONS in outputs.features:
            return outputs.features[DETECTIONS]
        if outputs.logits.ndim == 3 and outputs.logits.shape[2] == 6:
            return outputs.logits  # an answer itself
        raise UserError(f"a network for boxes gives detections [B, D, 6] under the role '{DETECTIONS}'; this has none")

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Detections [B, D, 6] and truth [B, N, 8] in pixels of the original image, see `kdx.metrics.detection`."""
        scales = batch.target("scales").double().repeat(1, 2)[:, None]
        found, boxes = self.answer(outputs).double(), batch.target("boxes").double() / scales
        found = torch.cat([found[..., :4] / scales, found[..., 4:]], -1)
        number = batch.index[:, None].expand(boxes.shape[:2])
        rest = (batch.target("box_labels"), batch.target("crowd"), batch.target("areas"), number)
        return found, torch.cat([boxes, *(t.double()[..., None] for t in rest)], -1)

    def fidelity(self) -> PairMetric:
        return DetectionFidelity(self.num_outputs)

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Raises UserError: detections of several networks have no common rows."""
        raise UserError("an ensemble needs a task with classes, values or labels, and this task has boxes")

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """ "detections" float32 [B, D, 6], in pixels of the input."""
        return {DETECTIONS: self.answer(outputs).float()}

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        return {
            "boxes": batch.target("boxes").float(),
            "box_labels": batch.target("box_labels").int(),
            "crowd": batch.target("crowd"),
        }

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        """Two objects of a few pixels in each image; none in the last."""
        box = torch.tensor([[0.0, 0.0, 8.0, 8.0], [2.0, 1.0, 6.0, 9.0]]).expand(size, 2, 4).contiguous()
        labels = (torch.arange(size)[:, None] + torch.arange(2)) % self.num_outputs
        labels[-1:] = -1
        crowd, areas = torch.zeros(size, 2, dtype=torch.bool), torch.full((size, 2), 64.0)
        return {"boxes": box, "box_labels": labels, "crowd": crowd, "areas": areas, "scales": torch.ones(size, 2)}
