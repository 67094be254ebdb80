"""The update with one optimizer: gradient, bound on its norm, step."""

from typing import Any

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.outputs import Step
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule
from kdx.engine.optim.gradient import Backward, Gradient, WeightedSum
from kdx.engine.optim.groups import Rates, mark_parameters
from kdx.engine.optim.optimizer import Optimizer


class Joint:
    """One optimizer for all trainable parameters of the method.

    Args:
        method: Computes the terms.
        optimizer: Settings of the optimizer, with its base learning rate.
        lr_schedule: Factor on the base learning rate.
        autocast: Type for mixed precision; None for float32 throughout.
        clip_norm: Bound on the global gradient norm; None for no bound.
        accumulate: Parts that a batch is split into, to fit in memory. The order of the data does not change. For terms
            that are means over examples the step is that of the whole batch.
        gradient: Computes the gradient; None for the gradient of the weighted sum of the terms.

    Raises:
        UserError: The method's parties optimize opposing terms, which have no joint gradient.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        lr_schedule: Schedule,
        autocast: torch.dtype | None,
        clip_norm: Positive | None,
        accumulate: PositiveInt,
        gradient: Gradient | None,
    ):
        if method.needs_turns:
            raise UserError(
                f"the parties of {type(method).__name__} optimize opposing terms, so one optimizer cannot train them "
                "jointly; choose update=turns"
            )
        self.lr_schedule, self.clip_norm = lr_schedule, clip_norm
        self.backward, self.gradient = Backward(method, accumulate, autocast), gradient or WeightedSum()
        self.parameters = self.backward.parameters
        mark_parameters(method, optimizer.needs_layers)
        self.optimizer = optimizer.build(method.named_parameters())
        self.rates = Rates(self.optimizer)

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        self.prepare(progress)
        return self.take(batch, progress)

    def prepare(self, progress: Progress) -> None:
        """Set the learning rates, the only values that change from outside between two steps."""
        self.rates.set(self.lr_schedule(progress))

    def take(self, batch: Batch, progress: Progress) -> Step:
        """Take the step at the learning rate that `prepare` set."""
        self.optimizer.zero_grad(set_to_none=True)
        step = self.gradient(self.backward, batch, progress)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return step

    @property
    def lr(self) -> float:
        """Learning rate of the last step, the highest one of a parameter group."""
        return self.rates.highest

    def state_dict(self) -> dict[str, Any]:
        state, own = self.optimizer.state_dict(), self.gradient.state_dict()
        return {**state, "gradient": own} if own else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
        if "gradient" in state:
            self.gradient.load_state_dict(state["gradient"])
