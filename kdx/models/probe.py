"""Shapes of a network's outputs, probed before training so that adapters exist before the optimiser.

Called by the methods and by the dry run, on the network that is then trained. Terms build their adapters from these
shapes, so a change of a shape here changes initial weights. A trace that a call leaves (a buffer, a random number)
changes every run: `tests/models/test_probe.py`.
"""

import torch
from torch import nn

from kdx.core.outputs import Outputs, Shapes
from kdx.core.spec import InputSpec


def probe(model: nn.Module, inputs: InputSpec, device: torch.device | str = "cpu") -> Shapes:
    """Run two zero inputs through a network and record the output shapes.

    Without side effects: evaluation mode during the call only, no gradients, buffers and random state restored.

    Args:
        model: A network that returns `Outputs`.
        inputs: Description of one input, from which a batch of zeros is made.
        device: Device of the model.

    Returns:
        Shapes without the batch axis.

    Raises:
        TypeError: The network does not return `Outputs`.
    """
    device = torch.device(device)
    training = [(m, m.training) for m in model.modules()]
    buffers = [(b, b.clone()) for b in model.buffers()]
    devices = [device] if device.type == "cuda" else []
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices):
            outputs = model(inputs.fake(2, device))
    finally:
        # module by module: train() would set a whole subtree to one mode
        for m, flag in training:
            m.training = flag
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    if not isinstance(outputs, Outputs):
        raise TypeError(f"a network must return Outputs, but {type(model).__name__} returned {type(outputs).__name__}")
    return Shapes(tuple(outputs.logits.shape[1:]), {role: tuple(f.shape[1:]) for role, f in outputs.features.items()})
