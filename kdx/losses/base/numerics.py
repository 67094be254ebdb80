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


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row, in nats.

    Args:
        log_p: Log-probabilities [B, C]; -inf is a probability of exactly 0.
        log_q: Log-probabilities [B, C].

    Returns:
        [B].
    """
    p = log_p.exp()
    # 0 * log 0 is 0: without the mask a class that is ruled out (-inf on both sides) would give NaN
    return (p * (log_p - log_q).masked_fill(p == 0, 0.0)).sum(1)


def unit(x: Tensor, dim: int) -> Tensor:
    """Vectors along `dim` scaled to length 1; a zero vector stays zero and gets no gradient.

    `torch.nn.functional.normalize` divides a zero vector by 1e-12, which multiplies its gradient by 1e12.
    """
    norm = x.norm(dim=dim, keepdim=True)
    known = norm > 0
    return torch.where(known, x / torch.where(known, norm, 1.0), 0.0)


def centred(x: Tensor, dim: int) -> Tensor:
    """`x` less its mean along `dim`; what rounding leaves of a constant is exactly zero, without gradient.

    Losses that divide by the spread would otherwise scale rounding noise up to unit size.
    """
    out = x - x.mean(dim, keepdim=True)
    noise = 8 * torch.finfo(x.dtype).eps * x.norm(dim=dim, keepdim=True)
    return torch.where(out.norm(dim=dim, keepdim=True) > noise, out, 0.0)
