"""The logits in the output of a network that returns more than a tensor."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kdx.core.outputs import Outputs

Key = str | int | None


def find_logits(output: object, key: Key, network: str) -> Tensor:
    """The logits in a network's output.

    Without a key: a tensor itself; the field `logits` of a mapping, a dataclass or a named tuple; else the only
    tensor of a mapping or a dataclass; else the first item of a tuple or a list.

    Args:
        output: What the network's forward returned.
        key: Name or position of the logits; names of nested fields are joined by dots. None for the rule above.
        network: Name of the network, for messages.

    Raises:
        ValueError: The output has no such tensor.

    Example:
        >>> import torch
        >>> find_logits((torch.zeros(2, 3), torch.ones(2, 5)), None, "Net").shape
        torch.Size([2, 3])
        >>> find_logits({"out": {"y": torch.zeros(2, 4)}, "loss": torch.ones(1)}, "out.y", "Net").shape
        torch.Size([2, 4])
    """
    if isinstance(output, Tensor) and key is None:
        return output
    if isinstance(output, Outputs):
        raise ValueError(f"{network} returned Outputs, not a tensor of logits; annotate its forward as -> Outputs")
    if key is not None:
        return _at(output, key, network)
    fields = _fields(output)
    if isinstance(fields.get("logits"), Tensor):
        return fields["logits"]
    tensors = [value for value in fields.values() if isinstance(value, Tensor)]
    if len(tensors) == 1 and not isinstance(output, tuple | list):
        return tensors[0]
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise ValueError(
        f"{network} returned {described(output)}, which has no 'logits' and not one tensor alone; name its logits by "
        "`output` of kdx.models.own.tapped_model"
    )


def chosen(output: object) -> str | None:
    """How `find_logits` finds the logits in an output without a key, for people; None for a tensor."""
    if isinstance(output, Tensor | Outputs):
        return None
    fields = _fields(output)
    if isinstance(fields.get("logits"), Tensor):
        return f"the field 'logits' of {described(output)}"
    if isinstance(output, tuple | list):
        return f"the first item of {described(output)}"
    name = next((name for name, value in fields.items() if isinstance(value, Tensor)), "")
    return f"the field '{name}' of {described(output)}"


def described(output: object) -> str:
    """The type of an output with its fields or its length."""
    kind = type(output).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    if isinstance(output, tuple | list) and not hasattr(output, "_fields"):
        return f"{article} {kind} of {len(output)}"
    fields = _fields(output)
    return f"{article} {kind} with {', '.join(map(str, fields))}" if fields else f"{article} {kind}"


def _fields(output: object) -> dict[str, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    names = getattr(output, "_fields", None)  # of a named tuple
    return {name: getattr(output, name) for name in names} if isinstance(names, tuple) else {}


def _at(output: object, key: str | int, network: str) -> Tensor:
    found: Any = output
    for part in str(key).split("."):
        numbered = isinstance(found, tuple | list) and part.removeprefix("-").isdigit()
        try:
            found = found[int(part)] if numbered else _fields(found)[part]
        except (KeyError, IndexError):
            raise ValueError(f"{network} returned {described(output)}, which has no '{key}'") from None
    if not isinstance(found, Tensor):
        raise ValueError(f"'{key}' in the output of {network} is {described(found)}, not a tensor of logits")
    return found
