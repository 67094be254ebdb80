"""A generalist and specialists, and the distribution that agrees best with all who have a say."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.ranges import Positive, PositiveInt
from kdx.losses.networks import linear_head

Direction = Literal["forward", "reverse"]


@torch.no_grad()
def specialise(net: nn.Module, classes: Sequence[int]) -> None:
    """Make a network of all classes one of some of them and, as its last, the rest; its other layers stay.

    The classifier keeps the rows of these classes. The row of the rest is the mean of the other rows, with the
    logarithm of their number added to its bias. The exact logit of all others together, log sum exp, is not linear in
    the features; this equals it where they are alike and is below it elsewhere.

    Args:
        net: Changed in place; its classifier is one linear layer.
        classes: In the order of the new outputs.

    Raises:
        ValueError: The classifier is not linear, or the classes are not some of its own.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5 (which starts
        specialists from the generalist's weights and leaves the row of the rest open). https://arxiv.org/abs/1503.02531
    """
    head = linear_head(net, "student", "a specialist")
    own = list(classes)
    others = [c for c in range(head.out_features) if c not in own]
    if not others or not own or min(own) < 0 or len(own) + len(others) != head.out_features:
        raise ValueError(f"a specialist's classes are some of the network's {head.out_features}, found {own}")
    head.weight = nn.Parameter(torch.cat([head.weight[own], head.weight[others].mean(0, keepdim=True)]))
    if head.bias is not None:
        rest = head.bias[others].mean() + math.log(len(others))
        head.bias = nn.Parameter(torch.cat([head.bias[own], rest.view(1)]))
    head.out_features = len(own) + 1


def correction(share: float, trained_share: float) -> float:
    """What is added to a specialist's dustbin logit, so that its predictions fit the true proportions.

    Trained where its own classes make up `trained_share` of the examples instead of `share`, a network's odds for
    them are too high by the ratio of the two odds; the logarithm of that goes to the rest.

    Args:
        share: Of its classes among all examples, in (0, 1).
        trained_share: Of its classes among those that it was trained on; a half where they are balanced.

    Raises:
        ValueError: A share outside (0, 1).
    """
    if not 0 < share < 1 or not 0 < trained_share < 1:
        raise ValueError(f"shares lie between 0 and 1, got {share} and {trained_share}")
    return math.log(trained_share / share) - math.log((1 - trained_share) / (1 - share))


def active(generalist: Tensor, sets: Sequence[Sequence[int]], top: PositiveInt) -> Tensor:
    """Which specialists have a say: those that know one of the generalist's `top` classes, bool [B, M].

    Args:
        generalist: Logits [B, C].
        sets: The classes of each specialist.
        top: Number of the generalist's most likely classes that are looked at.
    """
    best = generalist.topk(top, 1).indices
    known = torch.zeros(len(sets), generalist.shape[1], dtype=torch.bool, device=generalist.device)
    for row, classes in zip(known, sets, strict=True):
        row[list(classes)] = True
    return known.T[best].any(1)


def solve(
    generalist: Tensor,
    specialists: Sequence[Tensor],
    sets: Sequence[Sequence[int]],
    say: Tensor,
    direction: Direction,
    steps: PositiveInt,
    lr: Positive,
) -> Tensor:
    """Log of the q that minimises `KL(p_g, q) + sum_m KL(p_m, q)` over the specialists that have a say.

    For a specialist, q is summed over the classes that are not its own. All samples descend at once, each by
    itself, from the generalist's own distribution; where no specialist has a say, that is the answer. With
    'forward' and full distributions the answer is the arithmetic mean of all, with 'reverse' the geometric one.

    Args:
        generalist: Logits [B, C].
        specialists: Logits [B, |S_m| + 1] each, the last of which is the rest; corrected already.
        sets: The classes of each specialist, in the order of its logits.
        say: Who has a say, bool [B, M].
        direction: 'forward' for KL(p, q), 'reverse' for KL(q, p).
        steps: Of Adam on the logits of q.
        lr: Its first learning rate, which falls to 0 along half a cosine.

    Returns:
        Log-probabilities [B, C].

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5.
        https://arxiv.org/abs/1503.02531
    """
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    log_g = generalist.detach().log_softmax(1)
    asked = say.any(1)
    if not asked.any():
        return log_g
    own, targets, says = log_g[asked], [s.detach()[asked].log_softmax(1) for s in specialists], say[asked]
    with torch.enable_grad():
        z = own.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            log_q = z.log_softmax(1)
            loss = _divergence(own, log_q, direction)
            for m, (log_p, classes) in enumerate(zip(targets, sets, strict=True)):
                loss = loss + says[:, m] * _divergence(log_p, _seen_by(log_q, classes), direction)
            (z.grad,) = torch.autograd.grad(loss.sum(), z)
            optimizer.step()
    return log_g.index_put((asked.nonzero().flatten(),), z.detach().log_softmax(1))


def _seen_by(log_q: Tensor, classes: Sequence[int]) -> Tensor:
    """Log-probabilities of a specialist's classes, and of all others together as the last."""
    others = [c for c in range(log_q.shape[1]) if c not in set(classes)]
    if not others:  # a specialist of everything: its rest is nothing
        return F.pad(log_q[:, list(classes)], (0, 1), value=-math.inf)
    return torch.cat([log_q[:, list(classes)], log_q[:, others].logsumexp(1, keepdim=True)], 1)


def _divergence(log_p: Tensor, log_q: Tensor, direction: Direction) -> Tensor:
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    possible = log_p > -math.inf
    return (log_p.exp() * (log_p - log_q).masked_fill(~possible, 0.0)).sum(1)
