"""The gradient of a step, computed before the optimizer uses it.

An update calls a `Gradient`, which fills `.grad` by means of a `Backward`; then the update bounds the norm and steps.
Variance reduction, projected gradients and per-term clipping are subclasses of `Gradient`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.distributed import all_reduce_sum, mean_gradients, weight, world_size
from kdx.core.method import Method
from kdx.core.outputs import Outputs, Step
from kdx.core.schedule import Progress, at
from kdx.core.weigh import weigh

Differentiate = Callable[[Step, float], Tensor]  # of a part's step and its share of the batch; returns the loss


class Backward:
    """Runs a method on a batch and differentiates its terms.

    Handles accumulation, mixed precision and several processes: every gradient it returns or adds is the gradient of
    the whole batch, equal in all processes. Each call runs the method's forward pass once for each part of the batch,
    so batch-norm statistics, memory banks and random streams advance with every call.

    Args:
        method: Computes the terms.
        accumulate: Parts that a batch is split into, to fit in memory.
        autocast: Type for mixed precision; None for float32 throughout.

    Attributes:
        parameters: The method's trainable parameters, in the order in which gradients are listed.
    """

    def __init__(self, method: Method, accumulate: int, autocast: torch.dtype | None):
        self.method, self.accumulate, self.autocast = method, accumulate, autocast
        self.parameters = [p for p in method.parameters() if p.requires_grad]

    def __call__(self, batch: Batch, progress: Progress) -> Step:
        """Add the gradient of the weighted sum of the terms to `.grad`.

        Returns:
            The step over this process's share of the batch, detached, with the weighted sum as "loss" in its report.
        """

        def differentiate(step: Step, share: float) -> Tensor:
            loss = weigh(step.terms, self.method.weights, progress)
            (loss if share == 1 else loss * share).backward()
            return loss

        step = self._over_parts(batch, progress, differentiate)
        mean_gradients(self.parameters)
        return step

    def gradient(self, batch: Batch, progress: Progress) -> tuple[Step, list[Tensor]]:
        """Gradient of the weighted sum of the terms; `.grad` stays as it is.

        Returns:
            The step as from a call, and a tensor for each of `parameters`, zeros where the sum does not depend on it.
        """
        before = [p.grad for p in self.parameters]
        try:
            self._set(None for _ in before)
            step = self(batch, progress)
            return step, [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        finally:
            self._set(before)

    def term_gradients(self, batch: Batch, progress: Progress) -> tuple[Step, dict[str, list[Tensor]]]:
        """Gradient of each term times its weight, from one forward pass; `.grad` stays as it is.

        The gradients of all terms add up to `gradient`. Memory: one set of gradients for each term.

        Returns:
            The step as from a call, and by term a tensor for each of `parameters`, zeros where the term does not depend
            on it.
        """
        found: dict[str, list[Tensor]] = {}

        def differentiate(step: Step, share: float) -> Tensor:
            loss = weigh(step.terms, self.method.weights, progress)  # raises where a name is missing on one side
            with_graph = [name for name, term in step.terms.items() if term.requires_grad]
            for name in step.terms:
                grads = [torch.zeros_like(p) for p in self.parameters]
                if name in with_graph:
                    weighted = at(self.method.weights[name], progress) * step.terms[name] * share
                    # the terms share a graph; the last one frees it, since the step's outputs would keep it
                    kept = name != with_graph[-1]
                    grads = torch.autograd.grad(
                        weighted, self.parameters, retain_graph=kept, allow_unused=True, materialize_grads=True
                    )
                found[name] = [a + b for a, b in zip(found[name], grads, strict=True)] if name in found else list(grads)
            return loss

        step = self._over_parts(batch, progress, differentiate)
        return step, {name: self._mean(grads) for name, grads in found.items()}

    @contextmanager
    def at(self, values: Sequence[Tensor]) -> Iterator[None]:
        """Give the parameters other values within the block.

        The parameters, and buffers that passes within the block change, such as batch-norm statistics, are restored at
        its end.

        Args:
            values: A tensor for each of `parameters`.
        """
        frozen = self.method.frozen
        buffers = [b for name, b in self.method.named_buffers() if name.split(".", 1)[0] not in frozen]
        kept, ours = [b.clone() for b in buffers], [p.data for p in self.parameters]
        try:
            for p, value in zip(self.parameters, values, strict=True):
                p.data = value.to(p.device)
            yield
        finally:
            for p, value in zip(self.parameters, ours, strict=True):
                p.data = value
            with torch.no_grad():
                for buffer, value in zip(buffers, kept, strict=True):
                    buffer.copy_(value)

    def _set(self, gradients: Sequence[Tensor | None] | Iterator[None]) -> None:
        for p, gradient in zip(self.parameters, gradients, strict=True):
            p.grad = gradient

    def _mean(self, gradients: list[Tensor]) -> list[Tensor]:
        if world_size() == 1:
            return gradients
        flat = all_reduce_sum(torch.cat([g.flatten() for g in gradients])) / world_size()
        parts = flat.split([g.numel() for g in gradients])
        return [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]

    def _rows(self, batch: Batch) -> dict[str, Tensor]:
        return {name: rows.float() for name, rows in self.method.counted_rows(batch).items()}

    def _over_parts(self, batch: Batch, progress: Progress, differentiate: Differentiate) -> Step:
        # the same number in each process, since synchronised batch norms communicate in every part
        count = min(self.accumulate, batch.total // world_size())
        parts = batch.chunk(count) if count > 1 else [batch]
        steps, own = [], weight(len(batch), batch.whole)
        divided = count > 1 or world_size() > 1
        rows = {n: all_reduce_sum(r) for n, r in self._rows(batch).items()} if divided else {}
        for part in parts:
            with torch.autocast(part.device.type, self.autocast, enabled=self.autocast is not None):
                step = self.method(part, progress)
            if rows:
                step = _by_rows(step, self._rows(part), rows, len(part) / batch.total)
            loss = differentiate(step, own * len(part) / len(batch))
            terms = {name: term.detach() for name, term in step.terms.items()}
            steps.append(Step(terms, {"loss": loss.detach(), **step.report}, step.outputs))
        return steps[0] if len(steps) == 1 else _merge(steps, [len(p) / len(batch) for p in parts])


class Gradient:
    """Computes the gradient of a step; base class.

    The config names a subclass: `+update.gradient._target_=my_module.MyGradient`. Further keys of the node are the
    arguments of its constructor.

    Attributes:
        recordable: Whether a CUDA graph can replay a call: it reads and writes the same tensors each time, and no
            Python value that changes.

    Example:
        The teacher's gradient counts only where its sign is that of the labels' gradient.

        >>> class SameSign(Gradient):
        ...     def __call__(self, backward, batch, progress):
        ...         step, gradients = backward.term_gradients(batch, progress)
        ...         for p, ce, kd in zip(backward.parameters, gradients["ce"], gradients["kd"], strict=True):
        ...             p.grad = ce + kd * (ce * kd > 0)
        ...         return step
    """

    recordable: ClassVar[bool] = False

    def __call__(self, backward: Backward, batch: Batch, progress: Progress) -> Step:
        """Compute the gradient of a batch.

        Args:
            backward: Differentiates the method's terms; holds the method and its trainable parameters.
            batch: This process's share of the batch.
            progress: Of the run.

        Returns:
            The step that `backward` returned; its report may have further scalars. On return each parameter's `.grad`,
            None before, is the gradient that the optimizer uses, equal in all processes.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run: tensors and plain values; empty by default."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`; its tensors are on the CPU."""


class WeightedSum(Gradient):
    """The gradient of the weighted sum of the terms."""

    recordable = True

    def __call__(self, backward: Backward, batch: Batch, progress: Progress) -> Step:
        return backward(batch, progress)


def _by_rows(step: Step, own: Mapping[str, Tensor], every: Mapping[str, Tensor], share: float) -> Step:
    """A part's step, whose terms over rows count by the part's share of the rows instead of the examples.

    Args:
        step: Of a part of the batch.
        own: Number of rows of the part, by term.
        every: Number of rows of the whole batch, by term.
        share: The part's share of the examples.
    """

    def scaled(name: str) -> Tensor:
        term = step.terms[name]
        return term * (own[name].to(term) / every[name].to(term).clamp(min=1) / share)

    return replace(step, terms={**step.terms, **{name: scaled(name) for name in every}})


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
