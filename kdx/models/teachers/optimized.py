"""Faster forms of a teacher's network: folded batch norms, bfloat16 or int8."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.tree import Tree, map_tree, take
from kdx.models.tap import plain
from kdx.models.teachers.folding import fold

ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")  # torch's engines for int8, fastest first as measured


class Optimized(nn.Module):
    """A network that runs a faster form of itself.

    Args:
        net: The original network; its classifier and batch norms are those that methods see.
        fast: The faster form, which computes the outputs.
        dtype: Input data type of `fast`.
    """

    def __init__(self, net: nn.Module, fast: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.net, self.fast, self.dtype = net, fast, dtype

    @property
    def head(self) -> nn.Module:
        head = self.net.head
        assert isinstance(head, nn.Module)
        return head

    def forward(self, x: Tree) -> Outputs:
        return self.fast(map_tree(lambda t: t.to(self.dtype) if t.is_floating_point() else t, x)).float()


class Logits(nn.Module):
    """Wrap a network that returns logits: `Outputs` without features, as int8 networks have none."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(self.net(x))


def optimize(net: nn.Module, how: Literal["folded", "bf16", "int8"], examples: Sequence[Tree]) -> Optimized:
    """Build a faster form of a network, in evaluation mode.

    Args:
        net: A network in evaluation mode that returns `Outputs`; not changed.
        how: `folded` merges batch norms into convolutions (error 5e-7 of the logits' scale). `bf16` does the same and
            stores weights and activations in bfloat16, remaining batch norms in float32. `int8` quantises weights and
            activations statically, for a CPU, and returns logits only.
        examples: Batches [B, ...] of network inputs; `int8` calibrates its ranges on them.

    Raises:
        UserError: The network cannot be quantised.
    """
    if how == "int8":
        tensors = [x for x in examples if isinstance(x, Tensor)]
        if len(tensors) < len(examples):
            raise UserError("teacher.optimize=int8 quantises networks that read one tensor; choose bf16 for texts")
        return Optimized(net, Logits(_quantised(net, tensors)), torch.float32)
    fast = fold(net, take(examples[0], slice(2))).requires_grad_(False)
    if how == "folded":
        return Optimized(net, fast, torch.float32)
    fast.to(torch.bfloat16)
    for module in fast.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.float()
    return Optimized(net, fast, torch.bfloat16)


class _Tensor(nn.Module):
    """Return the logits as a tensor, since torch.fx cannot trace `Outputs`."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        return out.logits if isinstance(out, Outputs) else out


@torch.no_grad()
def _quantised(net: nn.Module, examples: Sequence[Tensor]) -> nn.Module:
    if any(x.device.type != "cpu" for x in examples):
        raise UserError("teacher.optimize=int8 runs on a CPU only; set teacher.optimize=bf16 on a GPU")
    with warnings.catch_warnings(), _engine() as engine:
        warnings.simplefilter("ignore")  # deprecation notices and notices of defaults
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
                f"teacher.optimize=int8 cannot quantise a {type(plain(net)).__name__} ({reason[0]}); folded and "
                "bf16 support any network"
            ) from error


@contextmanager
def _engine() -> Iterator[str]:
    """Within the block, use the fastest supported int8 engine."""
    before = torch.backends.quantized.engine
    there = torch.backends.quantized.supported_engines
    engine = next((e for e in ENGINES if e in there), None)
    if engine is None:
        raise UserError("teacher.optimize=int8: this build of torch has no int8 engine; use folded or bf16")
    torch.backends.quantized.engine = engine
    try:
        yield engine
    finally:
        torch.backends.quantized.engine = before
