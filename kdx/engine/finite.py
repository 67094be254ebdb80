"""Checks that the trained weights are finite."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from kdx.engine.record.meter import NonFiniteError


def infinite(module: nn.Module) -> frozenset[str]:
    """Names of the tensors in a module's state that have a NaN or infinite value."""
    state = module.state_dict().items()
    return frozenset(name for name, value in state if isinstance(value, Tensor) and not value.isfinite().all())


def check_finite(student: nn.Module, by_construction: Collection[str]) -> None:
    """Raise NonFiniteError if a tensor of the trained student is not finite; no term shows the last step's effect.

    Args:
        student: The network.
        by_construction: Names of the tensors that were not finite before training, such as a mask of -inf.
    """
    found = sorted(infinite(student) - frozenset(by_construction))
    if found:
        raise NonFiniteError(
            f"the student's '{found[0]}' is not finite after the last step; a lower learning rate or a bound on "
            "the gradient norm (update.clip_norm) may help"
        )


def magnitude(value: Any) -> float:
    """The sum of a tensor's values, of their absolute values if they are complex; 0 for a module's extra state."""
    if not isinstance(value, Tensor):
        return 0.0
    return (value.abs() if value.is_complex() else value).double().sum().item()
