"""Faster R-CNN on a feature pyramid: one forward gives maps, RPN outputs, regions with logits, and detections.

One class whose methods share matchers, coders and numbers of the sampling, so it stays in one file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.outputs import Outputs
from kdx.core.ranges import OpenFraction, PartialFraction, Positive, PositiveInt
from kdx.models.base import Net
from kdx.models.detectors.anchors import anchor_generator, anchors_for
from kdx.models.detectors.backbone import OfPyramid, Pyramid, pyramid
from kdx.models.detectors.detect import detections
from kdx.models.detectors.roi_align import is_small, places, pyramid_roi_align
from kdx.models.detectors.sampling import assigned, balanced, uniform

SMALLEST = 1e-3  # side of a proposal, in pixels
TARGETS = ("boxes", "box_labels", "crowd", "draws")
"""Inputs of a learning detector beside images: targets, and a number for each example's draws."""


class Regions(NamedTuple):
    """Boxes of several images, [N, 4] in pixels of the input, and the position of each one's image, [N]."""

    boxes: Tensor
    owner: Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Numbers of Faster R-CNN; torchvision's defaults are the paper's.

    Attributes:
        rpn_positive, rpn_negative: Overlap from which an anchor is positive, and below which it is negative.
        rpn_batch, rpn_share: Anchors of an image that the RPN learns from, and the largest share of positives.
        pre_nms, post_nms: Proposals of a level before, and of an image after non-maximum suppression.
        proposal_nms: Overlap from which the weaker of two proposals is suppressed.
        region_positive: Overlap from which a region is an object; all others are background.
        region_batch, region_share: Regions of an image that the head learns from, and the largest share of objects.
        min_score, detection_nms, max_detections: Of the detections of an image.
    """

    rpn_positive: OpenFraction
    rpn_negative: OpenFraction
    rpn_batch: PositiveInt
    rpn_share: OpenFraction
    pre_nms: PositiveInt
    post_nms: PositiveInt
    proposal_nms: OpenFraction
    region_positive: OpenFraction
    region_batch: PositiveInt
    region_share: OpenFraction
    min_score: PartialFraction
    detection_nms: OpenFraction
    max_detections: PositiveInt


class OfRCNN(TypedDict):
    """The numbers of a `FasterRCNN`, which its subclasses accept beside their own arguments."""

    num_classes: int
    anchor_sizes: Sequence[Sequence[int]]
    anchor_ratios: Sequence[float]
    resolution: int
    width: int
    sampling: Sampling


class FasterRCNN(Net):
    """A two-stage detector built from torchvision's parts.

    Inputs are a mapping with "images" [B, C, H, W] and "sizes" [B, 2]. With `TARGETS` in it the regions are proposals
    and objects, sampled; with "regions" [N, 4] and "owner" [N] they are these, so that a teacher answers for the
    regions of its student; otherwise they are the proposals. Outputs:

        logits, owner: Classes of each region [N, C + 1], background last; the image of each.
        stageN, fpnN: Maps of the backbone and the pyramid.
        rpn.logits, rpn.deltas: Objectness [B, A] and boxes [B, A, 4] of all anchors.
        regions, regions.pooled, regions.deltas: Boxes [N, 4], vectors [N, D] that the classifier reads, and box
            regression [N, C or 1, 4].
        rpn.labels, rpn.targets, regions.labels, regions.targets: With targets: 1, 0 or -1 for each anchor [B, A], and
            the wanted regression [B, A, 4]; class of each region [N], C for background, and its regression [N, 4].
        detections: In evaluation mode without targets and regions, [B, D, 6], see `kdx.tasks.boxes`.

    Args:
        pyramid: Backbone and pyramid.
        num_classes: C.
        anchor_sizes: Sides of the anchors of each level, in pixels.
        anchor_ratios: Height over width of the anchors.
        resolution: Cells along a side of a region's pooled map.
        width: Width D of the head's two layers.
        class_agnostic: Whether one box regression serves all classes.
        sampling: Numbers of the sampling and the suppression.

    References:
        Ren et al., "Faster R-CNN", 2015. https://arxiv.org/abs/1506.01497; TorchVision maintainers, "TorchVision", 2016
    """

    def __init__(
        self,
        pyramid: Pyramid,
        num_classes: int,
        anchor_sizes: Sequence[Sequence[int]],
        anchor_ratios: Sequence[float],
        resolution: int,
        width: int,
        class_agnostic: bool,
        sampling: Sampling,
    ):
        from torchvision.models.detection._utils import BoxCoder, Matcher
        from torchvision.models.detection.faster_rcnn import TwoMLPHead
        from torchvision.models.detection.rpn import RPNHead
        from torchvision.ops import MultiScaleRoIAlign

        super().__init__()
        self.pyramid, self.num_classes, self.sampling = pyramid, num_classes, sampling
        self.anchors, count = anchor_generator(anchor_sizes, anchor_ratios, len(pyramid.levels))
        self.rpn = RPNHead(pyramid.channels, count)
        self.pool = MultiScaleRoIAlign(pyramid.roles, resolution, 2)
        self.embed = TwoMLPHead(pyramid.channels * resolution**2, width)
        self.classifier: nn.Module = nn.Linear(width, num_classes + 1)
        self.regressor: nn.Module = nn.Linear(width, 4 * (1 if class_agnostic else num_classes))
        self.rpn_coder, self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.rpn_matcher = Matcher(sampling.rpn_positive, sampling.rpn_negative, allow_low_quality_matches=True)
        self.matcher = Matcher(sampling.region_positive, sampling.region_positive, allow_low_quality_matches=False)

    @property
    def head(self) -> nn.Linear:
        assert isinstance(self.classifier, nn.Linear)
        return self.classifier

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        images, sizes = inputs["images"], inputs["sizes"]
        maps = self.pyramid(images)
        anchors, counts, logits, deltas = self.dense(images, maps)
        features = {**maps, "rpn.logits": logits, "rpn.deltas": deltas}
        learns, asked = "boxes" in inputs, "regions" in inputs
        if asked:
            regions = Regions(inputs["regions"], inputs["owner"])
        else:
            regions = self.proposals(anchors, counts, logits.detach(), deltas.detach(), sizes)
        if learns:
            targets = [inputs[name] for name in TARGETS]
            found, wanted = self.anchor_targets(anchors, *targets)
            features |= {"rpn.labels": found, "rpn.targets": wanted}
            if not asked:
                regions, labels, boxes = self.region_targets(regions, *targets)
                features |= {"regions.labels": labels, "regions.targets": boxes}
        pooled = self.pooled(maps, regions, images)
        classes, offsets = self.classifier(pooled), self.regressor(pooled).unflatten(1, (-1, 4))
        features |= {"regions": regions.boxes, "regions.pooled": pooled, "regions.deltas": offsets}
        if not (self.training or learns or asked):
            features["detections"] = self.detections(regions, classes, offsets, sizes)
        return Outputs(classes, features, owner=regions.owner)

    def dense(self, images: Tensor, maps: Mapping[str, Tensor]) -> tuple[Tensor, list[int], Tensor, Tensor]:
        """Anchors [A, 4], their number in each level, and the RPN's logits [B, A] and deltas [B, A, 4]."""
        levels = [maps[role] for role in self.pyramid.roles]
        logits, deltas = self.rpn(levels)
        found = anchors_for(self.anchors, images, levels)
        counts = [x[0].numel() for x in logits]
        # [B, k, H, W] to [B, H, W, k], the order of the anchors
        flat = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
        boxes = [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas]
        return found, counts, torch.cat(flat, 1).float(), torch.cat(boxes, 1).float()

    @torch.no_grad()
    def proposals(
        self, anchors: Tensor, counts: Sequence[int], logits: Tensor, deltas: Tensor, sizes: Tensor
    ) -> Regions:
        """The boxes of each image with the highest objectness, after suppression in each level."""
        from torchvision.ops import batched_nms

        kept, owner, s = [], [], self.sampling
        parts, start = [], 0
        for level in logits.split(list(counts), 1):
            parts.append(level.topk(min(s.pre_nms, level.shape[1]), 1).indices + start)
            start += level.shape[1]
        place = torch.cat(parts, 1)
        levels = torch.cat([torch.full_like(part[0], i) for i, part in enumerate(parts)])
        own = deltas.gather(1, place[..., None].expand(-1, -1, 4))
        boxes = self.rpn_coder.decode_single(own.flatten(0, 1), anchors[place.flatten()]).view_as(own)
        limit = sizes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        scores = logits.gather(1, place).sigmoid()
        large = ((boxes[..., 2:] - boxes[..., :2]) >= SMALLEST).all(2)
        for b, good in enumerate(large):
            mine = boxes[b, good]
            mine = mine[batched_nms(mine, scores[b, good], levels[good], s.proposal_nms)[: s.post_nms]]
            kept.append(mine)
            owner.append(torch.full((len(mine),), b, device=sizes.device))
        return Regions(torch.cat(kept), torch.cat(owner))

    @torch.no_grad()
    def anchor_targets(
        self, anchors: Tensor, boxes: Tensor, labels: Tensor, crowd: Tensor, draws: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Labels [B, A] of sampled anchors, 1 for an object, 0 for none, -1 for the rest; wanted deltas [B, A, 4]."""
        s = self.sampling
        match, kind = assigned(self.rpn_matcher, anchors, boxes, labels, crowd)
        chosen = balanced(kind, uniform(draws, len(anchors)), s.rpn_batch, s.rpn_share)
        image, anchor = (chosen & (kind == 1)).nonzero(as_tuple=True)
        wanted = torch.zeros(*kind.shape, 4, device=anchors.device)
        wanted[image, anchor] = self.rpn_coder.encode_single(boxes[image, match[image, anchor]], anchors[anchor])
        return torch.where(chosen, kind, -1), wanted

    @torch.no_grad()
    def region_targets(
        self, proposals: Regions, boxes: Tensor, labels: Tensor, crowd: Tensor, draws: Tensor
    ) -> tuple[Regions, Tensor, Tensor]:
        """Sampled regions, their classes [N], C for background, and wanted deltas [N, 4]."""
        s, real = self.sampling, (labels >= 0) & ~crowd
        owner = torch.cat([proposals.owner, real.nonzero()[:, 0]])
        place, most = places(owner, len(boxes))
        every = torch.cat([proposals.boxes, boxes[real].to(proposals.boxes.dtype)])
        table = every.new_zeros(len(boxes) * most, 4).index_copy_(0, place, every).view(len(boxes), most, 4)
        filled = torch.zeros(len(boxes) * most, dtype=torch.bool, device=boxes.device).index_fill_(0, place, True)
        match, kind = assigned(self.matcher, table, boxes, labels, crowd)
        kind = torch.where(filled.view_as(kind), kind, -1)
        # another stream than the anchors'
        image, row = balanced(kind, uniform(~draws, most), s.region_batch, s.region_share).nonzero(as_tuple=True)
        mine, kind, match = table[image, row], kind[image, row], match[image, row]
        classes = torch.where(kind == 1, labels[image, match], self.num_classes)
        wanted = self.coder.encode_single(boxes[image, match], mine).where(kind[:, None] == 1, 0.0)
        return Regions(mine, image), classes, wanted

    def pooled(self, maps: Mapping[str, Tensor], regions: Regions, images: Tensor) -> Tensor:
        """The vector of each region that the classifier reads, [N, D]."""
        levels = {role: maps[role].float() for role in self.pyramid.roles}
        count, shape = len(images), (images.shape[2], images.shape[3])
        if is_small(list(levels.values())):
            found = pyramid_roi_align(
                list(levels.values()), *regions, shape, self.pool.output_size[0], self.pool.sampling_ratio
            )
            return self.embed(found)
        each = [regions.boxes[regions.owner == b] for b in range(count)]
        # the pool reads boxes image by image; regions may come in another order
        order = torch.cat([(regions.owner == b).nonzero().flatten() for b in range(count)])
        found = self.embed(self.pool(levels, each, [shape] * count))
        return found if torch.equal(order, torch.arange(len(order), device=order.device)) else found[order.argsort()]

    def detections(self, regions: Regions, logits: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
        """Detections [B, D, 6] from classified regions."""
        scores = self.probabilities(logits)
        boxes = self.coder.decode_single(
            deltas.float().flatten(0, 1), regions.boxes.repeat_interleave(deltas.shape[1], 0)
        ).view_as(deltas)
        s = self.sampling
        return detections(boxes, scores, regions.owner, sizes, s.min_score, s.detection_nms, s.max_detections)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores of the C classes, [N, C], from logits [N, C + 1]."""
        return F.softmax(logits.float(), 1)[:, :-1]


def faster_rcnn(
    num_classes: PositiveInt,
    anchor_sizes: Sequence[Sequence[int]],
    anchor_ratios: Sequence[Positive],
    resolution: PositiveInt,
    width: PositiveInt,
    class_agnostic: bool,
    sampling: Sampling,
    **own: Unpack[OfPyramid],
) -> FasterRCNN:
    """Faster R-CNN on a backbone with a pyramid; see `FasterRCNN` and `pyramid` for the arguments."""
    numbers = (num_classes, anchor_sizes, anchor_ratios, resolution, width, class_agnostic, sampling)
    return FasterRCNN(pyramid(**own), *numbers)
