"""Gaps to the teacher, and the early end of a run that learns nothing."""

import math

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.evals.gaps import Gaps, Rejection
from kdx.metrics.cka import linear_cka
from kdx.metrics.sharpness import SharpnessGap
from kdx.tasks.classes import Classes

CLASSES = 4


class Net(nn.Module):
    def __init__(self, seed: int, width: int):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.features = nn.Parameter(torch.randn(6, width, generator=g), requires_grad=False)
        self.head = nn.Parameter(torch.randn(width, CLASSES, generator=g), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> Outputs:
        pooled = inputs @ self.features
        return Outputs(pooled @ self.head, {"pooled": pooled})


def batches(labels: torch.Tensor | None = None) -> list[Batch]:
    g = torch.Generator().manual_seed(5)
    inputs = torch.randn(23, 6, generator=g)
    labels = torch.arange(23) % CLASSES if labels is None else labels
    parts = torch.arange(23).split(9)
    return [Batch.of_classes(inputs[i], labels[i], i) for i in parts]


def own(split: list[Batch]) -> dict:
    return {"loaders": {"val": split}, "device": torch.device("cpu"), "task": Classes(CLASSES), "split": "val"}


def test_gaps_are_those_of_the_whole_split():
    student, teacher, split = Net(1, 3), Net(2, 5), batches()
    found = Gaps(role="pooled", every=None, **own(split)).run({"student": student, "teacher": teacher})
    inputs = torch.cat([batch.input_tensor for batch in split])
    mine, theirs = student(inputs), teacher(inputs)
    sharpness = SharpnessGap()
    sharpness.update(mine.logits, theirs.logits)
    likeness = linear_cka(mine.features["pooled"], theirs.features["pooled"])
    assert found == {
        "gaps/val/representation": pytest.approx(1 - likeness, abs=1e-6),
        "gaps/val/sharpness": pytest.approx(sharpness.compute()["sharpness"], rel=1e-6),
    }
    assert 0.01 < found["gaps/val/representation"] < 1


def test_a_student_with_a_constant_feature_has_the_largest_gap():
    student, teacher = Net(1, 3), Net(2, 5)
    student.features.zero_()
    found = Gaps(role="pooled", every=None, **own(batches())).run({"student": student, "teacher": teacher})
    assert found["gaps/val/representation"] == 1.0


def predicted(accuracy: float, margin: float) -> tuple[Net, list[Batch]]:
    """A student, and labels on which it has an accuracy; a wrong prediction is `margin` above the label's logit."""
    student, split = Net(1, 3), batches()
    inputs = torch.cat([batch.input_tensor for batch in split])
    student.head.mul_(margin)
    top = student(inputs).logits.argmax(1)
    wrong = torch.arange(23) >= round(23 * accuracy)
    return student, batches(torch.where(wrong, (top + 1) % CLASSES, top))


@pytest.mark.parametrize(
    ("accuracy", "margin", "message"),
    [
        (0.9, 1.0, None),
        (0.3, 1e-3, "rejected: at chance, the val accuracy is 0.304 of 4 classes"),
        (0.5, 1e-3, None),
        (0.5, 1e3, "rejected: diverged, the val NLL"),
        (0.5, math.nan, "rejected: diverged, the val NLL is nan"),
    ],
)
def test_a_run_near_chance_or_far_below_a_guess_is_ended(accuracy: float, margin: float, message: str | None):
    student, split = predicted(accuracy, margin)
    evaluator = Rejection(least_accuracy=1.5, most_nll=5.0, every=None, **own(split))
    if message is None:
        assert evaluator.run({"student": student}) == {}
        return
    with pytest.raises(UserError, match=message):
        evaluator.run({"student": student})
