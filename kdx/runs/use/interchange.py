"""The student of a finished run as files for other programs, checked by value after they are written."""

import contextlib
import io
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError, reason, shown
from kdx.core.pretrained import TOKENIZER
from kdx.core.seed import seeded
from kdx.core.spec import Images, Scenes, Tokens
from kdx.core.task import BOXES
from kdx.models.answers import find_logits
from kdx.models.tap import Tapped
from kdx.models.weights import load_weights
from kdx.runs.build import start_student
from kdx.runs.results import write_json
from kdx.runs.use.about import ABOUT, about, tokenizer_of
from kdx.runs.use.stored import Stored

FILES = {"onnx": "model.onnx", "torchscript": "model.pt", "weights": "model.safetensors"}
TOLERANCE = 1e-3  # of the largest logit, as for the export of a run
OPSET = 18
LENGTH = 9  # tokens of the example that is traced

Tensors = tuple[Tensor, ...]


class Logits(nn.Module):
    """A network as a function of tensors, [B, ...] each, to its logits.

    Args:
        net: The network.
        names: Names of the tensors in the mapping that the network reads; empty for a network of one tensor.
    """

    def __init__(self, net: nn.Module, names: Sequence[str]):
        super().__init__()
        # a wrapper that captures features would capture those of the trace
        self.net, self.output = (net.net, net.output) if isinstance(net, Tapped) else (net, None)
        self.names, self.plain = tuple(names), isinstance(net, Tapped)

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True)) if self.names else tensors[0]
        found = self.net(given)
        return find_logits(found, self.output, type(self.net).__name__) if self.plain else found.logits


@dataclass(frozen=True)
class Signature:
    """Inputs of an exported network.

    Attributes:
        names: Name of each tensor.
        mapped: Whether the network reads them as a mapping.
        axes: For each tensor, the axes of any size by number.
        example: Made-up inputs of a batch size, and for texts of a number of tokens.
    """

    names: tuple[str, ...]
    mapped: bool
    axes: tuple[Mapping[int, str], ...]
    example: Callable[[int, int], Tensors]


def write_network(run: Stored, folder: Path, form: str) -> tuple[list[Path], float]:
    """Write a network and what is needed to use it.

    Args:
        run: The run.
        folder: Folder for the files; files of the same names are replaced.
        form: "onnx", "torchscript" or "weights".

    Returns:
        The files, and the largest difference of the written network's logits, as a share of the largest logit.

    Raises:
        UserError: A library is missing, the network cannot be written in this form, or what was written differs.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(str(folder), 150)} is a file; name a folder")
    if form == "onnx" and (lacks := [n for n in ("onnx", "onnxscript", "onnxruntime") if find_spec(n) is None]):
        raise UserError(f"the form onnx needs {lacks[0]}, which is not installed: pip install 'kdx[onnx]'")
    if run.task.kind == BOXES or isinstance(run.dataset.inputs, Scenes):
        raise UserError(f"kdx export writes networks that give logits; the weights of a detector are {run.weights}")
    folder.mkdir(parents=True, exist_ok=True)
    facts = about(run, FILES[form])
    made = signature(run)
    file, fresh = folder / FILES[form], folder / f"{FILES[form]}.part"
    net = Logits(run.net.cpu(), made.names if made.mapped else ()).eval()
    try:
        load = {"onnx": _onnx, "torchscript": _torchscript, "weights": _weights}[form](run, net, made, fresh)
        difference = _difference(net, load, made, form)
        os.replace(fresh, file)
    finally:
        fresh.unlink(missing_ok=True)
    files = [file]
    if isinstance(run.dataset.inputs, Tokens):
        shutil.copyfile(tokenizer_of(run), folder / TOKENIZER)
        files.append(folder / TOKENIZER)
    write_json(folder / ABOUT, facts)
    return [*files, folder / ABOUT], difference


def signature(run: Stored) -> Signature:
    """Inputs of the exported network of a run."""
    inputs = run.dataset.inputs
    if not isinstance(inputs, Tokens):
        name = "images" if isinstance(inputs, Images) else "inputs"
        return Signature((name,), False, ({0: "batch"},), lambda size, length: (torch.randn(size, *inputs.shape),))
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if inputs.pairs else ()))
    axes = {0: "batch", 1: "length"}

    def example(size: int, length: int) -> Tensors:
        length = min(length, inputs.length)
        ids = torch.randint(inputs.vocab_size, (size, length))
        mask = torch.ones_like(ids)
        mask[-1, -(length // 3) :] = 0 if size > 1 else 1  # one text is shorter
        types = (torch.arange(length) > length // 2).long().expand(size, -1)
        return (ids.where(mask == 1, inputs.pad_id), mask, *((types * mask,) if inputs.pairs else ()))

    return Signature(names, True, (axes,) * len(names), example)


def _onnx(run: Stored, net: Logits, made: Signature, file: Path) -> Callable[..., Tensor]:
    most = run.dataset.inputs.length if isinstance(run.dataset.inputs, Tokens) else None
    bounds = {"batch": torch.export.Dim("batch"), "length": torch.export.Dim("length", max=most)}
    shapes = tuple({axis: bounds[name] for axis, name in axes.items()} for axes in made.axes)
    with _quiet():
        try:
            with seeded(0, "onnx"):
                program = torch.onnx.export(
                    net,
                    made.example(2, LENGTH),
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=list(made.names),
                    output_names=["logits"],
                    dynamic_shapes=(shapes,),
                    verbose=False,
                )
            assert program is not None
            program.save(str(file))
        except Exception as error:  # the exporter raises many types
            raise UserError(f"the network cannot be written as onnx: {reason(error)[:180]}") from error
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def load(*tensors: Tensor) -> Tensor:
        given: dict[str, Any] = {name: t.numpy() for name, t in zip(made.names, tensors, strict=True)}
        return torch.from_numpy(session.run(["logits"], given)[0])

    return load


def _torchscript(run: Stored, net: Logits, made: Signature, file: Path) -> Callable[..., Tensor]:
    with _quiet():
        try:
            with seeded(0, "torchscript"), torch.no_grad():
                torch.jit.save(torch.jit.trace(net, made.example(2, LENGTH), check_trace=False), str(file))
            return torch.jit.load(str(file), map_location="cpu")
        except Exception as error:  # the tracer raises many types
            raise UserError(f"the network cannot be written as torchscript: {reason(error)[:180]}") from error


def _weights(run: Stored, net: Logits, made: Signature, file: Path) -> Callable[..., Tensor]:
    shutil.copyfile(run.weights, file)
    fresh = start_student(run.config, None)
    load_weights(fresh, file)
    return Logits(fresh, net.names).eval()


@torch.no_grad()
def _difference(net: Logits, load: Callable[..., Tensor], made: Signature, form: str) -> float:
    """Largest difference of logits over batches of other sizes than the traced one, as a share of the largest."""
    worst = 0.0
    for size, length in ((1, 5), (3, 12), (2, LENGTH)):
        with seeded(size, "check of an export"):
            given = made.example(size, length)
        try:
            ours, theirs = net(*given), load(*given)
        except Exception as error:
            raise UserError(
                f"{form} holds the network for one size of batches alone ({reason(error)[:120]}); choose another form"
            ) from error
        scale = max(float(ours.abs().max()), 1e-6)
        far = float((ours - theirs).abs().max()) / scale if ours.shape == theirs.shape else float("nan")
        if not far <= TOLERANCE:
            why = f"its logits differ from the student's by {far:.1e} of the largest"
            raise UserError(f"{form} does not hold this network: {why}; choose another form")
        worst = max(worst, far)
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress and warnings, within the block."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
