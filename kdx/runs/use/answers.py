"""Answers of a trained network in words: a class, the labels that hold, or values."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.errors import DamagedError, UserError, reason
from kdx.core.notice import notice
from kdx.core.outputs import Outputs
from kdx.core.spec import DataSpec
from kdx.core.task import CLASSES, LABELS
from kdx.data.dataset import WithClasses
from kdx.data.loaders import EvalLoader
from kdx.data.on_device import on_device
from kdx.data.sets import DataError, ExampleSet
from kdx.data.text.dataset import MultiLabelText
from kdx.metrics.multilabel import LabelRanking
from kdx.models.weights import sha256
from kdx.runs.results import write_json
from kdx.runs.use.stored import Stored

THRESHOLDS = "thresholds.json"  # in a run's directory: thresholds chosen on validation, by the weights' checksum
NEVER = 1e9  # the logit of a threshold that no label reaches


def answer_names(run: Stored) -> list[str]:
    """Name of each output of the network; its number, with a notice, if the names are in missing files."""
    dataset, special = run.dataset, run.config.transfer["special_classes"]
    names = [str(i) for i in range(dataset.task.num_outputs)]
    try:
        if isinstance(dataset, WithClasses):
            names = dataset.class_names()
        elif isinstance(dataset, MultiLabelText):
            names = dataset.label_names()
    except (DataError, OSError) as error:
        notice(f"numbers stand for names: {reason(error)}")
    return names if special is None else [*(names[i] for i in special), "rest"]


def outputs(run: Stored, data: ExampleSet, batch_size: int) -> Tensor:
    """Logits of the network, float32 [N, K] on the CPU."""
    return torch.cat([logits for _, logits in _passed(run, data, batch_size)])


@torch.no_grad()
def _passed(run: Stored, data: ExampleSet, batch_size: int) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with the logits of the network."""
    settings, device = run.light.settings, run.light.device
    spec = DataSpec(run.task, run.dataset.inputs, len(data))
    net = run.net.to(device)
    for batch in on_device(EvalLoader(data, spec, batch_size, settings.num_workers, settings.channels_last), device):
        yield batch, net(batch.inputs).logits.float().cpu()


def probabilities(run: Stored, logits: Tensor) -> Tensor:
    """Probabilities of classes or of labels, or values in their own units, float64 [N, K]."""
    if run.task.kind == CLASSES:
        return logits.double().softmax(1)
    if run.task.kind == LABELS:
        return logits.double().sigmoid()
    return run.task.predictions(Outputs(logits))["value"].double()


def table(
    run: Stored, names: Sequence[str], logits: Tensor, limits: Tensor | None
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of answers: a class or the labels that hold, then the probability of each; or values.

    Args:
        run: The run.
        names: Name of each output.
        logits: [N, K].
        limits: For labels, the logit from which on each holds, [K].
    """
    found = probabilities(run, logits)
    cells = [[f"{value:.6g}" for value in row] for row in found.tolist()]
    if run.task.kind == CLASSES:
        broken = found.isnan().any(1).tolist()
        best = ["nan" if nan else names[int(i)] for i, nan in zip(found.argmax(1).tolist(), broken, strict=True)]
        return ["class", *names], [[name, *row] for name, row in zip(best, cells, strict=True)]
    if run.task.kind != LABELS:
        return [f"value {name}" for name in names], cells
    assert limits is not None
    holds = logits.isfinite() & (logits.double() >= limits)
    held = [",".join(names[int(i)] for i in row.nonzero().flatten().tolist()) for row in holds]
    return ["labels", *names], [[labels, *row] for labels, row in zip(held, cells, strict=True)]


def label_limits(run: Stored, batch_size: int) -> Tensor:
    """The logit from which on each label holds, chosen by its F1 on the validation split, float64 [C].

    The run's directory keeps them, so that later calls need no data. Without a validation split they are 0, a
    probability of one half.

    Raises:
        UserError: The validation data is missing.
        DamagedError: The kept file is damaged.
    """
    file, weights, count = run.folder / THRESHOLDS, sha256(run.weights), run.task.num_outputs
    kept = _kept(file, count)
    if kept is not None and kept[0] == weights:
        return kept[1]
    if not run.dataset.has_val:
        notice("no validation split to choose thresholds on: a label holds from a probability of 0.5 on")
        return torch.zeros(count, dtype=torch.float64)
    try:
        _, _, val = run.dataset.pools()
    except DataError as error:
        raise UserError(f"thresholds of labels are chosen on validation data: {reason(error)}") from None
    assert val is not None
    ranking = LabelRanking()
    for batch, logits in _passed(run, val, batch_size):
        ranking.update(logits, batch.target("presence").cpu())
    chosen = ranking.thresholds(per_label=True).clamp(-NEVER, NEVER)
    try:
        write_json(file, {"sha256": weights, "logits": chosen.tolist()})
        where = f"; {file} keeps them"
    except OSError as error:
        where = f"; they are not kept: {reason(error)}"
    notice(f"thresholds of the labels are chosen by F1 on {len(val)} validation examples{where}")
    return chosen


def _kept(file: Path, count: int) -> tuple[str, Tensor] | None:
    """Checksum of the weights, and the thresholds of a file; None without the file."""
    try:
        data = json.loads(file.read_text())
        found = torch.tensor(data["logits"], dtype=torch.float64)
        if found.shape != (count,) or not bool(found.isfinite().all()):
            raise ValueError(f"it needs {count} numbers")
        return str(data["sha256"]), found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{file} is damaged: {reason(error)}; without it, thresholds are chosen again") from None
