"""Networks of timm and torchvision by name, with features by role."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from kdx.core.ranges import PartialFraction, PositiveInt
from kdx.models.packaged import load_packaged
from kdx.models.stages import find_stages
from kdx.models.tap import Tapped

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std for torchvision's weights

Taps = Mapping[str, str] | None
Options = Mapping[str, Any]


def timm_model(
    name: str,
    pretrained: bool | Literal["package"],
    num_classes: PositiveInt,
    in_channels: PositiveInt,
    drop_rate: PartialFraction,
    drop_path_rate: PartialFraction,
    taps: Taps,
    options: Options,
) -> Tapped:
    """Build a network of timm.

    Its stages are the maps [B, C, H, W] of timm's `forward_intermediates`; a network whose maps all have one size, such
    as a vision transformer, has four, the ends of four equal parts. A class token is no position of a map.

    Args:
        name: Name in timm, with or without the tag of its weights: `convnext_atto`, `resnet18.a1_in1k`.
        pretrained: Whether to load timm's weights; "package" loads those of an installed package, for
            efficientnet_lite0 (extra `backbone`). The classifier is new if the number of classes differs.
        num_classes: Number of classes, C.
        in_channels: Channels of the input; timm adapts the first layer, also a pretrained one.
        drop_rate: Dropout before the classifier; 0 leaves the model's default.
        drop_path_rate: Stochastic depth; 0 leaves the model's default.
        taps: Module path by role. None takes the maps that timm lists. `pooled`, the vector before
            the classifier (after its dropout, if any), is always included.
        options: Further arguments of the model's constructor, such as `img_size: 32`.

    Raises:
        ValueError: An unknown name, tag, option or module path.

    References:
        Ross Wightman, "PyTorch Image Models", 2019, https://github.com/huggingface/pytorch-image-models
    """
    import timm

    arch, _, tag = name.partition(".")
    hub = ":" in name or "/" in name  # the name of a model hub, which timm cannot check offline
    if not hub and not timm.is_model(arch):
        raise ValueError(unknown("timm", name, timm.list_models()))
    if tag and not hub and name not in (tags := timm.list_pretrained(f"{arch}.*")):
        raise ValueError(unknown("timm", name, tags))
    # timm drops arguments that are None; many of its models accept neither of these
    drops = {"drop_rate": drop_rate or None, "drop_path_rate": drop_path_rate or None}
    try:
        net = timm.create_model(
            name, pretrained=pretrained is True, num_classes=num_classes, in_chans=in_channels, **drops, **options
        )
    except TypeError as error:
        raise ValueError(f"timm's {name} does not accept one of the options: {error}") from error
    if pretrained == "package":
        load_packaged(net, name)
    return Tapped(net, taps, _heads(net), strict=taps is not None)


def torchvision_model(
    name: str,
    weights: str | None,
    num_classes: PositiveInt,
    in_channels: PositiveInt,
    taps: Taps,
    options: Options,
) -> Tapped:
    """Build a classifier of torchvision, without auxiliary classifiers (GoogLeNet, Inception).

    Stages are the outputs of the modules before each one that lowers the resolution, as maps [B, C, H, W]; in a vision
    transformer, of four blocks at equal distances, without the class token.

    Args:
        name: Name in torchvision, such as `resnet18`.
        weights: Name of torchvision's weights, such as `DEFAULT` or `IMAGENET1K_V1`; None for random initialisation.
        num_classes: Number of classes, C. The classifier is new if the weights have another number.
        in_channels: Channels of the input. If not 3, the first convolution's filters are repeated over the
            channels; loaded filters are also scaled, so that the response to a grey image stays the same.
        taps: Module path by role. None searches for the stages. `pooled`, the input of the classifier (after
            its dropout, if any), is always included.
        options: Further arguments of the model's constructor, such as `image_size: 32` for a `vit_b_16`.

    Raises:
        ValueError: An unknown name, weights, option or module path, or a first layer that cannot be adapted.

    References:
        TorchVision maintainers, "TorchVision", 2016, https://github.com/pytorch/vision
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(unknown("torchvision", name, known))
    if weights is not None and weights != "DEFAULT":
        offered = [w.name for w in models.get_model_weights(name)]
        if weights not in offered:
            raise ValueError(f"torchvision's {name} has no weights '{weights}', only {', '.join(offered)}")
    fresh = {"num_classes": num_classes} if weights is None else {}
    if name in ("googlenet", "inception_v3") and weights is None:
        fresh |= {"init_weights": True}  # avoids a warning
    try:
        net = models.get_model(name, weights=weights, **fresh, **options)
    except TypeError as error:
        raise ValueError(f"torchvision's {name} does not accept one of the options: {error}") from error
    _drop_auxiliaries(net)
    path = [p for p, m in net.named_modules() if _width(m)][-1]
    if _width(net.get_submodule(path)) != num_classes:
        net.set_submodule(path, _resized(net.get_submodule(path), num_classes))
    if in_channels != 3:
        _adapt_input(net, name, in_channels, keep_sum=weights is not None)
    stages = find_stages(net, net.get_submodule(path)) if taps is None else taps
    return Tapped(net, stages, path, strict=taps is not None)


def unknown(library: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=5, cutoff=0.5) or difflib.get_close_matches(name, names, 3, 0.0)
    return f"{library} has no model '{name}'; the closest names: {', '.join(close) or 'none'}"


def _heads(net: nn.Module) -> list[str]:
    """Paths of the classifiers that timm names, the main one first."""
    left: list[Any] = [net.get_classifier()]  # pyright: ignore[reportCallIssue]
    heads = []
    while left:
        first = left.pop(0)
        if isinstance(first, tuple | list | nn.ModuleList):
            left = [*first, *left]
        elif isinstance(first, nn.Module):
            heads.append(first)
    inner = [getattr(head, "fc", None) or head for head in heads]  # of a head with its pooling, the classifier alone
    return [path for head in inner for path, m in net.named_modules() if m is head]


def _drop_auxiliaries(net: nn.Module) -> None:
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(net, name):
            setattr(net, name, None)
            setattr(net, "aux_logits", False)  # noqa: B010


def _width(module: nn.Module) -> int:
    """Number of outputs of a linear layer or a 1x1 convolution; 0 for other modules."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) else 0


def _resized(head: nn.Module, classes: int) -> nn.Module:
    if isinstance(head, nn.Linear):
        return nn.Linear(head.in_features, classes, bias=head.bias is not None)
    assert isinstance(head, nn.Conv2d)
    return nn.Conv2d(head.in_channels, classes, 1, bias=head.bias is not None)


def _adapt_input(net: nn.Module, name: str, channels: int, keep_sum: bool) -> None:
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise ValueError(f"torchvision's {name} reads 3 channels; its first layer cannot be adapted to {channels}")
    with torch.no_grad():
        weight = first.weight[:, [i % 3 for i in range(channels)]]
        if keep_sum and channels == 1:
            weight = first.weight.sum(1, keepdim=True)
        elif keep_sum:
            weight = weight * (3 / channels)
        first.weight = nn.Parameter(weight.clone())
    first.in_channels = channels


def input_statistics(net: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Per-channel mean and std that timm's or torchvision's weights expect; None for a network of neither."""
    if not isinstance(net, Tapped):
        return None
    if facts := getattr(net.net, "pretrained_cfg", None):
        return tuple(facts["mean"]), tuple(facts["std"])
    return IMAGENET if type(net.net).__module__.startswith("torchvision.") else None
