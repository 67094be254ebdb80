"""Functions of tensors that losses, metrics and evaluators share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def unit(x: Tensor, dim: int) -> Tensor:
    """Scale the vectors along `dim` to length 1; a zero vector stays zero and gets no gradient.

    `torch.nn.functional.normalize` divides a zero vector by 1e-12, which multiplies its gradient by 1e12.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 1).norm(dim=1).tolist()
        [1.0, 0.0]
    """
    norm = x.norm(dim=dim, keepdim=True)
    known = norm > 0
    return torch.where(known, x / torch.where(known, norm, 1.0), 0.0)


def centred(x: Tensor, dim: int) -> Tensor:
    """Subtract the mean along `dim`; a constant becomes exactly zero, without gradient.

    Rounding leaves small differences of a constant, which a loss that divides by the spread would scale to unit size.

    Example:
        >>> centred(torch.tensor([[1.0, 2.0, 3.0], [0.1, 0.1, 0.1]]), 1).tolist()
        [[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    out = x - x.mean(dim, keepdim=True)
    noise = 8 * torch.finfo(x.dtype).eps * x.norm(dim=dim, keepdim=True)
    return torch.where(out.norm(dim=dim, keepdim=True) > noise, out, 0.0)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over axis 1, in nats.

    Args:
        log_p: Log-probabilities [B, C, ...]; -inf is a probability of 0.
        log_q: Log-probabilities [B, C, ...].

    Returns:
        [B, ...].

    Example:
        The divergence of a certain prediction from a uniform one over C classes is log C.

        >>> certain, uniform = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[0.5, 0.5]]).log()
        >>> torch.allclose(divergence(certain, uniform), torch.tensor([2.0]).log())
        True
    """
    p = log_p.exp()
    # 0 * log 0 is 0: without the mask a class of probability 0 on both sides would give NaN
    return (p * (log_p - log_q).masked_fill(p == 0, 0.0)).sum(1)


def mean_log_probs(log_probs: Sequence[Tensor] | Tensor, weights: Tensor | None = None) -> Tensor:
    """Log of a weighted arithmetic mean of distributions.

    Args:
        log_probs: Log-probabilities [B, C] of each of M members.
        weights: Non-negative weights with sum 1 over the M members, [M] or [M, B, 1]; None weights all alike.

    Returns:
        Log-probabilities [B, C].

    Example:
        >>> first, second = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()
        >>> mean_log_probs([first, second], torch.tensor([0.5, 0.5])).exp().tolist()
        [[0.5, 0.5]]
    """
    members = log_probs if isinstance(log_probs, Tensor) else torch.stack(list(log_probs))
    if weights is None:
        return members.logsumexp(0) - math.log(len(members))
    shares = weights if weights.ndim == 3 else weights[:, None, None]
    return (members + shares.log()).logsumexp(0)
