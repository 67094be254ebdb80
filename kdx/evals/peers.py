"""The task's metrics of peers and exits, and of their ensemble."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from kdx.core.task import PairMetric
from kdx.evals.base import SplitEvaluator

TOGETHER = "ensemble"


class Peers(SplitEvaluator):
    """Measures `{role}/{split}/{metric}`, as `TaskMetrics` does, for each other network and for their ensemble.

    The roles are those of the method: `peer1/test/top1`, `exit2/test/top1`. `ensemble` is the method's own network of
    that role if it has one, else the task's joint prediction of all networks, the student included.

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
