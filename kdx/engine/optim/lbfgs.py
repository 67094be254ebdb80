"""An update for convex problems: L-BFGS with a line search on each batch."""

from typing import Any

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.method import Method
from kdx.core.outputs import Step
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress, Schedule
from kdx.engine.optim.fast_optim import unwrapped
from kdx.engine.optim.gradient import Backward
from kdx.engine.optim.optimizer import Optimizer


class LBFGS:
    """Iterations of L-BFGS on each batch, with a line search that satisfies the strong Wolfe conditions.

    For a whole data set as one batch (`trainer.batch_size` at least its size) and a convex loss, such as that of a
    linear model, it finds the optimum. The loss is the method's, plus half of `optimizer.weight_decay` times the
    squared weights that decay; rate, schedule and everything else of the optimizer have no effect.

    Args:
        method: Computes the terms.
        optimizer: Its weight decay is a part of the loss.
        lr_schedule: Unused; the line search chooses the step.
        autocast: Type for mixed precision; None for float32 throughout.
        iterations: Maximum number of iterations on a batch.
        history: Pairs of differences that the approximation keeps.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        lr_schedule: Schedule,
        autocast: torch.dtype | None,
        iterations: PositiveInt,
        history: PositiveInt,
    ):
        self.backward = Backward(method, 1, autocast)
        self.parameters = self.backward.parameters
        self._decays = [
            (p, group["weight_decay"]) for group in optimizer.groups(method.named_parameters()) for p in group["params"]
        ]
        self.optimizer = unwrapped(torch.optim.LBFGS)(
            self.parameters,
            max_iter=iterations,
            history_size=history,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        steps: list[Step] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            steps.append(self.backward(batch, progress))
            penalty = torch.zeros_like(steps[-1].report["loss"])
            for p, decay in self._decays:
                if decay and p.grad is not None:
                    penalty = penalty + decay / 2 * p.detach().square().sum()
                    p.grad.add_(p.detach(), alpha=decay)
            return steps[-1].report["loss"] + penalty

        self.optimizer.step(closure)
        return steps[0]

    @property
    def lr(self) -> float:
        """The first trial step of the line search."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
