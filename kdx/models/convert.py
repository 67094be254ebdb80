"""Writes the weights of a torch file alone, for files that hold Python objects beside them, and of TorchScript.

    python -m kdx.models.convert FILE        # writes FILE.weights.pt

Loading such a file can run code that is in it, so no command of kdx does it for you.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError, reason
from kdx.core.notice import say, say_error
from kdx.models.layouts import state_names


def convert(path: Path) -> Path:
    """Write the state dicts of a file to `FILE.weights.pt`; the names of mappings around them stay.

    Raises:
        UserError: The file cannot be loaded, or holds no state dict, or the new file exists.
    """
    new = path.with_name(f"{path.name}.weights.pt")
    if new.exists():
        raise UserError(f"{new} exists already; remove it first")
    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # any code can be in the file
        raise UserError(f"{path} cannot be loaded: {reason(error)}") from error
    kept = _tensors(found)
    if not state_names(kept):
        raise UserError(f"{path} holds no state dict (a mapping of names to tensors)")
    torch.save(kept, new)
    return new


def _tensors(found: Any) -> Any:
    """The tensors of nested mappings and modules; None for anything else."""
    if isinstance(found, nn.Module):
        found = found.state_dict()
    if isinstance(found, Tensor):
        return found.detach().clone()
    if not isinstance(found, Mapping):
        return None
    kept = {str(key): _tensors(value) for key, value in found.items()}
    return {key: value for key, value in kept.items() if isinstance(value, Tensor) or value} or None


def main(arguments: list[str]) -> int:
    """Convert the file of a command line; returns the exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        say(f"usage: python -m {__spec__.name} FILE")
        return 2
    try:
        new = convert(Path(arguments[0]))
    except UserError as error:
        say_error(error)
        return 2
    names = state_names(torch.load(new, weights_only=True))
    print(f"{new}: {', '.join(names)}" if names != [""] else new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
