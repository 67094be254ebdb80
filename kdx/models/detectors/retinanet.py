"""RetinaNet on a feature pyramid: each anchor is classified directly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from kdx.core.outputs import Outputs
from kdx.core.ranges import OpenFraction, PartialFraction, Positive, PositiveInt
from kdx.models.base import Net
from kdx.models.detectors.anchors import anchor_generator, anchors_for
from kdx.models.detectors.backbone import OfPyramid, Pyramid, pyramid
from kdx.models.detectors.detect import detections
from kdx.models.detectors.sampling import assigned


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Numbers of RetinaNet; torchvision's defaults are the paper's.

    Attributes:
        positive, negative: Overlap from which an anchor is an object, and below which it is background.
        candidates: Scored boxes of a level before suppression.
        min_score, detection_nms, max_detections: Of the detections of an image.
    """

    positive: OpenFraction
    negative: OpenFraction
    candidates: PositiveInt
    min_score: PartialFraction
    detection_nms: OpenFraction
    max_detections: PositiveInt


class RetinaNet(Net):
    """A one-stage detector built from torchvision's parts.

    Inputs are a mapping with "images" [B, C, H, W] and "sizes" [B, 2]; a learning one gets boxes, too. Outputs:

        logits: Of each class for each anchor, [B, A, C].
        stageN, fpnN: Maps of the backbone and the pyramid.
        anchors.deltas: Box regression of each anchor, [B, A, 4].
        anchors.labels, anchors.targets: With targets: the class of each anchor, C for background, -1 to ignore, [B, A],
            and the wanted regression [B, A, 4].
        detections: In evaluation mode without targets, [B, D, 6], see `kdx.tasks.boxes`.

    Args:
        pyramid: Backbone and pyramid.
        num_classes: C.
        anchor_sizes: Sides of the anchors of each level, in pixels.
        anchor_ratios: Height over width of the anchors.
        matching: Numbers of the matching and the suppression.

    References:
        Lin et al., "Focal Loss for Dense Object Detection", 2017. https://arxiv.org/abs/1708.02002; TorchVision
        maintainers, "TorchVision", 2016
    """

    def __init__(
        self,
        pyramid: Pyramid,
        num_classes: int,
        anchor_sizes: Sequence[Sequence[int]],
        anchor_ratios: Sequence[float],
        matching: Matching,
    ):
        from torchvision.models.detection._utils import BoxCoder, Matcher
        from torchvision.models.detection.retinanet import RetinaNetHead

        super().__init__()
        self.pyramid, self.num_classes, self.matching = pyramid, num_classes, matching
        self.anchors, count = anchor_generator(anchor_sizes, anchor_ratios, len(pyramid.levels))
        self.dense = RetinaNetHead(pyramid.channels, count, num_classes)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.matcher = Matcher(matching.positive, matching.negative, allow_low_quality_matches=True)

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        images, sizes = inputs["images"], inputs["sizes"]
        maps = self.pyramid(images)
        levels = [maps[role] for role in self.pyramid.roles]
        found = self.dense(levels)
        logits, deltas = found["cls_logits"], found["bbox_regression"].float()
        anchors = anchors_for(self.anchors, images, levels)
        features = {**maps, "anchors.deltas": deltas}
        learns = "boxes" in inputs
        if learns:
            labels, wanted = self.targets(anchors, inputs["boxes"], inputs["box_labels"], inputs["crowd"])
            features |= {"anchors.labels": labels, "anchors.targets": wanted}
        if not (self.training or learns):
            counts = [m.shape[2] * m.shape[3] * self.anchors.num_anchors_per_location()[0] for m in levels]
            features["detections"] = self.detections(anchors, counts, logits.float(), deltas, sizes)
        return Outputs(logits, features)

    @torch.no_grad()
    def targets(self, anchors: Tensor, boxes: Tensor, labels: Tensor, crowd: Tensor) -> tuple[Tensor, Tensor]:
        """Class of each anchor, C for background, -1 to ignore, [B, A]; wanted deltas [B, A, 4]."""
        match, kind = assigned(self.matcher, anchors, boxes, labels, crowd)
        found = torch.where(kind == 1, labels.gather(1, match), torch.where(kind == 0, self.num_classes, -1))
        image, anchor = (kind == 1).nonzero(as_tuple=True)
        wanted = torch.zeros(*found.shape, 4, device=anchors.device)
        wanted[image, anchor] = self.coder.encode_single(boxes[image, match[image, anchor]], anchors[anchor])
        return found, wanted

    @torch.no_grad()
    def detections(
        self, anchors: Tensor, counts: Sequence[int], logits: Tensor, deltas: Tensor, sizes: Tensor
    ) -> Tensor:
        """Detections [B, D, 6]: the best of each level, after suppression."""
        m, classes = self.matching, logits.shape[2]
        rows: list[Any] = []
        for b in range(len(sizes)):
            start = 0
            for count in counts:
                score = logits[b, start : start + count].sigmoid().flatten()
                best = score.topk(min(m.candidates, len(score))).indices
                best = best[score[best] > m.min_score]
                place, label = best // classes + start, best % classes
                box = self.coder.decode_single(deltas[b, place], anchors[place])
                # a row for each candidate, which has a score for its own class alone
                own = torch.zeros(len(best), classes, device=logits.device).scatter(
                    1, label[:, None], score[best, None]
                )
                rows.append((box[:, None], own, torch.full_like(best, b)))
                start += count
        boxes, scores, owner = (torch.cat(part) for part in zip(*rows, strict=True))
        return detections(boxes, scores, owner, sizes, m.min_score, m.detection_nms, m.max_detections)


def retinanet(
    num_classes: PositiveInt,
    anchor_sizes: Sequence[Sequence[int]],
    anchor_ratios: Sequence[Positive],
    matching: Matching,
    **own: Unpack[OfPyramid],
) -> RetinaNet:
    """RetinaNet on a backbone with a pyramid; see `RetinaNet` and `pyramid` for the arguments."""
    return RetinaNet(pyramid(**own), num_classes, anchor_sizes, anchor_ratios, matching)
