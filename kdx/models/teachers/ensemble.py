"""Ensembles: several teachers whose outputs a rule combines into one teacher's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.ranges import Positive
from kdx.core.teacher import teacher_outputs
from kdx.losses.base.heads import holder_of


class Rule(Protocol):
    """Combines the members' logits.

    Attributes:
        differentiable: Whether gradients flow through the rule.
    """

    differentiable: bool

    def __call__(self, logits: Sequence[Tensor]) -> Tensor: ...


class ArithmeticMean:
    """`T log sum_m w_m softmax(v_m / T)`: logits whose softmax at temperature T is the mean of the members' at T.

    This holds at temperature T only; terms that need the mean at another temperature read `Outputs.members`.

    Args:
        weights: Weights of the members, above 0; normalised to sum to 1.
        temperature: T; at 1 the mean of the predictions, by which an ensemble is evaluated.
    """

    differentiable = True

    def __init__(self, weights: Sequence[Positive], temperature: Positive):
        self.shares, self.temperature = _shares(weights), temperature

    def __call__(self, logits: Sequence[Tensor]) -> Tensor:
        log_probs = [
            (v / self.temperature).log_softmax(1) + share.log() for v, share in zip(logits, self.shares, strict=True)
        ]
        return self.temperature * torch.stack(log_probs).logsumexp(0)


class GeometricMean:
    """`sum_m w_m v_m`: logits whose softmax is the normalised geometric mean of the members', at every temperature.

    Of values, it is the weighted mean. Of log-odds of labels, it is the normalised geometric mean for each label.

    Args:
        weights: Weights of the members, above 0; normalised to sum to 1.
    """

    differentiable = True

    def __init__(self, weights: Sequence[Positive]):
        self.shares = _shares(weights)

    def __call__(self, logits: Sequence[Tensor]) -> Tensor:
        return torch.stack([v * share for v, share in zip(logits, self.shares, strict=True)]).sum(0)


class LabelMean:
    """Log-odds whose probability of each label, at temperature T, is the weighted mean of the members' at T.

    Args:
        weights: Weights of the members, above 0; normalised to sum to 1.
        temperature: T; at 1 the mean of the probabilities.
    """

    differentiable = True

    def __init__(self, weights: Sequence[Positive], temperature: Positive):
        self.shares, self.temperature = _shares(weights), temperature

    def __call__(self, logits: Sequence[Tensor]) -> Tensor:
        scaled = torch.stack([v / self.temperature for v in logits])
        log_shares = self.shares.log().to(scaled).view(-1, *[1] * (scaled.ndim - 1))
        yes, no = ((F.logsigmoid(odds) + log_shares).logsumexp(0) for odds in (scaled, -scaled))
        return self.temperature * (yes - no)


class Ensemble(nn.Module):
    """Frozen teachers combined into one.

    `Outputs.members` holds the members' own outputs, in the given order, if all have the same classes.

    Args:
        members: Frozen networks by name.
        combine: Maps the members' logits, in that order, to logits [B, C].
        weights: Weights of the members, for terms that weight them themselves.
        features: The member that provides the ensemble's features and classifier; None for no features.

    Raises:
        ValueError: There are no members, or `features` names none of them.
    """

    def __init__(
        self,
        members: Mapping[str, nn.Module],
        combine: Rule,
        weights: Sequence[Positive],
        features: str | None,
    ):
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        if features is not None and features not in members:
            raise ValueError(f"teacher.features: no member '{features}'; members: {', '.join(members)}")
        self.members = nn.ModuleDict(members)
        self.combine, self.weights, self.features = combine, tuple(weights), features

    @property
    def net(self) -> nn.Module | None:
        """The member that provides the features, under the name that wrappers give their network."""
        return None if self.features is None else self.members[self.features]

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @property
    def through_inputs(self) -> Callable[[], AbstractContextManager[None]]:
        """`Frozen.through_inputs` for all members.

        Raises:
            UserError: A member or the rule is not differentiable.
        """
        members = [holder_of(member, "through_inputs") for member in self.members.values()]
        if None in members or not self.combine.differentiable:
            raise UserError("this method matches the teacher's derivatives, and this ensemble has no derivatives")

        @contextmanager
        def through() -> Iterator[None]:
            with ExitStack() as stack:
                for member in members:
                    stack.enter_context(member.through_inputs())
                yield

        return through

    def forward(self, x: Tensor) -> Outputs:
        return self._together([member(x) for member in self.members.values()])

    def of(self, batch: Batch) -> Outputs:
        """Combine the members' outputs for a training batch; each member reads the batch in its own way."""
        return self._together([teacher_outputs(member, batch) for member in self.members.values()])

    def _together(self, outputs: Sequence[Outputs]) -> Outputs:
        with torch.autocast(outputs[0].logits.device.type, enabled=False):
            logits = self.combine([o.logits.float() for o in outputs])
        shown = {} if self.features is None else outputs[list(self.members).index(self.features)].features
        alike = all(o.logits.shape == logits.shape for o in outputs)
        return Outputs(logits, shown, tuple(outputs) if alike else ())


def _shares(weights: Sequence[float]) -> Tensor:
    shares = torch.tensor(list(weights), dtype=torch.float64)
    if not len(shares) or not (shares > 0).all():
        raise ValueError(f"members need weights above 0, got {list(weights)}")
    return shares / shares.sum()
