"""Numerics of losses: full precision, and softened distributions."""

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
    """Decorator: compute a loss in float32 or better, with any inputs and under autocast.

    It casts half-precision tensors up and switches autocast off inside. Eight bits of mantissa do not suffice for the
    matrix product of a relational loss or the exponent of a softmax.

    Example:
        >>> @full_precision
        ... def total(x: Tensor) -> Tensor:
        ...     return x.sum()
        >>> total(torch.full((1000,), 1.01, dtype=torch.bfloat16)).dtype
        torch.float32
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
    """Logits divided by a temperature.

    Args:
        logits: [B, C].
        temperature: Above 0; a number, or a tensor of one number, which is not checked.

    Returns:
        [B, C].

    Raises:
        ValueError: The temperature is not above 0.

    Example:
        >>> tempered(torch.tensor([[2.0, 4.0]]), 2.0)
        tensor([[1., 2.]])
    """
    # a tensor is not checked: reading it would make a GPU wait in every step
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

    Example:
        >>> soft_log_probs(torch.tensor([[1.0, 2.0, 3.0]]), 1e6).exp()  # uniform in the limit
        tensor([[0.3333, 0.3333, 0.3333]])
    """
    return tempered(logits, temperature).log_softmax(1)
