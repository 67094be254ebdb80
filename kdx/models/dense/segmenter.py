"""Semantic segmentation: torchvision's heads on the maps of any network."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.outputs import Outputs
from kdx.core.ranges import PositiveInt
from kdx.core.spec import Images
from kdx.models.base import Net
from kdx.models.own import as_network
from kdx.models.probe import probe

Head = Literal["fcn", "lraspp"]


class Segmenter(nn.Module):
    """Maps images [B, C, H, W] to logits of each pixel [B, K, H, W], as `Outputs`.

    Features: those of the backbone, and `scores`, the logits [B, K, h, w] before they are enlarged bilinearly.

    Args:
        backbone: A network with features by role; the classifier of one of kdx's networks is dropped.
        head: 'fcn', a 3 x 3 and a 1 x 1 convolution on the high map, or 'lraspp', which gates the high map with its
            pooled context and adds the low map.
        low: Role of the high-resolution map that 'lraspp' adds; not read by 'fcn'.
        high: Role of the map with the meaning.
        width: Channels within 'lraspp'; 'fcn' has a quarter of the channels of the high map.
        num_classes: Number of classes K, with the background.
        input_shape: (C, H, W) of one image, to find the channels of the maps.

    Raises:
        ValueError: The backbone has no such map.

    References:
        Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015.
        https://arxiv.org/abs/1411.4038
        Howard et al., "Searching for MobileNetV3", 2019. https://arxiv.org/abs/1905.02244
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        low: str,
        high: str,
        width: PositiveInt,
        num_classes: PositiveInt,
        input_shape: Sequence[int],
    ):
        super().__init__()
        from torchvision.models.segmentation.fcn import FCNHead
        from torchvision.models.segmentation.lraspp import LRASPPHead

        if head not in ("fcn", "lraspp"):
            raise ValueError(f"head must be 'fcn' or 'lraspp', got {head!r}")
        self.backbone = without_classifier(as_network(backbone))
        self.kind, self.low, self.high = head, low, high
        flat = (0.0,) * input_shape[0]
        device = next((p.device for p in self.backbone.parameters()), torch.device("cpu"))
        shapes = probe(self.backbone, Images(tuple(input_shape), flat, flat), device)
        sizes = [shapes.feature(role, "backbone") for role in ((low, high) if head == "lraspp" else (high,))]
        if wrong := [size for size in sizes if len(size) != 3]:
            raise ValueError(f"a segmenter reads maps (C, H, W), and the backbone's feature has the shape {wrong[0]}")
        if head == "fcn":
            self.classifier: nn.Module = FCNHead(sizes[0][0], num_classes)
        else:
            self.classifier = LRASPPHead(sizes[0][0], sizes[1][0], num_classes, width)

    def forward(self, x: Tensor) -> Outputs:
        outputs = self.backbone(x)
        high = outputs.feature(self.high)
        maps = high if self.kind == "fcn" else {"low": outputs.feature(self.low), "high": high}
        scores = self.classifier(maps)
        logits = F.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return Outputs(logits, {**outputs.features, "scores": scores})


def without_classifier(net: nn.Module) -> nn.Module:
    """One of kdx's networks with the identity in place of its classifier; any other network unchanged.

    Example:
        >>> from kdx.models.small import SmallCNN
        >>> net = SmallCNN([4], 8, dropout=0.0, num_classes=3, input_shape=[1, 8, 8])
        >>> without_classifier(net)(torch.zeros(1, 1, 8, 8)).logits.shape
        torch.Size([1, 8])
    """
    if isinstance(net, Net):
        for path in [path for path, module in net.named_modules() if module is net.head]:
            net.set_submodule(path, nn.Identity())
    return net
