"""Lazy modules: their parameters get shapes from the first input."""

from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from kdx.core.spec import InputSpec
from kdx.models.tap import plain


def has_lazy(module: nn.Module) -> bool:
    """Whether a parameter or a buffer has no shape yet."""
    return any(is_lazy(t) for t in chain(module.parameters(), module.buffers()))


def materialise(module: nn.Module, inputs: InputSpec) -> None:
    """Give lazy parameters their shapes and initial values, by one call with two zero inputs.

    The values are drawn from the global random stream. Modes of the modules are unchanged.

    Args:
        module: The network.
        inputs: Description of one input.
    """
    training = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            plain(module)(inputs.fake(2, "cpu"))
    finally:
        for m, flag in training:
            m.training = flag
