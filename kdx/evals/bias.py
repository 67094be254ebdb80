"""Hinton's correction of the biases of classes that were left out of the transfer set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import nn

from kdx.core.ranges import OpenFraction
from kdx.core.task import Task
from kdx.evals.base import OfSplit, SplitEvaluator, network
from kdx.metrics.bias import Margins, fewest_errors, match_prior, some_classes

WHICH = ("before", "match_prior", "test_optimal")


class Bias(SplitEvaluator):
    """Measures the student with and without a common shift of the biases of some classes.

    It measures `bias/{split}/{which}/top1`, `recall` of those classes, `class_errors`, their misclassified examples
    as a share of all examples, and `shift`, the added number. `which` is

    - `before`: no shift;
    - `match_prior`: the shift at which the student's mean probability of the classes on this split equals their prior.
      It uses no labels, so these measurements are valid results;
    - `test_optimal`: the shift with the fewest errors on this split, as in the paper. It is chosen on the examples
      that it is measured on, so these measurements bound the effect of a shift and are not results.

    The exported network keeps the biases of its training.

    Args:
        classes: Classes whose biases are shifted: those without training examples, or the only ones with some.
        prior: Joint share of these classes among all examples; None for the share of as many equally frequent classes.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.

    Raises:
        ValueError: `classes` is empty.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 3.
        https://arxiv.org/abs/1503.02531
    """

    described = tuple(
        replace(metric, name=f"bias/*/{which}/{metric.name}", label=f"{metric.label}{how}")
        for which, how in (
            ("before", ""),
            ("match_prior", ", bias by prior"),
            ("test_optimal", ", bias chosen on test"),
        )
        for metric in Margins.described
    )

    def __init__(self, classes: Sequence[int], prior: OpenFraction | None, **own: Unpack[OfSplit]):
        super().__init__(**own)
        if not classes:
            raise ValueError("classes must name at least one class; transfer.omit_classes=[3] gives one")
        self.classes, self.prior = tuple(classes), prior

    def misfits(self, task: Task) -> Iterator[str]:
        try:
            some_classes(self.classes, task.num_outputs)
        except ValueError as error:
            yield f"classes: {error}"

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        net, parts, num_classes = network(models, "student"), [], 0
        for batch in self.batches():
            logits = net(batch.inputs).logits
            num_classes = logits.shape[1]
            parts.append(Margins.of(logits, batch.labels, self.classes))
        margins = Margins.cat(parts)
        prior = len(set(self.classes)) / num_classes if self.prior is None else self.prior
        shifts = {
            "before": 0.0,
            "match_prior": match_prior(margins, prior),
            "test_optimal": fewest_errors(margins),
        }
        return {
            f"bias/{self.split}/{which}/{name}": value
            for which, shift in shifts.items()
            for name, value in {"shift": shift, **margins.measure(shift)}.items()
        }
