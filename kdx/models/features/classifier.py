"""The part of a network that turns a feature into logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Form = Literal["bc", "bc11", "b11c"]
SILENT = (nn.Identity, nn.Dropout, nn.Flatten)


@dataclass(frozen=True)
class Step:
    """A module of the classifier, by path, and the form of the vectors that it reads."""

    path: str
    form: Form


@dataclass(frozen=True)
class Reader:
    """How a feature becomes logits: the mean over positions, modules in a row, the mean over several classifiers.

    Attributes:
        chains: The modules of each classifier, in order.
        widths: Widths of the parts that the classifiers read; empty where all read the whole.
        relu: Whether a ReLU comes before the mean.
    """

    chains: tuple[tuple[Step, ...], ...]
    widths: tuple[int, ...] = ()
    relu: bool = False


class Classifier(nn.Module):
    """Maps a feature, a vector [B, D] or a map [B, D, H, W], to logits [B, C], with a network's own modules.

    Args:
        net: The network.
        reader: The modules and their order.
        in_features: D.
    """

    def __init__(self, net: nn.Module, reader: Reader, in_features: int):
        super().__init__()
        self.chains = nn.ModuleList(nn.ModuleList(net.get_submodule(s.path) for s in chain) for chain in reader.chains)
        self.forms: list[list[Form]] = [[step.form for step in chain] for chain in reader.chains]
        self.widths, self.relu, self.in_features = list(reader.widths), reader.relu, in_features

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x) if self.relu else x
        x = x.mean((2, 3)) if x.dim() == 4 else x
        parts = x.split(self.widths, 1) if self.widths else [x] * len(self.forms)
        chains = zip(self.chains, self.forms, parts, strict=True)
        logits = [_through(chain, forms, part) for chain, forms, part in chains]  # pyright: ignore[reportArgumentType]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)


def classifier(net: nn.Module, reader: Reader, in_features: int) -> nn.Module:
    """The classifier of a reader: the network's linear layer itself where nothing else takes part."""
    if len(reader.chains) == 1 and len(reader.chains[0]) == 1 and not reader.relu:
        only = net.get_submodule(reader.chains[0][0].path)
        if isinstance(only, nn.Linear):
            return only
    return Classifier(net, reader, in_features)


def form_of(x: Tensor) -> Form:
    """The form of vectors [B, C], [B, C, 1, 1] or [B, 1, 1, C]."""
    if x.dim() < 4:
        return "bc"
    return "bc11" if x.shape[2:].numel() == 1 else "b11c"


def formed(x: Tensor, form: Form) -> Tensor:
    """Vectors [B, C] in a form."""
    return x if form == "bc" else x[:, :, None, None] if form == "bc11" else x[:, None, None, :]


def _through(chain: Sequence[nn.Module], forms: Sequence[Form], x: Tensor) -> Tensor:
    for module, form in zip(chain, forms, strict=True):
        x = module(formed(x, form)).flatten(1)
    return x
