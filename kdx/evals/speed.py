"""Size and speed of networks on this machine."""

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Unpack

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.ranges import PositiveInt
from kdx.core.tree import Tree, take
from kdx.data.on_device import on_device
from kdx.evals.base import OfSplit, SplitEvaluator, network
from kdx.losses.base.heads import holder_of

Form = Literal["fp32", "bf16", "int8"]
ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")


class Speed(SplitEvaluator):
    """Measures `speed/{model}/parameters` (millions), `size` (MB of float32) and `ms/{size}/{form}`, milliseconds an
    example at a batch size.

    A time is the median over repetitions, after a warm-up, of a forward pass in evaluation mode on examples of the
    split, by the clock on the wall: other work on the machine counts. bf16 is autocast; int8 quantises the weights of
    linear layers and, at each call, their inputs (dynamic quantisation), on a CPU alone.

    Args:
        models: Roles of the networks, such as student and teacher; those that the method lacks are left out.
        sizes: Batch sizes.
        forms: Arithmetic: fp32, bf16, int8.
        repeats: Timed passes.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.
    """

    tasks = None

    def __init__(
        self,
        models: Sequence[str],
        sizes: Sequence[PositiveInt],
        forms: Sequence[Form],
        repeats: PositiveInt,
        **own: Unpack[OfSplit],
    ):
        super().__init__(**own)
        self.models, self.sizes, self.forms, self.repeats = models, sizes, forms, repeats
        if not sizes or not forms:
            raise UserError("speed needs at least one batch size and one form")
        self.described = [metric for role in models for metric in _metrics(role, sizes, forms)]

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        found: dict[str, float] = {}
        examples = {size: self._examples(size) for size in self.sizes}
        for role in self.models:
            if role not in models:
                continue
            net = network(models, role)
            parameters = list(net.parameters())
            found[f"speed/{role}/parameters"] = sum(p.numel() for p in parameters) / 1e6
            found[f"speed/{role}/size"] = sum(4 * p.numel() for p in parameters) / 1e6
            for form in self.forms:
                with _in_form(net, form, self._device) as call:
                    for size in self.sizes if call is not None else ():
                        assert call is not None
                        seconds = median_seconds(lambda x=examples[size], f=call: f(x), self.repeats, self._device)
                        found[f"speed/{role}/ms/{size}/{form}"] = 1000 * seconds / size
        return found

    def _examples(self, size: int) -> Tree:
        """Inputs of the first examples, padded to their own longest; repeated if the split's batches have fewer."""
        first: Batch = next(iter(on_device(self.loader, self._device)))
        return _trimmed(take(first.inputs, torch.arange(size, device=self._device) % len(first)))


def _metrics(role: str, sizes: Sequence[int], forms: Sequence[str]) -> Iterator[Metric]:
    """The metrics of a network; the times of the teacher are named so."""
    whose = "" if role == "student" else f"{role}'s "
    yield Metric(name=f"speed/{role}/parameters", label=f"{whose}parameters", unit="M", digits=1, better="lower")
    yield Metric(name=f"speed/{role}/size", label=f"{whose}size", unit="MB", digits=1, better="lower")
    for size in sizes:
        for form in forms:
            label = f"{whose}time an example, batch {size}, {form}"
            yield Metric(name=f"speed/{role}/ms/{size}/{form}", label=label, unit="ms", digits=2, better="lower")


def _trimmed(inputs: Tree) -> Tree:
    """Token inputs without columns that are padding in all rows; other inputs as they are."""
    if not isinstance(inputs, Mapping) or "attention_mask" not in inputs:
        return inputs
    mask = inputs["attention_mask"]
    assert isinstance(mask, torch.Tensor)
    longest = int(mask.sum(1).max())
    return {name: take_columns(x, longest) for name, x in inputs.items()}


def take_columns(x: Tree, count: int) -> Tree:
    """The first columns of a tensor [B, L]."""
    assert isinstance(x, torch.Tensor)
    return x[:, :count].contiguous()


@contextmanager
def _in_form(net: nn.Module, form: Form, device: torch.device) -> Iterator[Callable[[Tree], object] | None]:
    """A network as a function in an arithmetic; None where the device has none of it."""
    if form == "fp32":
        with torch.autocast(device.type, enabled=False):
            yield net
    elif form == "bf16":
        # a frozen teacher switches autocast off for itself
        inside = _unfrozen(net)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield inside
    elif device.type != "cpu" or not (
        engines := [e for e in ENGINES if e in torch.backends.quantized.supported_engines]
    ):
        yield None
    else:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engines[0]
        try:
            yield _dynamic(_unfrozen(net))
        finally:
            torch.backends.quantized.engine = before


def _unfrozen(net: nn.Module) -> nn.Module:
    """The network inside a teacher's wrappers."""
    while holder_of(net, "through_inputs") is not None or not hasattr(net, "head"):
        inner = getattr(net, "net", None)
        if not isinstance(inner, nn.Module):
            return net
        net = inner
    return net


def _dynamic(net: nn.Module) -> nn.Module:
    """A copy whose linear layers have int8 weights."""
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notice that another library takes over
        return quantize_dynamic(copy.deepcopy(net).eval(), {nn.Linear}, dtype=torch.qint8)


def median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median time of a call after two calls that warm up, in seconds."""
    times = []
    for i in range(repeats + 2):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        if i >= 2:
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
