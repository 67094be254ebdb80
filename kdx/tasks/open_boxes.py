"""Open-vocabulary detection: boxes of classes, some of which have no box in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.metric import Metric
from kdx.core.task import PairMetric
from kdx.metrics.open_detection import GeneralisedPrecision
from kdx.tasks.base import metric_of
from kdx.tasks.boxes import Boxes

BY_IMAGE = "by_image"


@dataclass(frozen=True)
class OpenBoxes(Boxes):
    """Boxes whose classes are base or novel ones, all scored together; measured by AP50 of either kind.

    Targets of a training batch, beside those of `Boxes`:
        by_image: Whether the scene has labels without boxes, bool [B]; equal for all scenes of a batch.
        pseudo_boxes, pseudo_labels: A box for each class of such a scene, [B, L, 4], and the class, -1 for padding.
        proposals, proposal_embeddings: Class-agnostic boxes [B, K, 4], and what a vision-language model says [B, K, D].

    Attributes:
        novel: Positions of the novel classes.
        count: Proposals of a scene, K; 0 without proposals.
        has_images: Whether there are batches of scenes that have labels without boxes.

    Example:
        >>> OpenBoxes(("car", "person"), (1,), 5, False).primary.heading
        'AP50 %'
    """

    novel: tuple[int, ...]
    count: int
    has_images: bool

    @property
    def described(self) -> Sequence[Metric]:
        return GeneralisedPrecision(self.classes, self.novel).described

    @property
    def primary(self) -> Metric:
        return metric_of(self.described, "ap50")

    def metrics(self) -> Mapping[str, PairMetric]:
        return {"precision": GeneralisedPrecision(self.classes, self.novel)}

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        """Two objects, and proposals without an embedding, in each scene; all have boxes."""
        boxes = torch.tensor([1.0, 2.0, 9.0, 8.0]).expand(size, max(self.count, 1), 4).contiguous()
        own = {
            BY_IMAGE: torch.zeros(size, dtype=torch.bool),
            "pseudo_boxes": boxes[:, :1],
            "pseudo_labels": torch.zeros(size, 1, dtype=torch.int64),
            "proposals": boxes,
            "proposal_embeddings": torch.zeros(size, max(self.count, 1), 1),
        }
        return {**super().made_up(size), **own}
