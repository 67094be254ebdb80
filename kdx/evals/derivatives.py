"""Distance of the student's outputs and Jacobians to the teacher's."""

from collections.abc import Mapping

import torch
from torch import nn

from kdx.core.metric import Metric
from kdx.core.task import CLASSES, VALUES
from kdx.evals.base import SplitEvaluator, differentiable, network
from kdx.models.derivatives import jacobian


class Derivatives(SplitEvaluator):
    """Measures `derivatives/{split}/rmse` and `jacobian_rmse` between student and teacher.

    Both are root mean squares over the examples: of the Euclidean distance of the outputs, and of the Frobenius
    distance of the Jacobians, in units of the normalised inputs. Each output takes a backward pass, so this evaluator
    is for small networks.

    Args:
        loaders, device, task, split, every: As in `SplitEvaluator`.

    References:
        Czarnecki, Osindero, Jaderberg, Swirszcz, Pascanu, "Sobolev Training for Neural Networks", 2017.
        https://arxiv.org/abs/1706.04859
    """

    tasks = frozenset({CLASSES, VALUES})
    needs_teacher = True
    reads_one_tensor = True
    described = (
        Metric(name="derivatives/*/rmse", label="RMSE of the output", digits=2, better="lower", shown=True),
        Metric(name="derivatives/*/jacobian_rmse", label="RMSE of the slope", digits=2, better="lower", shown=True),
    )

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, teacher = network(models, "student"), network(models, "teacher")
        totals, count = torch.zeros(2, dtype=torch.float64), 0
        with torch.enable_grad(), differentiable(teacher):
            for batch in self.batches():
                inputs = batch.input_tensor.detach().requires_grad_()
                mine, theirs = (net(inputs).float().logits for net in (student, teacher))
                gaps = jacobian(mine, inputs, False) - jacobian(theirs, inputs, False)
                squares = ((mine - theirs).detach().double().square().sum(), gaps.double().square().sum())
                totals += torch.stack([square.cpu() for square in squares])
                count += len(batch)
        values, slopes = (totals / count).sqrt().tolist()
        return {f"derivatives/{self.split}/rmse": values, f"derivatives/{self.split}/jacobian_rmse": slopes}
