"""Fidelity of the student to the teacher: agreement of outputs, and CKA of features."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Unpack

import torch
from torch import nn

from kdx.core.metric import Metric
from kdx.core.task import Task
from kdx.evals.base import OfSplit, SplitEvaluator, computed, network
from kdx.evals.cached_outputs import CachedOutputs
from kdx.metrics.cka import CKA


def fidelity_metrics(task: Task) -> Sequence[Metric]:
    """The metrics of a task's comparison of two networks, under their names in `Fidelity`."""
    return tuple(replace(metric, name=f"fidelity/*/{metric.name}") for metric in task.fidelity().described)


class Fidelity(SplitEvaluator):
    """Measures `fidelity/{split}/{metric}` for the task's comparison of two networks, and `cka/{role}`.

    For classes, agreement is the share of examples with the same prediction; kl is KL(teacher || student) and
    reverse_kl KL(student || teacher), in nats at temperature 1. For values, rmse_to_teacher is the distance of the
    two. CKA is linear, of pooled features.

    Args:
        cka_roles: Features to compare; None for all stages, and "pooled", that both networks have.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.

    References:
        Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", 2021.
        https://arxiv.org/abs/2106.05945
    """

    tasks = None
    needs_teacher = True

    def __init__(self, cka_roles: Sequence[str] | None, **own: Unpack[OfSplit]):
        super().__init__(**own)
        self.cka_roles = cka_roles
        self.described = fidelity_metrics(self.task)

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, teacher = network(models, "student"), CachedOutputs(network(models, "teacher"), self.loader, self.task)
        follows = self.task.fidelity()
        likeness: dict[str, CKA] = {}
        for step, batch in enumerate(self.share(student, teacher.net)):
            ours = student(batch.inputs).float()
            theirs = teacher(step, batch.inputs, partial(self._roles, ours.features.keys()))
            answers = self.task.answer(ours), theirs.logits
            follows.update(*(self.task.counted(answer, batch) for answer in answers))
            for role, feature in theirs.features.items():
                likeness.setdefault(role, CKA()).update(ours.feature(role), feature)
        alike = {f"cka/{role}": cka for role, cka in likeness.items()}

        def values() -> dict[str, float]:
            found = {name: cka.compute()["cka"] for name, cka in alike.items()}
            # CKA of a constant feature is undefined
            return follows.compute() | {name: value for name, value in found.items() if not math.isnan(value)}

        measured = computed({"fidelity": follows, **alike}, values, student, teacher.net)
        return {f"fidelity/{self.split}/{name}": value for name, value in measured.items()}

    def _roles(self, ours: Collection[str], theirs: Collection[str]) -> Sequence[str]:
        if self.cka_roles is not None:
            return self.cka_roles
        both = set(ours) & set(theirs)
        # the stem and pre-activations add little to the stages
        return sorted(r for r in both if r == "pooled" or (r.startswith("stage") and "." not in r and r != "stage0"))
