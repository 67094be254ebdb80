"""A generalist and specialists, and the distribution that agrees best with all who have a say."""

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

    Raises:
        ValueError: There are not so many classes.
    """
    if top > generalist.shape[1]:
        raise ValueError(f"the generalist has {generalist.shape[1]} classes, so its {top} most likely cannot be taken")
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
) -> Tensor:
    """Log of the q that minimises `KL(p_g, q) + sum_m KL(p_m, q)` over the specialists that have a say.

    For a specialist, q is summed over the classes that are not its own. All samples descend at once, each by
    itself, from the generalist's own distribution; where no specialist has a say, that is the answer. With
    'forward' and full distributions the answer is the arithmetic mean of all, with 'reverse' the geometric one.

    The paper descends along the gradient in the logits of q and leaves the rate open. A step here goes to the mean of
    all, in which each specialist's rest is divided among its classes as q divides it. With 'forward' that is q minus
    the gradient in its logits over the number of those who have a say, a natural gradient: it never goes up, needs no
    rate, and of a single specialist it finds the answer in one step.

    Args:
        generalist: Logits [B, C].
        specialists: Logits [B, |S_m| + 1] each, the last of which is the rest; corrected already.
        sets: The classes of each specialist, in the order of its logits.
        say: Who has a say, bool [B, M].
        direction: 'forward' for KL(p, q), 'reverse' for KL(q, p).
        steps: Where several have a say.

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
    own, says = log_g[asked], say[asked]
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
    """Log of the arithmetic or geometric mean over those who vote: [B, M, C] and bool [B, M] to [B, C]."""
    silent = ~voters[:, :, None]
    if direction == "forward":
        return log_probs.masked_fill(silent, -math.inf).logsumexp(1).log_softmax(1)
    return (log_probs.masked_fill(silent, 0.0).sum(1) / voters.sum(1, keepdim=True)).log_softmax(1)


class Agreement:
    """What a generalist and its specialists say together, as the rule of an ensemble: the log of `solve`'s q.

    A specialist's dustbin is corrected first. Who has a say is decided by the generalist's most likely classes.

    Args:
        sets: Classes of each member, in the order of its outputs; None for the one that knows all, the generalist.
        trained_shares: Part that each specialist's own classes had in what it was trained on; the generalist's is
            not read.
        shares: Their part among all examples; None for that of classes of equal size.
        top: Number of the generalist's classes that are looked at.
        direction, steps: As in `solve`.

    Raises:
        ValueError: There is not one generalist, or no specialist.
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
                f"specialists teach with one generalist, the member without special_classes; found {len(generalists)} "
                f"of these and {len(sets) - len(generalists)} specialists"
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
        say = active(general, sets, self.top)
        return solve(general, corrected, sets, say, self.direction, self.steps)
