"""Running means of a run's terms, read from the device only when they are needed."""

from typing import Any

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.distributed import all_reduce_sum, weight, world_size
from kdx.core.errors import UserError
from kdx.core.outputs import Step
from kdx.core.task import Task

# sums over examples, which add up over steps and processes: so a short last batch weighs what it holds
SUM, OF = "sum/", "of/"


class NonFiniteError(UserError):
    """A term stopped being a number."""


class Meter:
    """Gathers each step's terms; one transfer per reading, not per step.

    Args:
        task: Says which metric is measured on training batches.

    A term that is not finite raises `NonFiniteError` at the next reading, with the very step.
    """

    def __init__(self, task: Task):
        self.task = task
        self._names: list[str] = []
        self._pending: list[Tensor] = []  # a row per step, on the device
        self._read = torch.empty(0, 0, dtype=torch.float64)  # rows that were checked
        self._first = 0  # step number of the first row gathered

    def add(self, step: int, result: Step, batch: Batch) -> None:
        """Take in the step number `step`, counted from 0."""
        values = {f"terms/{k}": v for k, v in result.terms.items()} | dict(result.report)
        if result.outputs is not None:
            for name, (numerator, denominator) in self.task.training_metric(result.outputs, batch).items():
                values |= {SUM + name: numerator, OF + name: denominator}
        if not self._names:
            self._names, self._first = list(values), step
            self._read = torch.empty(0, len(values), dtype=torch.float64)
        device, own = batch.device, weight(len(batch), batch.whole)
        row = [_there(v.detach(), device) for v in values.values()]
        if own != 1:
            row = [v if _adds_up(name) else v * own for name, v in zip(values, row, strict=True)]
        self._pending.append(torch.stack(row))

    def check(self) -> None:
        """Raise where a term of the steps gathered is not finite."""
        if not self._pending:
            return
        rows = all_reduce_sum(torch.stack(self._pending))
        if world_size() > 1:
            rows = rows / torch.tensor([1 if _adds_up(name) else world_size() for name in self._names]).to(rows)
        self._read = torch.cat([self._read, rows.double().cpu()])
        self._pending = []
        bad = (~self._read.isfinite()).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            name = self._names[column].removeprefix("terms/")
            raise NonFiniteError(
                f"the term '{name}' is {self._read[row, column].item()} at step {self._first + row}; a lower learning "
                "rate, a bound on the gradient norm (update.clip_norm) or a smaller weight may help"
            )

    def read(self) -> dict[str, float]:
        """Means over the steps since the last reading, under `train/`, and start anew.

        A metric of the task is that of all examples that it counts, together; without any there is none.
        """
        self.check()
        if not self._names:
            return {}
        sums, steps = dict(zip(self._names, self._read.sum(0).tolist(), strict=True)), len(self._read)
        self._names = []
        means = {name: value / steps for name, value in sums.items() if not _adds_up(name)}
        counted = [name.removeprefix(OF) for name, value in sums.items() if name.startswith(OF) and value > 0]
        means |= {name: sums[SUM + name] / sums[OF + name] for name in counted}
        return {f"train/{name}": mean for name, mean in means.items()}

    def state_dict(self) -> dict[str, Any]:
        """The sums since the last reading."""
        self.check()
        return {"names": list(self._names), "first": self._first, "rows": self._read.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._names, self._first, self._read = list(state["names"]), state["first"], state["rows"]


def _adds_up(name: str) -> bool:
    return name.startswith((SUM, OF))


def _there(value: Tensor, device: torch.device) -> Tensor:
    """A scalar in float32 on a device; one of the CPU is filled in there, since copying it would wait for a GPU."""
    if value.device == device:
        return value.float()
    return torch.full((), value.item(), device=device) if value.is_cpu else value.to(device, torch.float32)
