"""The task's metrics of the networks that learn beside the student, and of all of them together."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from kdx.core.task import PairMetric
from kdx.evals.base import SplitEvaluator

TOGETHER = "ensemble"


class Peers(SplitEvaluator):
    """Measures `{role}/{split}/{metric}`, as `TaskMetrics` does, for each further network and for all together.

    The roles are those of the method: `peer1/test/top1`, `exit2/test/top1`. `ensemble` is what the method
    itself makes of its networks, or else the task's joint prediction, the student's among them.

    Args:
        loaders, device, task, split, every: As in `SplitEvaluator`.
    """

    tasks = None
    needs_peers = True

    @torch.no_grad()
    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        measures: dict[str, Mapping[str, PairMetric]] = {}
        for batch in self.batches():
            outputs = {role: net(batch.inputs) for role, net in models.items() if role != "teacher"}
            if TOGETHER not in outputs:
                together = self.task.together([own.logits.float() for own in outputs.values()])
                outputs[TOGETHER] = replace(outputs["student"], logits=together)
            for role, own in outputs.items():
                if role not in measures:
                    measures[role] = self.task.metrics()
                pair = self.task.pair(own, batch)
                for measure in measures[role].values():
                    measure.update(*pair)
        return {
            f"{role}/{self.split}/{name}": value
            for role, parts in measures.items()
            if role != "student"
            for part in parts.values()
            for name, value in part.compute().items()
        }
