"""The level at which the training loss stays under a constant learning rate."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.ranges import NonNegative, PositiveInt
from kdx.evals.base import OfSplit, SplitEvaluator, network

ITERATIONS = 2000  # of L-BFGS, at most


class Floor(SplitEvaluator):
    """Measures `{split}/objective` and `{split}/floor`, its mean over the last evaluations minus the optimum.

    The objective is the cross-entropy with the labels plus an L2 penalty. `{split}/teacher_floor` is the teacher's
    objective minus the optimum, where the method has a teacher.

    Choose `split: train` with `dataset.train_subset` at least the size of the training set, and `every: 1`.

    Args:
        average: Number of last evaluations in the mean.
        l2: Coefficient of half the squared weights, biases included.
        optimum: Whether to subtract the optimum, which L-BFGS finds in float64; for linear models alone.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.
    """

    described = (
        Metric(name="objective", label="objective", unit="nats", better="lower"),
        Metric(name="floor", label="floor f - f*", digits=5, better="lower", shown=True),
        Metric(name="teacher_floor", label="teacher's f - f*", digits=5, better="lower"),
    )

    def __init__(self, average: PositiveInt, l2: NonNegative, optimum: bool, **own: Unpack[OfSplit]):
        super().__init__(**own)
        self.average, self.l2, self.optimum = average, l2, optimum
        self.last: list[float] = []
        self.least: float | None = None

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student = network(models, "student")
        if self.least is None:
            self.least = self._least(student) if self.optimum else 0.0
        value = self._objective(student)
        self.last = [*self.last, value][-self.average :]
        floor = sum(self.last) / len(self.last) - self.least
        found = {f"{self.split}/objective": value, f"{self.split}/floor": floor}
        if "teacher" in models:
            found[f"{self.split}/teacher_floor"] = self._objective(models["teacher"]) - self.least
        return found

    def _objective(self, net: nn.Module) -> float:
        total = count = 0.0
        for batch in self.batches():
            rows = net(batch.inputs).logits.double()
            total += float(F.cross_entropy(rows, batch.labels, reduction="sum"))
            count += len(batch)
        return total / count + self.l2 / 2 * sum(float(p.double().square().sum()) for p in net.parameters())

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last = list(state["last"])

    def _least(self, student: nn.Module) -> float:
        """The optimum of the objective, from weights of 0."""
        parameters = dict(student.named_parameters())
        if len([name for name in parameters if name.endswith("weight")]) != 1:
            raise UserError("evals.floor.optimum=true needs a linear model, whose objective is convex (student=linear)")
        from scipy.optimize import minimize  # takes a second

        net = deepcopy(student).double().requires_grad_(True)
        batches = [(batch.input_tensor.double(), batch.labels) for batch in self.batches()]
        count = sum(len(labels) for _, labels in batches)

        def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
            vector_to_parameters(torch.from_numpy(flat).to(self._device), net.parameters())
            net.zero_grad()
            with torch.enable_grad():
                total = self.l2 / 2 * torch.stack([p.square().sum() for p in net.parameters()]).sum()
                for inputs, labels in batches:
                    total = total + F.cross_entropy(net(inputs).logits, labels, reduction="sum") / count
                total.backward()
            slopes = [p.grad for p in net.parameters() if p.grad is not None]
            return float(total), parameters_to_vector(slopes).cpu().numpy()

        start = np.zeros(sum(p.numel() for p in net.parameters()))
        options = {"maxiter": ITERATIONS, "maxcor": 30, "ftol": 0.0, "gtol": 1e-9}
        return float(minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options=options).fun)
