"""Backbones of timm with a feature pyramid."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack

from torch import Tensor, nn

from kdx.core.ranges import PositiveInt
from kdx.models.build import unknown
from kdx.models.packaged import load_packaged

Weights = Literal["timm", "package"]
PLAIN = "plain"


class OfPyramid(TypedDict):
    """The arguments of `pyramid`, which networks on a pyramid accept beside their own."""

    name: str
    weights: Weights | None
    in_channels: PositiveInt
    levels: Sequence[int]
    channels: PositiveInt
    frozen_norms: bool
    widths: Sequence[PositiveInt] | None


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


class Plain(nn.Module):
    """Stages of two 3x3 convolutions with batch norm and ReLU, the first of stride 2: learns fast from scratch.

    Args:
        in_channels: Channels of the images.
        widths: Channels of each stage.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]):
        super().__init__()
        pairs = zip([in_channels, *widths[:-1]], widths, strict=True)
        self.stages = nn.ModuleList(nn.Sequential(*_layer(a, b, 2), *_layer(b, b, 1)) for a, b in pairs)
        self.feature_info = [{"num_chs": width} for width in widths]

    def forward_intermediates(self, x: Tensor, indices: Sequence[int], **_: object) -> list[Tensor]:
        """The maps of the stages of these numbers, as networks of timm give them."""
        found = []
        for stage in self.stages[: indices[-1] + 1]:
            x = stage(x)
            found.append(x)
        return [found[i] for i in indices]


def _layer(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


def pyramid(**own: Unpack[OfPyramid]) -> Pyramid:
    """A backbone with its pyramid.

    Args:
        own: name, weights, in_channels, levels, frozen_norms and widths, as in `backbone`; channels, as in `Pyramid`.

    Raises:
        ValueError: As `backbone`.
    """
    given = (own["name"], own["weights"], own["levels"], own["in_channels"], own["frozen_norms"], own["widths"])
    return Pyramid(backbone(*given), own["levels"], own["channels"])


def backbone(
    name: str,
    weights: Weights | None,
    levels: Sequence[int],
    in_channels: int,
    frozen_norms: bool,
    widths: Sequence[int] | None,
) -> nn.Module:
    """A backbone by name: `plain` with `widths`, or a network of timm, see `timm_backbone`.

    Raises:
        ValueError: As `timm_backbone`; or `plain` with weights or without widths, or widths of another network.
    """
    if name != PLAIN:
        if widths is not None:
            raise ValueError(f"widths belong to name={PLAIN}, got name={name}; set widths=null")
        return timm_backbone(name, weights, levels, in_channels, frozen_norms)
    if widths is None or weights is not None or frozen_norms:
        raise ValueError(
            f"name={PLAIN} needs widths, weights=null and frozen_norms=false, since it learns from scratch"
        )
    if not levels or list(levels) != sorted(set(levels)) or not 0 <= levels[0] or levels[-1] != len(widths) - 1:
        raise ValueError(f"levels must be ascending and end with the last of {len(widths)} widths, got {list(levels)}")
    return Plain(in_channels, widths)


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
        load_packaged(net, name)
    net.prune_intermediate_layers(list(levels), prune_norm=True, prune_head=True)
    if frozen_norms:
        freeze_batch_norm_2d(net)
    return net
