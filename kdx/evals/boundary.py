"""Similarity of two networks' decision boundaries near the examples."""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.metric import Metric
from kdx.core.ranges import PositiveInt
from kdx.evals.base import OfSplit, SplitEvaluator, differentiable, network
from kdx.metrics.accuracy import correct
from kdx.models.attack import BoundaryAttack


class Boundary(SplitEvaluator):
    """Measures `boundary/{split}/magsim`, `angsim` and `reached`.

    The attack moves each example that both networks classify correctly to the boundary of each, towards the same class.
    With the two perturbations t and s, MagSim is the mean of `min(|t|, |s|) / max(|t|, |s|)`, in [0, 1], and AngSim
    the mean of their cosine, in [-1, 1]; both are 1 for equal boundaries. Pairs in which an attack does not cross the
    boundary are left out; `reached` is the share of the other pairs.

    Args:
        attack: The attack that moves examples; it should take many small steps.
        targets: Number of target classes per example, by the teacher's probability; None for all other classes.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.

    References:
        Heo, Lee, Yun, Choi, "Knowledge Distillation with Adversarial Samples Supporting Decision Boundary", 2019.
        https://arxiv.org/abs/1805.05532
    """

    needs_teacher = True
    reads_one_tensor = True
    described = (
        Metric(name="boundary/*/magsim", label="MagSim", digits=3, better="higher"),
        Metric(name="boundary/*/angsim", label="AngSim", digits=3, better="higher"),
        Metric(name="boundary/*/reached", label="boundaries reached", unit="%", digits=2),
    )

    def __init__(self, attack: BoundaryAttack, targets: PositiveInt | None, **own: Unpack[OfSplit]):
        super().__init__(**own)
        self.attack, self.targets = attack, targets

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, teacher = network(models, "student"), network(models, "teacher")
        magnitudes, cosines, tried = [], [], 0
        with differentiable(student), differentiable(teacher):
            for batch in self.batches():
                inputs, towards = self._pairs(student, teacher, batch)
                tried += len(inputs)
                if not len(inputs):
                    continue
                (mine, ours), (theirs, their) = (self._move(net, inputs, towards) for net in (student, teacher))
                crossed = ours & their
                a, b = (mine - inputs)[crossed].flatten(1).double(), (theirs - inputs)[crossed].flatten(1).double()
                lengths = torch.stack([a.norm(dim=1), b.norm(dim=1)])
                magnitudes.append(lengths.amin(0) / lengths.amax(0))
                cosines.append((a * b).sum(1) / lengths.prod(0))
        found = {"reached": 0.0}
        if magnitudes and len(every := torch.cat(magnitudes)):
            found = {
                "magsim": every.mean().item(),
                "angsim": torch.cat(cosines).mean().item(),
                "reached": len(every) / tried,
            }
        return {f"boundary/{self.split}/{name}": value for name, value in found.items()}

    @torch.no_grad()
    def _pairs(self, student: nn.Module, teacher: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Examples that both classify correctly, repeated once per target, and the targets."""
        mine, theirs = student(batch.inputs).logits, teacher(batch.inputs).logits
        right = correct(mine, batch.labels) & correct(theirs, batch.labels)
        others = theirs[right].argsort(1, descending=True)[:, 1:]
        others = others[:, : self.targets]
        return batch.input_tensor[right].repeat_interleave(others.shape[1], 0), others.flatten()

    def _move(self, net: nn.Module, inputs: Tensor, towards: Tensor) -> tuple[Tensor, Tensor]:
        """The boundary samples, and which of them crossed."""
        moved = self.attack(lambda x: net(x).logits, inputs, towards)
        with torch.no_grad():
            after, before = net(moved).logits, net(inputs).logits
            known = ~(after.isnan().any(1) | before.isnan().any(1))
            return moved, (after.argmax(1) != before.argmax(1)) & known
