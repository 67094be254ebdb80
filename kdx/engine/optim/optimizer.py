"""Optimizers as nodes of the config, built when the parameters are known."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from kdx.core.errors import UserError, did_you_mean
from kdx.core.ranges import NonNegative, PartialFraction, Positive
from kdx.engine.optim.fast_optim import unwrapped

Implementation = Literal["foreach", "fused"]
Named = Iterable[tuple[str, nn.Parameter]]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Settings of every optimizer.

    Attributes:
        lr: Base learning rate; the schedule is a factor on it.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW, LAMB).
        decay_norm_and_bias: Whether weight decay includes biases and normalisation parameters. Yes in the CIFAR
            literature, no in timm's recipes.
    """

    lr: Positive
    weight_decay: NonNegative
    decay_norm_and_bias: bool

    def groups(self, parameters: Named) -> list[dict]:
        """One parameter group, or two if biases and normalisation parameters do not decay."""
        trainable = [p for _, p in parameters if p.requires_grad]
        if self.decay_norm_and_bias:
            return [{"params": trainable, "weight_decay": self.weight_decay}]
        groups = [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return [g for g in groups if g["params"]]

    def build(self, parameters: Named) -> torch.optim.Optimizer:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Attributes:
    momentum, nesterov: As in `torch.optim.SGD`.
    implementation: `foreach` runs each operation over all parameters, `fused` runs all operations in one kernel,
        which is faster on a GPU and differs by rounding.
    """

    momentum: PartialFraction
    nesterov: bool
    implementation: Implementation

    def build(self, parameters: Named) -> torch.optim.Optimizer:
        return unwrapped(torch.optim.SGD)(
            self.groups(parameters),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            **{self.implementation: True},
        )


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Attributes:
    beta1, beta2, eps: As in `torch.optim.AdamW`.
    implementation: As in `SGD`.
    """

    beta1: PartialFraction
    beta2: PartialFraction
    eps: Positive
    implementation: Implementation

    def build(self, parameters: Named) -> torch.optim.Optimizer:
        return unwrapped(torch.optim.AdamW)(
            self.groups(parameters),
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            **{self.implementation: True},
        )


@dataclass(frozen=True, kw_only=True)
class Timm(Optimizer):
    """An optimizer of timm's factory.

    Attributes:
        name: Name in timm's registry, such as "lamb".
        options: Further arguments of the optimizer.
    """

    name: str
    options: Mapping[str, bool | int | float | str | list[float]]

    def build(self, parameters: Named) -> torch.optim.Optimizer:
        from timm.optim import create_optimizer_v2, list_optimizers  # takes seconds

        known = [str(name) for name in list_optimizers()]
        if self.name not in known:
            raise UserError(f"timm has no optimizer '{self.name}'{did_you_mean(self.name, known)}")
        options: dict[str, Any] = dict(self.options)
        return create_optimizer_v2(self.groups(parameters), opt=self.name, lr=self.lr, **options)
