"""A user's own networks: plain modules that return logits."""

import inspect
from collections.abc import Mapping

import torch
from torch import nn

from kdx.core.outputs import Outputs
from kdx.models.answers import Key
from kdx.models.base import Net
from kdx.models.stages import find_stages
from kdx.models.tap import Tapped


def as_network(module: nn.Module) -> nn.Module:
    """Wrap a module that returns logits [B, C], alone or with others; keep one that returns `Outputs`.

    A module returns `Outputs` if it is one of this package's classes or if its `forward` is annotated
    `-> Outputs`. Any other module is wrapped in `Tapped`: its last linear layer or 1x1 convolution is taken as the
    classifier `head`, whose input is the feature `pooled`, and its stages are found as timm's and torchvision's are.
    The first call checks that the head's output is the module's output; if not, there is no `head` and no `pooled`.
    `find_logits` takes the logits from an output that is no tensor.

    Args:
        module: What a config's `student.net` or `teacher.net` builds.

    Returns:
        A network that returns `Outputs`. `plain` gives the module back, and a run exports that module's weights.

    Raises:
        ValueError: The object is not an `nn.Module`.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"a network must be a torch.nn.Module, but its _target_ gave a {type(module).__name__}")
    if isinstance(module, Net | Tapped) or _returns_outputs(module):
        return module
    return _guessed(module, None)


def tapped_model(
    net: nn.Module, taps: Mapping[str, str] | None = None, head: str | None = None, output: Key = None
) -> Tapped:
    """A plain module whose features, classifier and logits the config names.

    Args:
        net: The module; its forward returns logits [B, C], alone or with others.
        taps: Module path by role, such as `{stage1: block1, stage2: block2}`.
        head: Module path of the classifier, whose input is the feature `pooled`. Without `taps` and `head`, both are
            guessed as in `as_network`.
        output: Name or position of the logits in the output, such as `1` or `out.logits`; None for the rule of
            `kdx.models.answers.find_logits`.

    Raises:
        ValueError: The module has no submodule of that path.
    """
    if taps is None and head is None:
        return _guessed(net, output)
    return Tapped(net, taps or {}, head, strict=True, output=output)


def _guessed(module: nn.Module, output: Key) -> Tapped:
    # compiled code of TorchScript runs no hooks, so that nothing inside can be tapped
    head = None if isinstance(module, torch.jit.ScriptModule) else _last_classifier(module)
    stages = {} if head is None else find_stages(module, module.get_submodule(head))
    return Tapped(module, stages, head, strict=False, guessed=True, output=output)


def _returns_outputs(module: nn.Module) -> bool:
    annotation = inspect.signature(module.forward).return_annotation
    if isinstance(annotation, str):  # from __future__ import annotations
        return annotation.rpartition(".")[2] == Outputs.__name__
    return annotation is Outputs


def _last_classifier(module: nn.Module) -> str | None:
    """Path of the last linear layer or 1x1 convolution in the order of definition; None if there is none."""
    found = None
    for path, m in module.named_modules():
        if path and (isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1))):
            found = path
    return found
