"""A teacher's network at full tilt: the same function up to rounding, in fewer operations or fewer bits."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.types import Outputs
from kdx.models.tap import plain
from kdx.models.teachers.folding import fold

ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")  # of integer arithmetic, the fastest measured first


class Optimized(nn.Module):
    """Answers with a faster form of a network.

    Args:
        net: The network itself; methods that ask for its classifier or its batch norms get these.
        fast: What answers in its place.
        dtype: What `fast` reads.
    """

    def __init__(self, net: nn.Module, fast: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.net, self.fast, self.dtype = net, fast, dtype

    @property
    def head(self) -> nn.Module:
        head = self.net.head
        assert isinstance(head, nn.Module)
        return head

    def forward(self, x: Tensor) -> Outputs:
        return self.fast(x.to(self.dtype) if x.is_floating_point() else x).float()


class Logits(nn.Module):
    """A network's logits as `Outputs` without features; what there is of a network in integers."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(self.net(x))


def optimize(net: nn.Module, how: Literal["folded", "bf16", "int8"], examples: Sequence[Tensor]) -> Optimized:
    """A faster form of a network, in evaluation mode.

    Args:
        net: Returns `Outputs`; in evaluation mode, and left as it is.
        how: `folded` merges batch norms into convolutions (5e-7 of the logits' scale); `bf16` does, and keeps
            weights and activations in bfloat16, but unmerged batch norms' numbers in float32; `int8` quantises
            weights and activations statically, for a CPU, and has logits alone.
        examples: Batches [B, ...] as the network reads them; integers get their ranges from these.

    Raises:
        UserError: The network cannot be quantised.
    """
    if how == "int8":
        return Optimized(net, Logits(_quantised(net, examples)), torch.float32)
    fast = fold(net, examples[0][:2]).requires_grad_(False)
    if how == "folded":
        return Optimized(net, fast, torch.float32)
    fast.to(torch.bfloat16)
    for module in fast.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.float()
    return Optimized(net, fast, torch.bfloat16)


class _Tensor(nn.Module):
    """Logits as a tensor, the only thing that can be traced."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        return out.logits if isinstance(out, Outputs) else out


@torch.no_grad()
def _quantised(net: nn.Module, examples: Sequence[Tensor]) -> nn.Module:
    if any(x.device.type != "cpu" for x in examples):
        raise UserError("teacher.optimize=int8 is for a CPU; on a GPU bf16 is the fast one")
    with warnings.catch_warnings(), _engine() as engine:
        warnings.simplefilter("ignore")  # that it is moving to another package, and that defaults are defaults
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        traced = _Tensor(copy.deepcopy(plain(net))).eval()
        try:
            watched = prepare_fx(traced, get_default_qconfig_mapping(engine), (examples[0],))
            for x in examples:
                watched(x)
            return convert_fx(watched)
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"teacher.optimize=int8 cannot quantise a {type(plain(net)).__name__} ({reason[0]}); folded and bf16 "
                "work with any network"
            ) from error


@contextmanager
def _engine() -> Iterator[str]:
    """The best engine there is, chosen for the block."""
    before = torch.backends.quantized.engine
    there = torch.backends.quantized.supported_engines
    engine = next((e for e in ENGINES if e in there), None)
    if engine is None:
        raise UserError("teacher.optimize=int8: this torch has no engine for integers")
    torch.backends.quantized.engine = engine
    try:
        yield engine
    finally:
        torch.backends.quantized.engine = before
