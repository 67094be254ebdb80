"""How losses compute: in full precision, with safe corners."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

import torch
from torch import Tensor

P = ParamSpec("P")


def _promote(value: object) -> object:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return cast(Tensor, value).float() if half else value


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run a loss in float32 or better, whatever it is given and wherever it is called.

    Half-precision tensors are cast up and autocast is switched off inside: a matrix product of a
    relational loss, or the exponent of a softmax, is worth nothing in eight bits of mantissa.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        call = cast(Any, function)
        full = [_promote(v) for v in args], {k: _promote(v) for k, v in kwargs.items()}
        kind = tensors[0].device.type
        if not torch.is_autocast_enabled(kind):
            return call(*full[0], **full[1])
        with torch.autocast(kind, enabled=False):
            return call(*full[0], **full[1])

    return wrapped


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits over a temperature.

    Args:
        logits: [B, C].
        temperature: Above 0. One that is learned is a tensor of one number, whose owner keeps it above 0.

    Returns:
        [B, C].

    Raises:
        ValueError: The temperature is not above 0.
    """
    # a tensor is not asked: on a GPU the answer would stall every step
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"a temperature must be above 0, got {temperature}")
    return logits / temperature


def soft_log_probs(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities at a temperature: `log_softmax(logits / temperature)`.

    Args:
        logits: [B, C].
        temperature: Above 0; a larger one gives a flatter distribution.

    Returns:
        [B, C].

    Raises:
        ValueError: The temperature is not above 0.
    """
    return tempered(logits, temperature).log_softmax(1)
