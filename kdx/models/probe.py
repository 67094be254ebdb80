"""Shapes of a network's outputs, probed before training so that adapters exist before the optimiser.

Called by the methods and by the dry run, on the network that is then trained. Terms build their adapters from these
shapes, so a change of a shape here changes initial weights. A trace that a call leaves (a buffer, a random number)
changes every run: `tests/models/test_probe.py`.
"""

from collections.abc import Mapping

import torch
from torch import nn

from kdx.core.outputs import FeatureSpec, Outputs, Shapes
from kdx.core.spec import InputSpec
from kdx.losses.base.heads import holder_of
from kdx.models.features.quiet import quiet


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
    with quiet(model, device):
        outputs = model(inputs.fake(2, device))
    if not isinstance(outputs, Outputs):
        raise TypeError(f"a network must return Outputs, but {type(model).__name__} returned {type(outputs).__name__}")
    features = {role: tuple(f.shape[1:]) for role, f in outputs.features.items()}
    return Shapes(tuple(outputs.logits.shape[1:]), features, _specs(model, features))


def _specs(model: nn.Module, features: Mapping[str, tuple[int, ...]]) -> dict[str, FeatureSpec]:
    """The specs of features that the network, or the network inside its wrappers, states."""
    known = holder_of(model, "feature_spec")
    found = {} if known is None else {role: known.feature_spec(role, shape) for role, shape in features.items()}
    return {role: spec for role, spec in found.items() if spec is not None}
