"""How closely the student follows the teacher."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from kdx.core.ranges import Positive
from kdx.core.types import Batch, Outputs
from kdx.evals.base import SplitEvaluator, computed, network
from kdx.metrics.cka import CKA
from kdx.metrics.fidelity import Fidelity as Agreement


class Fidelity(SplitEvaluator):
    """Measures `fidelity/{split}/agreement`, `kl`, `reverse_kl` and `cka/{role}`.

    Agreement is the share of examples with the same prediction; kl is KL(teacher || student) and
    reverse_kl KL(student || teacher), in nats at temperature 1; CKA is linear, of pooled features.

    Args:
        cka_roles: Features to compare; None for every stage (and "pooled") that both networks have.
        loaders, device, split, every: As in `SplitEvaluator`.

    References:
        Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", 2021.
        https://arxiv.org/abs/2106.05945
    """

    needs_teacher = True

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Batch]],
        device: torch.device,
        split: str,
        cka_roles: Sequence[str] | None,
        every: Positive | None,
    ):
        super().__init__(loaders, device, split, every)
        self.cka_roles = cka_roles

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, teacher = network(models, "student"), network(models, "teacher")
        follows = Agreement()
        likeness: dict[str, CKA] | None = None
        for batch in self.share(student, teacher):
            ours, theirs = student(batch.inputs).float(), teacher(batch.inputs).float()
            follows.update(ours.logits, theirs.logits)
            if likeness is None:
                likeness = {role: CKA() for role in self._roles(ours, theirs)}
            for role, cka in likeness.items():
                cka.update(ours.feature(role), theirs.feature(role))
        alike = {f"cka/{role}": cka for role, cka in (likeness or {}).items()}

        def values() -> dict[str, float]:
            found = {name: cka.compute()["cka"] for name, cka in alike.items()}
            # a feature that is constant is like nothing
            return follows.compute() | {name: value for name, value in found.items() if not math.isnan(value)}

        measured = computed({"fidelity": follows, **alike}, values, student, teacher)
        return {f"fidelity/{self.split}/{name}": value for name, value in measured.items()}

    def _roles(self, ours: Outputs, theirs: Outputs) -> Sequence[str]:
        if self.cka_roles is not None:
            return self.cka_roles
        both = ours.features.keys() & theirs.features.keys()
        # the stem and pre-activations say little that their stage does not
        return sorted(r for r in both if r == "pooled" or (r.startswith("stage") and "." not in r and r != "stage0"))
