"""Gaps between student and teacher: the fitness of a search over distillers, and its early end."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Unpack

import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.ranges import Positive
from kdx.evals.base import OfSplit, SplitEvaluator, computed, network
from kdx.evals.cached_outputs import CachedOutputs
from kdx.metrics.accuracy import topk_correct
from kdx.metrics.cka import CKA
from kdx.metrics.sharpness import SharpnessGap


class Gaps(SplitEvaluator):
    """Measures `gaps/{split}/representation` and `gaps/{split}/sharpness` between student and teacher.

    The representation gap is 1 minus the linear CKA of a feature, 1 where it is undefined because a side is constant;
    the sharpness gap is that of `SharpnessGap`.

    Args:
        role: The feature, which both networks have.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.

    References:
        Li, Dong, Li, Wei, Yang, "KD-Zero: Evolving Knowledge Distiller for Any Teacher-Student Pairs", 2023.
        https://openreview.net/forum?id=OlMKa5YZ8e (names the two gaps; these definitions are our own)
    """

    needs_teacher = True
    described = (
        Metric(name="gaps/*/representation", label="representation gap", digits=3, better="lower", shown=True),
        Metric(name="gaps/*/sharpness", label="sharpness gap", digits=3, better="lower", shown=True),
    )

    def __init__(self, role: str, **own: Unpack[OfSplit]):
        super().__init__(**own)
        self.role = role

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, teacher = network(models, "student"), CachedOutputs(network(models, "teacher"), self.loader, self.task)
        likeness, sharpness = CKA(), SharpnessGap()
        for step, batch in enumerate(self.share(student, teacher.net)):
            ours = student(batch.inputs).float()
            theirs = teacher(step, batch.inputs, partial(_only, self.role))
            likeness.update(ours.feature(self.role), theirs.feature(self.role))
            sharpness.update(ours.logits, theirs.logits)

        def values() -> dict[str, float]:
            alike = likeness.compute()["cka"]
            gap = 1.0 if math.isnan(alike) else 1.0 - alike
            return {"representation": gap, "sharpness": sharpness.compute()["sharpness"]}

        found = computed({"cka": likeness, "sharpness": sharpness}, values, student, teacher.net)
        return {f"gaps/{self.split}/{name}": value for name, value in found.items()}


class Rejection(SplitEvaluator):
    """Ends a run that learns nothing: with an accuracy near chance, or a likelihood far below that of a guess.

    The run fails with the reason, as after any other error; it measures nothing.

    Args:
        least_accuracy: Least accuracy, in multiples of that of guessing.
        most_nll: Largest negative log-likelihood, in multiples of that of a uniform prediction.
        own: loaders, device, task, split and every, as in `SplitEvaluator`.

    Raises:
        UserError: In `run`, where the student is beyond a limit.
    """

    def __init__(self, least_accuracy: Positive, most_nll: Positive, **own: Unpack[OfSplit]):
        super().__init__(**own)
        self.least_accuracy, self.most_nll = least_accuracy, most_nll

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        student, seen, right, loss = network(models, "student"), 0, 0.0, 0.0
        classes = self.task.num_outputs
        for batch in self.batches():
            logits = student(batch.inputs).logits.double()
            seen += len(batch)
            right += float(topk_correct(logits, batch.labels, 1).sum())
            loss += float(nn.functional.cross_entropy(logits, batch.labels, reduction="sum"))
        accuracy, nll, guess = right / seen, loss / seen, math.log(classes)
        if not nll <= self.most_nll * guess:
            raise UserError(f"rejected: diverged, the {self.split} NLL is {nll:.3g}, that of a guess {guess:.3g}")
        if accuracy < self.least_accuracy / classes:
            raise UserError(f"rejected: at chance, the {self.split} accuracy is {accuracy:.3f} of {classes} classes")
        return {}


def _only(role: str, known: object) -> tuple[str, ...]:
    return (role,)
