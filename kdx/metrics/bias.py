"""How far the biases of some classes should be moved, for a network that has never seen them, or hardly any other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from kdx.core.metric import Metric


def some_classes(classes: Sequence[int], num_classes: int) -> None:
    """Raise ValueError where `classes` are not some, but not all, of so many."""
    if not classes or len(set(classes)) >= num_classes or not all(0 <= c < num_classes for c in classes):
        found = ", ".join(map(str, classes)) or "none"
        raise ValueError(f"a bias is moved for some of the classes 0 to {num_classes - 1}, but not all; found {found}")


@dataclass(frozen=True)
class Margins:
    """All that moving the biases of some classes together, by one number, can change about predictions.

    Attributes:
        gap: How much the largest logit of those classes must rise to become the prediction, float64 [N].
        log_odds: Of the probability that the label is one of them, float64 [N].
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
        """Of logits [N, C] and labels [N]. Raises ValueError where `classes` are not some, but not all, of C."""
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
        """Of several batches."""
        return cls(*(torch.cat([vars(part)[name] for part in parts]) for name in (field.name for field in fields(cls))))

    def measure(self, shift: float) -> dict[str, float]:
        """What predictions are worth with the biases raised by `shift`, as fractions.

        "top1" of all examples, "recall" of those of the classes, and "class_errors", the wrong ones of these among
        all examples.
        """
        raised = self.gap < shift
        right = torch.where(raised, self.right_within, self.right_outside)
        size, of_class = len(right), int(self.within.sum())
        found = int((right & self.within).sum())
        recall = {"recall": found / of_class} if of_class else {}
        return {"top1": int(right.sum()) / size, **recall, "class_errors": (of_class - found) / size}


def fewest_errors(margins: Margins) -> float:
    """The shift with the fewest errors, found exactly; of several the least in size. It looks at the labels.

    Predictions change at the gaps alone, so one point of each interval between two of them is tried.
    """
    gaps, order = margins.gap.sort()
    # errors below the first gap, where nothing is raised, and what each example changes once it is
    first = int((~margins.right_outside).sum())
    change = margins.right_outside[order].long() - margins.right_within[order].long()
    errors = torch.cat([change.new_zeros(1), change.cumsum(0)]) + first
    edges = torch.cat([gaps[:1] - 2, gaps, gaps[-1:] + 2])
    shifts = (edges[:-1] + edges[1:]) / 2
    open_ = edges[:-1] < edges[1:]  # between equal gaps there is no room
    here = int((margins.gap < 0).sum())
    shifts[here] = 0.0 if edges[here] < 0 < edges[here + 1] else shifts[here]
    best = errors[open_].min()
    candidates = shifts[open_ & (errors == best)]
    return float(candidates[candidates.abs().argmin()])


def match_prior(margins: Margins, prior: float) -> float:
    """The shift at which the mean probability of the classes is `prior`; labels play no part.

    The mean rises with the shift, so that halving an interval finds it.

    Raises:
        ValueError: The prior is not between 0 and 1.
    """
    if not 0 < prior < 1:
        raise ValueError(f"a class's prior lies between 0 and 1, got {prior}")
    wanted = math.log(prior) - math.log1p(-prior)
    # where all examples have at most, and at least, the prior
    low, high = wanted - float(margins.log_odds.max()), wanted - float(margins.log_odds.min())
    for _ in range(100):
        middle = (low + high) / 2
        if float((margins.log_odds + middle).sigmoid().mean()) < prior:
            low = middle
        else:
            high = middle
    return (low + high) / 2
