"""Updates with several optimizers: one for each party of a method, with its own bound on the gradient norm."""

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.distributed import mean_gradients, weight
from kdx.core.errors import UserError, did_you_mean
from kdx.core.method import Method
from kdx.core.outputs import Step
from kdx.core.ranges import Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule
from kdx.core.weigh import weigh
from kdx.engine.optim.gradient import Backward, Gradient, WeightedSum
from kdx.engine.optim.groups import Rates, mark_parameters
from kdx.engine.optim.optimizer import Optimizer


class OfParties(TypedDict):
    """The arguments of `Parties`, which its subclasses accept beside their own."""

    method: Method
    optimizer: Optimizer
    optimizers: Mapping[str, Optimizer]
    lr_schedule: Schedule
    clip_norm: Positive | None


class Parties:
    """An optimizer for each party of a method.

    Args:
        method: A method with parties.
        optimizer: Settings of the optimizer, with its base learning rate, for parties that `optimizers` leaves out.
        optimizers: Settings of the optimizers of single parties, by the party's name.
        lr_schedule: Factor on all base learning rates.
        clip_norm: Bound on the gradient norm of each party; None for no bound.

    Raises:
        UserError: The method has no parties, or none of a name in `optimizers`.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        optimizers: Mapping[str, Optimizer],
        lr_schedule: Schedule,
        clip_norm: Positive | None,
    ):
        owned = method.parties()
        if not owned:
            raise UserError(
                f"{type(method).__name__} has no parties with parameters of their own, so one optimizer must train it; "
                "choose update=joint"
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
        mark_parameters(method, any(own.needs_layers for own in chosen.values()))
        self.optimizers = {
            party: own.build((names[id(p)], p) for p in self.parameters[party]) for party, own in chosen.items()
        }
        self.rates = {party: Rates(own) for party, own in self.optimizers.items()}

    def prepare(self, progress: Progress) -> None:
        """Set the learning rates and clear the gradients."""
        factor = self.lr_schedule(progress)
        for party, optimizer in self.optimizers.items():
            self.rates[party].set(factor)
            optimizer.zero_grad(set_to_none=True)

    def step(self, party: str) -> None:
        """Bound a party's gradient and let its optimizer step."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters[party], self.clip_norm)
        self.optimizers[party].step()

    @property
    def lr(self) -> float:
        """The student's learning rate at the last step, the highest one of a parameter group."""
        return self.rates["student"].highest

    def state_dict(self) -> dict[str, Any]:
        return {party: optimizer.state_dict() for party, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for party, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[party])


class Peers(Parties):
    """All parties step at the same time, each with its own optimizer.

    Args:
        autocast, accumulate, gradient: As in `Joint`.
        own: method, optimizer, optimizers, lr_schedule and clip_norm, as in `Parties`.

    Raises:
        UserError: The method's parties optimize opposing terms, or see `Parties`.
    """

    def __init__(
        self,
        autocast: torch.dtype | None,
        accumulate: PositiveInt,
        gradient: Gradient | None,
        **own: Unpack[OfParties],
    ):
        method = own["method"]
        if method.needs_turns:
            raise UserError(
                f"the parties of {type(method).__name__} optimize opposing terms, so they cannot step at the same "
                "time; choose update=turns"
            )
        super().__init__(**own)
        self.backward, self.gradient = Backward(method, accumulate, autocast), gradient or WeightedSum()

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        self.prepare(progress)
        step = self.gradient(self.backward, batch, progress)
        for party in self.optimizers:
            self.step(party)
        return step

    def state_dict(self) -> dict[str, Any]:
        state, own = super().state_dict(), self.gradient.state_dict()
        return {**state, "gradient": own} if own else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if "gradient" in state:
            self.gradient.load_state_dict(state["gradient"])


class Turns(Parties):
    """The parties step one after the other; each turn sees the parameters that the turns before it updated.

    A turn has terms of its own, and the next forward pass follows its step. So a `Gradient`, which computes the
    gradient of a whole step at once, does not apply here.

    Args:
        autocast: Type for mixed precision; None for float32 throughout.
        own: method, optimizer, optimizers, lr_schedule and clip_norm, as in `Parties`.
    """

    def __init__(self, autocast: torch.dtype | None, **own: Unpack[OfParties]):
        super().__init__(**own)
        self.method, self.autocast = own["method"], autocast

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        self.prepare(progress)
        turns = self.method.turns(batch, progress)
        terms: dict[str, Tensor] = {}
        report: dict[str, Tensor] = {}
        outputs, losses = None, []
        while True:
            # the generator runs the method up to its next turn
            with torch.autocast(batch.device.type, self.autocast, enabled=self.autocast is not None):
                turn = next(turns, None)
            if turn is None:
                break
            step = turn.step
            loss = weigh(step.terms, {n: w for n, w in self.method.weights.items() if n in step.terms}, progress)
            own = weight(len(batch), batch.whole)
            (loss if own == 1 else loss * own).backward(inputs=self.parameters[turn.party])
            mean_gradients(self.parameters[turn.party])
            self.step(turn.party)
            for name, term in step.terms.items():
                terms[name] = terms[name] + term.detach() if name in terms else term.detach()
            report |= step.report
            outputs = step.outputs if step.outputs is not None else outputs
            losses.append(loss.detach())
        assert terms.keys() == self.method.weights.keys(), "the turns must use every weight"
        return Step(terms, {"loss": torch.stack(losses).sum(), **report}, outputs)
