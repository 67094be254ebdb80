"""How a step is taken."""

from typing import Any

import torch
from torch import Tensor, nn

from kdx.core.distributed import mean_gradients, size, weight
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule
from kdx.core.types import Batch, Outputs, Step
from kdx.core.weigh import weigh
from kdx.engine.optim.optimizer import Optimizer


class Joint:
    """All trainable parameters of the method by one optimiser on the weighted sum of the terms.

    Args:
        method: What computes the terms.
        optimizer: Which optimiser, with its base rate.
        lr_schedule: Factor on the base rate.
        clip_norm: Bound on the global gradient norm; None for no bound.
        accumulate: Parts that a batch is split into, to fit in memory. The data order stays, and for
            terms that treat examples alone the step is that of the whole batch.
        autocast: Type to run the networks in, or None for float32 throughout.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        lr_schedule: Schedule,
        autocast: torch.dtype | None,
        clip_norm: Positive | None,
        accumulate: PositiveInt,
    ):
        if method.needs_turns:
            raise UserError(
                f"the parts of {type(method).__name__} work against each other and cannot take one step jointly; "
                "choose update=turns"
            )
        self.method, self.lr_schedule, self.autocast = method, lr_schedule, autocast
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self.base_lr = optimizer.lr
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.optimizer = optimizer.build(method.named_parameters())

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        self.prepare(progress)
        return self.take(batch, progress)

    def prepare(self, progress: Progress) -> None:
        """Set the rate: all that is written from outside between two steps."""
        for group in self.optimizer.param_groups:
            rate = self.base_lr * self.lr_schedule(progress)
            if isinstance(group["lr"], Tensor):  # which a graph reads where it is
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def take(self, batch: Batch, progress: Progress) -> Step:
        """The step itself, at the rate that was set."""
        self.optimizer.zero_grad(set_to_none=True)
        step = backward(self.method, batch, progress, self.accumulate, self.autocast)
        mean_gradients(self.parameters)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return step

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def backward(method: Method, batch: Batch, progress: Progress, accumulate: int, autocast: torch.dtype | None) -> Step:
    """Add the gradient of the weighted sum of the terms to all parameters.

    Of several processes each adds what its share of the batch weighs, so that their mean is the batch's gradient.

    Args:
        method: What computes the terms.
        batch, progress: What it is given.
        accumulate: Parts that the batch is split into.
        autocast: Type to run the networks in, or None for float32 throughout.

    Returns:
        The step over the whole batch, detached, with the weighted sum as "loss" in its report.
    """
    # as many in each process, since batch norms meet in every one
    count = min(accumulate, batch.total // size())
    parts = batch.chunk(count) if count > 1 else [batch]
    steps, own = [], weight(len(batch), batch.whole)
    for part in parts:
        share = own * len(part) / len(batch)
        with torch.autocast(part.device.type, autocast, enabled=autocast is not None):
            step = method(part, progress)
        loss = weigh(step.terms, method.weights, progress)
        (loss if share == 1 else loss * share).backward()
        terms = {name: term.detach() for name, term in step.terms.items()}
        steps.append(Step(terms, {"loss": loss.detach(), **step.report}, step.outputs))
    return steps[0] if len(steps) == 1 else _merge(steps, [len(p) / len(batch) for p in parts])


def _merge(steps: list[Step], shares: list[float]) -> Step:
    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([v * share for v, share in zip(values, shares, strict=True)]).sum(0)

    first = steps[0]
    outputs = [s.outputs for s in steps if s.outputs is not None]
    return Step(
        {name: mean([s.terms[name] for s in steps]) for name in first.terms},
        {name: mean([s.report[name] for s in steps]) for name in first.report},
        Outputs(torch.cat([o.logits for o in outputs])) if outputs else None,
    )
