"""Optimizers as nodes of the config, built when the parameters are known."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from kdx.core.errors import UserError, did_you_mean
from kdx.core.ranges import NonNegative, PartialFraction, Positive
from kdx.engine.optim.fast_optim import unwrapped
from kdx.engine.optim.groups import LAYER, LR_SCALE, is_exempt, layers_above

Implementation = Literal["foreach", "fused"]
Named = Iterable[tuple[str, nn.Parameter]]
LAYER_DECAY = "layer_decay"
# options of timm's factory that apply to a network alone, not to parameter groups
IDLE = (
    *("weight_decay_exclude_1d", "fallback_list", "fallback_no_weight_decay"),
    *("layer_decay_min_scale", "layer_decay_no_opt_scale", "param_group_fn"),
)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Settings of every optimizer.

    Attributes:
        lr: Base learning rate; the schedule is a factor on it. A group that `build` gives a rate of its own keeps it,
            and a group's `lr_scale` is a further factor, as in timm.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW, LAMB).
        decay_norm_and_bias: Whether weight decay includes biases, normalisation parameters, and the parameters that the
            network names in `no_weight_decay()`, such as position embeddings. Yes in the CIFAR literature, no in
            timm's recipes.
    """

    lr: Positive
    weight_decay: NonNegative
    decay_norm_and_bias: bool

    @property
    def needs_layers(self) -> bool:
        """Whether `groups` depends on the layer of each parameter."""
        return False

    def groups(self, parameters: Named) -> list[dict]:
        """One parameter group, or two if biases and normalisation parameters do not decay."""
        trainable = [(name, p) for name, p in parameters if p.requires_grad]
        if self.decay_norm_and_bias:
            return [{"params": [p for _, p in trainable], "weight_decay": self.weight_decay}]
        decays = [p.ndim > 1 and not name.endswith(".bias") and not is_exempt(p) for name, p in trainable]
        groups = [
            {"params": [p for (_, p), own in zip(trainable, decays, strict=True) if own == decay], "weight_decay": rate}
            for decay, rate in ((True, self.weight_decay), (False, 0.0))
        ]
        return [g for g in groups if g["params"]]

    def build(self, parameters: Named) -> torch.optim.Optimizer:
        raise NotImplementedError

    def try_step(self) -> None:
        """Take a step on a made-up parameter if only a step reads some options. Raises UserError for wrong ones."""


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
        options: Further arguments of the optimizer. `layer_decay` multiplies the learning rate by this factor for each
            layer between a parameter's layer and the last one; it needs a network of timm.
    """

    name: str
    options: Mapping[str, bool | int | float | str | list[float]]

    @property
    def needs_layers(self) -> bool:
        return LAYER_DECAY in self.options

    def groups(self, parameters: Named) -> list[dict]:
        groups = super().groups(parameters)
        if not self.needs_layers:
            return groups
        decay: Any = self.options[LAYER_DECAY]
        if not isinstance(decay, float | int) or not 0 < decay <= 1:
            raise UserError(f"optimizer.options.layer_decay: must be a number above 0 and at most 1, found {decay!r}")
        if all(layers_above(p) is None for group in groups for p in group["params"]):
            raise UserError("optimizer.options.layer_decay needs a network of timm, whose layers are known")
        scaled: dict[tuple[float, float], dict] = {}
        for group in groups:
            for p in group["params"]:
                scale, rate = float(decay) ** (layers_above(p) or 0), group["weight_decay"]
                scaled.setdefault((scale, rate), {"params": [], "weight_decay": rate, LR_SCALE: scale})
                scaled[scale, rate]["params"].append(p)
        return list(scaled.values())

    def build(self, parameters: Named) -> torch.optim.Optimizer:
        from timm.optim import create_optimizer_v2, list_optimizers  # takes seconds

        known = [str(name) for name in list_optimizers()]
        if self.name not in known:
            raise UserError(f"timm has no optimizer '{self.name}'{did_you_mean(self.name, known)}")
        options: dict[str, Any] = {key: value for key, value in self.options.items() if key != LAYER_DECAY}
        if idle := [key for key in options if key in IDLE]:
            raise UserError(f"optimizer.options.{idle[0]} has no effect here: kdx forms the parameter groups itself")
        groups = self.groups(parameters)
        with self._told_as_options():
            return create_optimizer_v2(groups, opt=self.name, lr=self.lr, **options)

    def try_step(self) -> None:
        weight = nn.Parameter(torch.ones(2, 2))
        weight.grad = torch.ones_like(weight)
        setattr(weight, LAYER, 0)
        optimizer = self.build([("weight", weight)])
        with self._told_as_options():
            optimizer.step()

    @contextmanager
    def _told_as_options(self) -> Iterator[None]:
        try:
            yield
        except (TypeError, ValueError, LookupError, AssertionError, RuntimeError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            found = dict(self.options)
            raise UserError(f"optimizer.options: timm's {self.name} refuses {found}: {why}"[:290]) from error
