"""Predictions that a run keeps."""

import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.evals.predictions import predictions
from kdx.tasks.classes import Classes


class Table(nn.Module):
    """Logits that are the input."""

    def forward(self, inputs):
        return Outputs(inputs)


def test_order_confidence_and_broken_logits():
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    logits[3, 2] = float("nan")
    labels, index = torch.tensor([0, 1, 2, 3, 0, 1, 2]), torch.arange(7)
    batches = [Batch.of_classes(logits[i : i + 3], labels[i : i + 3], index[i : i + 3]) for i in (0, 3, 6)]
    found = predictions({"student": Table(), "teacher": Table()}, batches, torch.device("cpu"), Classes(4))
    assert found["label"].tolist() == labels.tolist()
    assert found["student/prediction"].equal(found["teacher/prediction"])
    for i, row in enumerate(logits.tolist()):
        if i == 3:
            assert found["student/prediction"][i] == -1
            continue
        assert row[int(found["student/prediction"][i])] == max(row)
        exps = [torch.tensor(v, dtype=torch.float64).exp().item() for v in row]
        assert abs(float(found["student/confidence"][i]) - max(exps) / sum(exps)) < 1e-6
