"""Several teachers as one: each answers, and a rule says what they say together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.core.teacher import ask
from kdx.core.types import Batch, Outputs
from kdx.losses.base.heads import network_with


class Rule(Protocol):
    """What members say together.

    Attributes:
        differentiable: Whether gradients pass through it.
    """

    differentiable: bool

    def __call__(self, logits: Sequence[Tensor]) -> Tensor: ...


class ArithmeticMean:
    """`T log sum_m w_m softmax(v_m / T)`: logits whose softmax at temperature T is the mean of the members' at T.

    At another temperature they are no such mean; terms that need one there read the members themselves.

    Args:
        weights: Of the members, above 0; made to sum to 1.
        temperature: T; at 1 the mean of the predictions themselves, which is what an ensemble is measured by.
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

    Args:
        weights: Of the members, above 0; made to sum to 1.
    """

    differentiable = True

    def __init__(self, weights: Sequence[Positive]):
        self.shares = _shares(weights)

    def __call__(self, logits: Sequence[Tensor]) -> Tensor:
        return torch.stack([v * share for v, share in zip(logits, self.shares, strict=True)]).sum(0)


class Ensemble(nn.Module):
    """Frozen teachers whose outputs together are one teacher's.

    The members' own outputs come along as `Outputs.members`, in the order given, where all have the same classes.

    Args:
        members: Frozen networks by name.
        combine: From the members' logits, in that order, to logits [B, C].
        weights: Of the members, for terms that weigh them themselves.
        features: The member whose features and classifier are the ensemble's; None for none.

    Raises:
        ValueError: There is no member, or none of that name.
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
            raise ValueError(f"teacher.features: there is no member '{features}'; members: {', '.join(members)}")
        self.members = nn.ModuleDict(members)
        self.combine, self.weights, self.features = combine, tuple(weights), features

    @property
    def net(self) -> nn.Module | None:
        """The member that shows its features, as what a wrapper wraps."""
        return None if self.features is None else self.members[self.features]

    def train(self, mode: bool = True) -> Self:
        """Does nothing: teachers are in evaluation mode."""
        return super().train(False)

    @property
    def through_inputs(self) -> Callable[[], AbstractContextManager[None]]:
        """As `Frozen.through_inputs`, for all members.

        Raises:
            UserError: A member has no derivatives, or what combines them has none.
        """
        members = [network_with(member, "through_inputs") for member in self.members.values()]
        if None in members or not self.combine.differentiable:
            raise UserError("derivatives are to be matched, and this ensemble has none")

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
        """What the members say of a training batch, each in its own way of being asked."""
        return self._together([ask(member, batch) for member in self.members.values()])

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
