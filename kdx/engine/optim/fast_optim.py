"""torch's optimisers without the compiler, whose import takes longer than that of torch itself."""

from typing import TypeVar, cast

import torch
from torch.optim import Optimizer

# torch wraps these so that a compiled training loop breaks its graph there; the wrappers import the compiler
WRAPPED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")


Kind = TypeVar("Kind", bound=Optimizer)


def lean(kind: type[Kind]) -> type[Kind]:
    """An optimiser of torch with torch's own functions, taken out of the wrappers that are for compiled loops.

    kdx compiles networks, never the step of an optimiser. Where torch has no such wrappers, nothing changes.

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
