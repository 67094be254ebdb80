"""Parameter groups: their learning rates, and marks of networks on their parameters."""

from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

LR_SCALE = "lr_scale"  # timm's key of a group's factor on the rate
EXEMPT, LAYER = "_no_weight_decay", "_layer"  # attributes of a marked parameter


class Rates:
    """Sets the learning rates of an optimizer: each group's own base rate, times its `lr_scale`, times a factor.

    Args:
        optimizer: As it was built, before a state is loaded.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = optimizer
        groups = optimizer.param_groups
        self._base = [(float(group["lr"]), float(group[LR_SCALE]) if LR_SCALE in group else 1.0) for group in groups]

    def set(self, factor: float) -> None:
        """Set each group's rate for the next step."""
        for group, (base, scale) in zip(self._optimizer.param_groups, self._base, strict=True):
            rate = base * factor * scale
            if isinstance(group["lr"], Tensor):  # a CUDA graph reads this tensor, so it must stay the same one
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @property
    def highest(self) -> float:
        """The highest rate of a group at the last step."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)


def mark_parameters(method: nn.Module, layers: bool) -> None:
    """Mark the trainable parameters that a network exempts from weight decay, and the layers of timm's networks.

    A network exempts parameters by a method `no_weight_decay` that returns their names, such as position embeddings
    and class tokens; `*` stands for any text in a name.

    Args:
        method: Holds the networks.
        layers: Whether to mark layers, too; timm's networks state them in `group_matcher`.
    """
    for module in method.modules():
        exempt, matcher = (getattr(module, name, None) for name in ("no_weight_decay", "group_matcher"))
        if callable(exempt):
            names: Any = exempt()
            for name, p in module.named_parameters():
                if p.requires_grad and any(fnmatch(name, pattern) for pattern in names):
                    setattr(p, EXEMPT, True)
        if layers and callable(matcher):
            _mark_layers(module, matcher)


def _mark_layers(module: nn.Module, matcher: Any) -> None:
    from timm.models import group_parameters  # takes seconds; here the network is timm's

    layers: Any = group_parameters(module, matcher(coarse=False), reverse=True)
    last = max(layers.values())
    for name, p in module.named_parameters():
        if p.requires_grad and layers_above(p) is None:
            setattr(p, LAYER, last - layers.get(name, last))


def is_exempt(parameter: nn.Parameter) -> bool:
    """Whether the parameter's network exempts it from weight decay."""
    return getattr(parameter, EXEMPT, False)


def layers_above(parameter: nn.Parameter) -> int | None:
    """Number of layers between a parameter's layer and the last one; None for a network without `group_matcher`."""
    return getattr(parameter, LAYER, None)
