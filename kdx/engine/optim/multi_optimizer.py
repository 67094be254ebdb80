"""Steps of methods with several parties, each with an optimiser and a bound on its gradient of its own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdx.core.distributed import mean_gradients, weight
from kdx.core.errors import UserError, did_you_mean
from kdx.core.method import Method
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule
from kdx.core.types import Batch, Step
from kdx.core.weigh import weigh
from kdx.engine.optim.optimizer import Optimizer
from kdx.engine.optim.update import backward


class Parties:
    """An optimiser for each party of a method.

    Args:
        method: What has the parties.
        optimizer: Which optimiser, with its base rate, for parties without one of their own.
        optimizers: Optimisers of single parties, by the party's name.
        lr_schedule: Factor on all base rates.
        clip_norm: Bound on the gradient norm of each party; None for no bound.

    Raises:
        UserError: The method has no parties, or not the one that an optimiser is given for.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        optimizers: Mapping[str, Optimizer],
        lr_schedule: Schedule,
        clip_norm: float | None,
    ):
        owned = method.parties()
        if not owned:
            raise UserError(
                f"the parameters of this {type(method).__name__} learn together, so that one optimiser must take its "
                "steps; choose update=joint"
            )
        for name in optimizers:
            if name not in owned:
                raise UserError(f"update.optimizers: there is no party '{name}'{did_you_mean(name, owned)}")
        names = {id(p): name for name, p in method.named_parameters() if p.requires_grad}
        self.parameters = {
            party: [p for module in modules for p in module.parameters() if p.requires_grad]
            for party, modules in owned.items()
        }
        claimed = [id(p) for parameters in self.parameters.values() for p in parameters]
        assert sorted(claimed) == sorted(names), "parties must hold every trainable parameter once"
        self.lr_schedule, self.clip_norm = lr_schedule, clip_norm
        chosen = {**dict.fromkeys(owned, optimizer), **optimizers}
        self.base_lr = {party: own.lr for party, own in chosen.items()}
        self.optimizers = {
            party: own.build((names[id(p)], p) for p in self.parameters[party]) for party, own in chosen.items()
        }

    def prepare(self, progress: Progress) -> None:
        """Set the rates, and forget the gradients of the step before."""
        factor = self.lr_schedule(progress)
        for party, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.base_lr[party] * factor
            optimizer.zero_grad(set_to_none=True)

    def step(self, party: str) -> None:
        """Move the parameters of a party along their gradients, of which each process has its share."""
        mean_gradients(self.parameters[party])
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters[party], self.clip_norm)
        self.optimizers[party].step()

    @property
    def lr(self) -> float:
        """Learning rate of the party that owns the student, at the last step."""
        return float(self.optimizers["student"].param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        return {party: optimizer.state_dict() for party, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for party, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[party])


class Peers(Parties):
    """All parties step at once, each by its own optimiser, on the weighted sum of the terms.

    Args:
        method, optimizer, optimizers, lr_schedule, clip_norm: As in `Parties`.
        accumulate, autocast: As in `Joint`.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        optimizers: Mapping[str, Optimizer],
        lr_schedule: Schedule,
        autocast: torch.dtype | None,
        clip_norm: Positive | None,
        accumulate: PositiveInt,
    ):
        if method.needs_turns:
            raise UserError(
                f"the parts of {type(method).__name__} work against each other and cannot step at once; "
                "choose update=turns"
            )
        super().__init__(method, optimizer, optimizers, lr_schedule, clip_norm)
        self.method, self.accumulate, self.autocast = method, accumulate, autocast

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        self.prepare(progress)
        step = backward(self.method, batch, progress, self.accumulate, self.autocast)
        for party in self.optimizers:
            self.step(party)
        return step


class Turns(Parties):
    """The parties step one after the other, each on the terms of its turn and with what the ones before it became.

    Args:
        method, optimizer, optimizers, lr_schedule, clip_norm: As in `Parties`.
        autocast: Type to run the networks in, or None for float32 throughout.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        optimizers: Mapping[str, Optimizer],
        lr_schedule: Schedule,
        autocast: torch.dtype | None,
        clip_norm: Positive | None,
    ):
        super().__init__(method, optimizer, optimizers, lr_schedule, clip_norm)
        self.method, self.autocast = method, autocast

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        self.prepare(progress)
        turns = self.method.turns(batch, progress)
        terms: dict[str, Tensor] = {}
        report: dict[str, Tensor] = {}
        outputs, losses = None, []
        while True:
            # the method runs up to its next turn
            with torch.autocast(batch.device.type, self.autocast, enabled=self.autocast is not None):
                turn = next(turns, None)
            if turn is None:
                break
            step = turn.step
            loss = weigh(step.terms, {n: w for n, w in self.method.weights.items() if n in step.terms}, progress)
            own = weight(len(batch), batch.whole)
            (loss if own == 1 else loss * own).backward(inputs=self.parameters[turn.party])
            self.step(turn.party)
            for name, term in step.terms.items():
                terms[name] = terms[name] + term.detach() if name in terms else term.detach()
            report |= step.report
            outputs = step.outputs if step.outputs is not None else outputs
            losses.append(loss.detach())
        assert terms.keys() == self.method.weights.keys(), "the turns must use every weight"
        return Step(terms, {"loss": torch.stack(losses).sum(), **report}, outputs)
