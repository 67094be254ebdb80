"""torch's optimizers without an import of the compiler, which takes longer than the import of torch."""

from typing import TypeVar, cast

import torch
from torch.optim import Optimizer

# torch wraps these methods for `torch.compile`; the wrappers import the compiler
WRAPPED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")


Kind = TypeVar("Kind", bound=Optimizer)


def unwrapped(kind: type[Kind]) -> type[Kind]:
    """An optimizer class of torch without the wrappers for `torch.compile` around its methods.

    kdx compiles networks, never an optimizer's step. Without such wrappers in torch, the class does not change.

    Args:
        kind: A class of torch whose step is not differentiable.
    """
    inner = {name: getattr(getattr(Optimizer, name), "__wrapped__", None) for name in WRAPPED}
    own = {name: function for name, function in inner.items() if function is not None and name not in vars(kind)}
    step = getattr(kind.step, "__wrapped__", None)
    if step is not None:
        own["step"] = torch.no_grad()(step)
    made = type(kind.__name__, (kind,), {**own, "__doc__": kind.__doc__, "__module__": __name__})
    return cast(type[Kind], made)
