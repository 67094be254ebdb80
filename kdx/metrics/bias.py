"""Shifts of the biases of some classes, for a network trained on few examples of these or of the other classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from kdx.core.metric import Metric


def some_classes(classes: Sequence[int], num_classes: int) -> None:
    """Check that `classes` are a proper subset of the classes.

    Raises:
        ValueError: They are none, all, or not from 0 to num_classes - 1.

    Example:
        >>> some_classes([3], 10)
        >>> some_classes([0, 1], 2)
        Traceback (most recent call last):
        ValueError: a bias is moved for some of the classes 0 to 1, but not all; found 0, 1
    """
    if not classes or len(set(classes)) >= num_classes or not all(0 <= c < num_classes for c in classes):
        found = ", ".join(map(str, classes)) or "none"
        raise ValueError(f"a bias is moved for some of the classes 0 to {num_classes - 1}, but not all; found {found}")


@dataclass(frozen=True)
class Margins:
    """Per-example quantities that determine the predictions for any common shift of some classes' biases.

    Attributes:
        gap: Shift at which the largest logit of those classes becomes the prediction, float64 [N].
        log_odds: Log-odds of the probability that the label is one of them, float64 [N].
        right_within: Whether the label is their largest logit, bool [N].
        right_outside: Whether the label is the largest logit of the other classes, bool [N].
        within: Whether the label is one of them, bool [N].
    """

    described: ClassVar[Sequence[Metric]] = (
        Metric(name="top1", label="top-1", unit="%", digits=2, better="higher"),
        Metric(name="recall", label="recall", unit="%", digits=2, better="higher"),
        Metric(name="class_errors", label="errors of the classes", unit="%", digits=2, better="lower"),
        Metric(name="shift", label="shift of the biases", digits=2),
    )

    gap: Tensor
    log_odds: Tensor
    right_within: Tensor
    right_outside: Tensor
    within: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, classes: Sequence[int]) -> "Margins":
        """From logits [N, C] and labels [N].

        Raises:
            ValueError: `classes` are not a proper subset of the C classes.
        """
        some_classes(classes, logits.shape[1])
        logits = logits.double()
        chosen = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        chosen[list(classes)] = True
        inside, outside = (logits.masked_fill(mask, -torch.inf) for mask in (~chosen, chosen))
        return cls(
            outside.amax(1) - inside.amax(1),
            inside.logsumexp(1) - outside.logsumexp(1),
            inside.argmax(1) == labels,
            outside.argmax(1) == labels,
            chosen[labels],
        )

    @classmethod
    def cat(cls, parts: Sequence["Margins"]) -> "Margins":
        """Concatenate the margins of several batches."""
        return cls(*(torch.cat([vars(part)[name] for part in parts]) for name in (f.name for f in fields(cls))))

    def measure(self, shift: float) -> dict[str, float]:
        """Accuracies with the biases raised by `shift`, as fractions.

        "top1" over all examples, "recall" over those of the classes, and "class_errors", the errors on these divided by
        the number of all examples.
        """
        raised = self.gap < shift
        right = torch.where(raised, self.right_within, self.right_outside)
        size, of_class = len(right), int(self.within.sum())
        found = int((right & self.within).sum())
        recall = {"recall": found / of_class} if of_class else {}
        return {"top1": int(right.sum()) / size, **recall, "class_errors": (of_class - found) / size}


def fewest_errors(margins: Margins) -> float:
    """The shift with the fewest errors, found exactly; the smallest in size of several. It reads the labels.

    Predictions change only at the gaps, so one point of each interval between gaps is tried.

    Args:
        margins: Margins of a validation set.

    Example:
        The label is class 1, whose logit is 2 below the other: any shift above 2 is right.

        >>> margins = Margins.of(torch.tensor([[2.0, 0.0]]), torch.tensor([1]), [1])
        >>> fewest_errors(margins) > 2
        True
    """
    gaps, order = margins.gap.sort()
    # errors below the first gap, and the change of each example above its gap
    first = int((~margins.right_outside).sum())
    change = margins.right_outside[order].long() - margins.right_within[order].long()
    errors = torch.cat([change.new_zeros(1), change.cumsum(0)]) + first
    edges = torch.cat([gaps[:1] - 2, gaps, gaps[-1:] + 2])
    shifts = (edges[:-1] + edges[1:]) / 2
    open_ = edges[:-1] < edges[1:]  # equal gaps have no interval between them
    here = int((margins.gap < 0).sum())
    shifts[here] = 0.0 if edges[here] < 0 < edges[here + 1] else shifts[here]
    best = errors[open_].min()
    candidates = shifts[open_ & (errors == best)]
    return float(candidates[candidates.abs().argmin()])


def match_prior(margins: Margins, prior: float) -> float:
    """The shift at which the mean probability of the classes is `prior`; found by bisection, without labels.

    Args:
        margins: Margins of a set of examples.
        prior: Between 0 and 1.

    Raises:
        ValueError: The prior is not between 0 and 1.

    Example:
        >>> margins = Margins.of(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), [1])
        >>> shift = match_prior(margins, 0.75)  # log-odds of 3 to 1
        >>> abs(shift - torch.tensor(3.0).log().item()) < 1e-6
        True
    """
    if not 0 < prior < 1:
        raise ValueError(f"a class's prior lies between 0 and 1, got {prior}")
    wanted = math.log(prior) - math.log1p(-prior)
    # shifts at which all examples have at most, and at least, the prior
    low, high = wanted - float(margins.log_odds.max()), wanted - float(margins.log_odds.min())
    for _ in range(100):
        middle = (low + high) / 2
        if float((margins.log_odds + middle).sigmoid().mean()) < prior:
            low = middle
        else:
            high = middle
    return (low + high) / 2
