"""Accuracy on true boxes against a count by hand."""

import pytest
import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.evals.open_regions import RegionAccuracy
from kdx.tasks.boxes import Boxes
from kdx.tasks.open_boxes import OpenBoxes

NAMES = ("a", "b", "c", "d")
TASK = OpenBoxes(NAMES, (1, 3), 5, False)


class ByCorner(nn.Module):
    """Says that a region is of the class that its left edge counts; the background would win if it were asked."""

    def forward(self, inputs: dict[str, Tensor]) -> Outputs:
        logits = nn.functional.one_hot(inputs["regions"][:, 0].long(), 5).float()
        logits[:, 4] = 9.0
        return Outputs(logits, owner=inputs["owner"])


def batches() -> list[Batch]:
    # left edges 0, 1, 1 | 3, 2: right for a, b; wrong for c; right for d; a crowd and padding do not count
    boxes = torch.zeros(2, 3, 4)
    boxes[0, :, 0], boxes[1, :, 0] = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([3.0, 2.0, 0.0])
    boxes[..., 2:] = boxes[..., :2] + 5
    labels = torch.tensor([[0, 1, 2], [3, 3, -1]])
    crowd = torch.tensor([[False, False, False], [False, True, False]])
    inputs = {"images": torch.zeros(2, 3, 8, 8), "sizes": torch.full((2, 2), 8)}
    whole = Batch(inputs, {"boxes": boxes, "box_labels": labels, "crowd": crowd}, torch.arange(2))
    return whole.chunk(2)


def evaluator(task) -> RegionAccuracy:
    own = dict(loaders={"test": batches()}, device=torch.device("cpu"), task=task, split="test", every=None)
    return RegionAccuracy(**own)


def test_it_counts_true_boxes_of_either_kind():
    found = evaluator(TASK).run({"student": ByCorner()})
    assert found == {"test/region_accuracy_base": 0.5, "test/region_accuracy_novel": 1.0}


def test_data_without_novel_classes_are_refused():
    with pytest.raises(UserError, match="RegionAccuracy needs a data set with novel classes"):
        evaluator(Boxes(NAMES))
