"""Extra state of modules (`nn.Module.get_extra_state`) as tensors, so that a weights file can hold it."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SUFFIX = ".torch"  # of the name of a uint8 tensor that holds the bytes of `torch.save`


def packed(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict of tensors alone: other values become the bytes that `torch.save` writes.

    Raises:
        ValueError: A value cannot be read back without running code.

    Example:
        >>> import torch
        >>> small = packed({"w": torch.ones(2), "_extra_state": {"step": 3}})
        >>> list(small), unpacked(small)["_extra_state"]
        (['w', '_extra_state.torch'], {'step': 3})
    """
    found = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            found[name] = value
            continue
        file = io.BytesIO()
        try:
            torch.save(value, file)
            torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        except Exception as error:
            raise ValueError(
                f"'{name}' is a {type(value).__name__} that a weights file cannot hold; get_extra_state must return "
                "tensors, numbers, strings, or lists and dicts of these"
            ) from error
        found[name + SUFFIX] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    return found


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of `packed`."""
    return {
        name.removesuffix(SUFFIX): torch.load(io.BytesIO(value.numpy().tobytes()), weights_only=True)
        if name.endswith(f"_extra_state{SUFFIX}")
        else value
        for name, value in state.items()
    }
