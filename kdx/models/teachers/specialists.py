"""Specialists: networks of some classes and a rest class, combined with a generalist of all classes."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.ranges import PositiveInt
from kdx.losses.base.heads import linear_head

Direction = Literal["forward", "reverse"]


@torch.no_grad()
def specialise(net: nn.Module, classes: Sequence[int]) -> None:
    """Turn a network of all classes into one of some classes plus, as the last, a rest class; other layers stay.

    The classifier keeps the rows of these classes. The row of the rest class is the mean of the other rows, with the
    logarithm of their number added to its bias. The exact logit of the rest, log-sum-exp of the others, is not linear
    in the features; this one equals it if the others' logits are equal, and is below it otherwise.

    Args:
        net: The network, changed in place; its classifier is one linear layer.
        classes: The specialist's classes, in the order of the new outputs.

    Raises:
        ValueError: The classifier is not linear, or the classes are not a proper subset of the network's.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5 (which starts
        specialists from the generalist's weights and leaves the row of the rest open). https://arxiv.org/abs/1503.02531
    """
    head = linear_head(net, "student", "a specialist")
    own = list(classes)
    others = [c for c in range(head.out_features) if c not in own]
    if not others or not own or min(own) < 0 or len(own) + len(others) != head.out_features:
        raise ValueError(
            f"a specialist's classes must be a proper subset of the network's {head.out_features}, got {own}"
        )
    head.weight = nn.Parameter(torch.cat([head.weight[own], head.weight[others].mean(0, keepdim=True)]))
    if head.bias is not None:
        rest = head.bias[others].mean() + math.log(len(others))
        head.bias = nn.Parameter(torch.cat([head.bias[own], rest.view(1)]))
    head.out_features = len(own) + 1


def correction(share: float, trained_share: float) -> float:
    """Bias correction of a specialist's rest logit, so that its predictions match the true proportions.

    If the specialist's classes make up `trained_share` of its training examples instead of `share`, its odds for them
    are too high by the ratio of the two odds; the logarithm of that ratio is added to the rest logit.

    Args:
        share: Share of its classes among all examples, in (0, 1).
        trained_share: Share of its classes among its training examples; 0.5 if balanced.

    Raises:
        ValueError: A share is outside (0, 1).
    """
    if not 0 < share < 1 or not 0 < trained_share < 1:
        raise ValueError(f"shares must lie in (0, 1), got {share} and {trained_share}")
    return math.log(trained_share / share) - math.log((1 - trained_share) / (1 - share))


def active(generalist: Tensor, sets: Sequence[Sequence[int]], top: PositiveInt) -> Tensor:
    """Mask of the active specialists: those with one of the generalist's `top` classes, bool [B, M].

    Args:
        generalist: Logits [B, C].
        sets: The classes of each specialist.
        top: Number of the generalist's most likely classes to consider.

    Raises:
        ValueError: `top` exceeds the number of classes.
    """
    if top > generalist.shape[1]:
        raise ValueError(f"top={top} exceeds the generalist's {generalist.shape[1]} classes")
    best = generalist.topk(top, 1).indices
    known = torch.zeros(len(sets), generalist.shape[1], dtype=torch.bool, device=generalist.device)
    for row, classes in zip(known, sets, strict=True):
        row[list(classes)] = True
    return known.T[best].any(1)


def solve(
    generalist: Tensor,
    specialists: Sequence[Tensor],
    sets: Sequence[Sequence[int]],
    active_mask: Tensor,
    direction: Direction,
    steps: PositiveInt,
) -> Tensor:
    """Log of the q that minimises `KL(p_g, q) + sum_m KL(p_m, q)` over the active specialists.

    For a specialist, q is summed over the classes outside its set. All examples are optimised at once and
    independently, starting from the generalist's distribution, which is the solution if no specialist is active. For
    full distributions the solution is the arithmetic mean with 'forward', and the geometric mean with 'reverse'.

    The paper follows the gradient in the logits of q and leaves the learning rate open. Here a step goes to the mean
    of all networks, in which each specialist's rest probability is split over its classes in q's proportions. With
    'forward' this is q minus the gradient in its logits divided by the number of networks, a natural gradient step:
    the objective never increases, there is no rate to set, and for a single specialist one step is exact.

    Args:
        generalist: Logits [B, C].
        specialists: Logits [B, |S_m| + 1] of each specialist, the last for the rest; already corrected.
        sets: The classes of each specialist, in the order of its logits.
        active_mask: Mask of the active specialists, bool [B, M].
        direction: 'forward' for KL(p, q), 'reverse' for KL(q, p).
        steps: Number of steps if several specialists are active; one step is exact otherwise.

    Returns:
        Log-probabilities [B, C].

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5.
        https://arxiv.org/abs/1503.02531
    """
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    log_g = generalist.detach().log_softmax(1)
    asked = active_mask.any(1)
    if not asked.any():
        return log_g
    own, says = log_g[asked], active_mask[asked]
    shape = (len(own), len(sets), own.shape[1])
    log_p, log_rest = own.new_zeros(shape), own.new_zeros(*shape[:2], 1)
    special = torch.zeros(shape[1:], dtype=torch.bool, device=own.device)
    for m, (logits, classes) in enumerate(zip(specialists, sets, strict=True)):
        said = logits.detach()[asked].log_softmax(1)
        log_p[:, m, list(classes)], log_rest[:, m] = said[:, :-1], said[:, -1:]
        special[m, list(classes)] = True
    voters = torch.cat([torch.ones_like(says[:, :1]), says], 1)
    log_q = own
    for _ in range(steps if bool((says.sum(1) > 1).any()) else 1):
        rest = log_q[:, None].masked_fill(special, -math.inf)
        completed = torch.where(special, log_p, log_rest + rest - rest.logsumexp(2, keepdim=True))
        log_q = _mean(torch.cat([own[:, None], completed], 1), voters, direction)
    return log_g.index_put((asked.nonzero().flatten(),), log_q)


def _mean(log_probs: Tensor, voters: Tensor, direction: Direction) -> Tensor:
    """Log of the arithmetic or geometric mean over the active networks: [B, M, C] and bool [B, M] to [B, C]."""
    silent = ~voters[:, :, None]
    if direction == "forward":
        return log_probs.masked_fill(silent, -math.inf).logsumexp(1).log_softmax(1)
    return (log_probs.masked_fill(silent, 0.0).sum(1) / voters.sum(1, keepdim=True)).log_softmax(1)


class SpecialistConsensus:
    """Ensemble rule for a generalist and its specialists: the log of `solve`'s q.

    The specialists' rest logits are corrected first. A specialist is active if the generalist's most likely classes
    include one of its own.

    Args:
        sets: Classes of each member, in the order of its outputs; None for the generalist, which has all.
        trained_shares: Share of each specialist's classes among its training examples; the generalist's entry is
            ignored.
        shares: Share of its classes among all examples; None assumes classes of equal size.
        top: Number of the generalist's most likely classes to consider.
        direction, steps: As in `solve`.

    Raises:
        ValueError: The number of generalists is not one, or there is no specialist.
    """

    differentiable = False

    def __init__(
        self,
        sets: Sequence[Sequence[int] | None],
        trained_shares: Sequence[float],
        shares: Sequence[float | None],
        top: PositiveInt,
        direction: Direction,
        steps: PositiveInt,
    ):
        generalists = [i for i, classes in enumerate(sets) if classes is None]
        if len(generalists) != 1 or len(sets) < 2:
            raise ValueError(
                f"specialists need exactly one generalist, a member without special_classes; found {len(generalists)} "
                f"generalists and {len(sets) - len(generalists)} specialists"
            )
        self.generalist = generalists[0]
        self.sets, self.trained_shares, self.shares = list(sets), list(trained_shares), list(shares)
        self.top, self.steps = top, steps
        self.direction: Direction = direction

    def __call__(self, logits: Sequence[Tensor]) -> Tensor:
        """Log-probabilities [B, C] of q, from the members' logits in their order."""
        general = logits[self.generalist]
        sets, corrected = [], []
        for classes, trained, share, said in zip(self.sets, self.trained_shares, self.shares, logits, strict=True):
            if classes is not None:
                share = len(classes) / general.shape[1] if share is None else share
                sets.append(classes)
                corrected.append(torch.cat([said[:, :-1], said[:, -1:] + correction(share, trained)], 1))
        active_mask = active(general, sets, self.top)
        return solve(general, corrected, sets, active_mask, self.direction, self.steps)
