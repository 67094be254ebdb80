"""Hinton's correction of the biases of classes that were left out of the transfer set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.ranges import OpenFraction, Positive
from kdx.core.task import Task
from kdx.evals.base import SplitEvaluator, network
from kdx.metrics.bias import Margins, fewest_errors, match_prior, some_classes

WHICH = ("before", "match_prior", "test_optimal")


class Bias(SplitEvaluator):
    """Measures the student as it is and with the biases of some classes raised together by one number.

    `bias/{split}/{which}/top1`, `recall` of those classes, and `class_errors`, the wrong ones of their examples as
    a share of all; `shift` is what was added. `which` is

    - `before`: nothing is added;
    - `match_prior`: the shift at which the student's mean probability of the classes on this split is their prior.
      It looks at no label, so its numbers are a result like any other;
    - `test_optimal`: the shift with the fewest errors on this very split, as in the paper. Its numbers are chosen on
      what they are measured on: a bound on what a shift can do, not a result.

    The network that is exported has the biases it was trained with.

    Args:
        classes: Classes whose biases are raised: those the student has never seen, or has seen alone.
        prior: Their share of all examples, together; None for that of as many classes of equal size.
        loaders, device, task, split, every: As in `SplitEvaluator`.

    Raises:
        ValueError: No class is named.

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

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Batch]],
        device: torch.device,
        task: Task,
        split: str,
        classes: Sequence[int],
        prior: OpenFraction | None,
        every: Positive | None,
    ):
        super().__init__(loaders, device, task, split, every)
        if not classes:
            raise ValueError("classes must name those whose biases are moved; transfer.omit_classes=[3] does")
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
