"""A student on the test sets of other data sets, such as domains that only its teacher has seen."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.method import Evaluator
from kdx.core.metric import Metric
from kdx.core.ranges import Positive
from kdx.core.spec import DataSpec
from kdx.core.task import ONLY_CLASSES, Task
from kdx.data.dataset import Dataset
from kdx.data.loaders import EvalLoader
from kdx.data.on_device import on_device
from kdx.evals.base import computed, dealt, network
from kdx.metrics.accuracy import TopK
from kdx.metrics.fidelity import ClassFidelity

BATCH = 500  # examples in a batch; memory alone depends on it


class Domains(Evaluator):
    """Measures `domains/{set}/top1` of the student, and `domains/{set}/agreement` with its teacher if it has one.

    Args:
        loaders: Batches of the run's own splits, which are not read.
        device: Device of the networks.
        task: Task of the run.
        sets: Data sets by name. Their test sets are read, whole, normalised by their own mean and std.
        every: Epochs between two evaluations; None evaluates only at the end of the run.

    Raises:
        UserError: A data set has other classes than the run.
    """

    tasks = ONLY_CLASSES
    needs_teacher = False
    described = (
        Metric(name="domains/*/top1", label="top-1", unit="%", digits=2, better="higher"),
        Metric(name="domains/*/agreement", label="agreement", unit="%", digits=2, better="higher"),
    )

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Batch]],
        device: torch.device,
        task: Task,
        sets: Mapping[str, Dataset],
        every: Positive | None,
    ):
        self.every, self._device = every, device
        for name, of in sets.items():
            if of.task != task:
                raise UserError(
                    f"evals: the data set '{name}' has {of.task.num_outputs} {of.task.kind}, the run's own has "
                    f"{task.num_outputs} {task.kind}"
                )
        self._sets, self._loaded = dict(sets), dict[str, EvalLoader]()

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, teacher = network(models, "student"), models.get("teacher")
        nets = [student] if teacher is None else [student, teacher]
        found: dict[str, float] = {}
        for name in self._sets:
            right, follows, seen = TopK((1,)), ClassFidelity(), False
            for batch in on_device(dealt(self._loader(name), *nets), self._device):
                seen = True
                logits = student(batch.inputs).logits
                right.update(logits, batch.labels)
                if teacher is not None:
                    follows.update(logits, teacher(batch.inputs).logits)
            metrics = {"right": right} if teacher is None else {"right": right, "follows": follows}

            def values(right: TopK = right, follows: ClassFidelity = follows) -> dict[str, float]:
                top1 = {"top1": right.compute()["top1"]}
                return top1 if teacher is None else top1 | {"agreement": follows.compute()["agreement"]}

            measured = computed(metrics if seen else {}, values, *nets)
            found |= {f"domains/{name}/{metric}": value for metric, value in measured.items()}
        return found

    def _loader(self, name: str) -> EvalLoader:
        if name not in self._loaded:
            of = self._sets[name]
            test = of.pools()[1]
            self._loaded[name] = EvalLoader(test, DataSpec(of.task, of.inputs, len(test)), BATCH, None, True)
        return self._loaded[name]
