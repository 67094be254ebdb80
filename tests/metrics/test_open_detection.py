"""AP of base and novel classes, against AP of each class by itself."""

import pytest
import torch

from kdx.metrics.detection import AveragePrecision
from kdx.metrics.open_detection import GeneralisedPrecision, nearest_class

NAMES, NOVEL = ["a", "b", "c", "d"], [1, 3]


def scenes(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    low = torch.randint(0, 40, (batch, 5, 2), generator=g).double()
    boxes = torch.cat([low, low + torch.randint(8, 30, (batch, 5, 2), generator=g)], 2)
    labels = torch.randint(-1, 4, (batch, 5, 1), generator=g).double()
    area = (boxes[..., 2:] - boxes[..., :2]).prod(2, keepdim=True)
    number = torch.arange(batch).double()[:, None, None].expand(batch, 5, 1)
    truth = torch.cat([boxes, labels, torch.zeros_like(labels), area, number], 2)
    moved = boxes + 2 * torch.randn(boxes.shape, generator=g, dtype=torch.float64)
    found = torch.cat([moved, torch.rand(batch, 5, 1, generator=g, dtype=torch.float64), labels], 2)
    return found, truth


def alone(found: torch.Tensor, truth: torch.Tensor, label: int) -> float:
    """AP50 where a class is the only one."""
    metric = AveragePrecision(NAMES)
    metric.update(
        torch.where((found[..., 5:] == label).expand_as(found), found, torch.tensor(-1.0).double()),
        torch.where((truth[..., 4:5] == label).expand_as(truth), truth, torch.tensor(-1.0).double()),
    )
    return metric.compute()["ap50"]


def test_each_kind_is_the_mean_over_its_own_classes():
    found, truth = scenes()
    metric = GeneralisedPrecision(NAMES, NOVEL)
    for part in range(0, 6, 2):
        metric.update(found[part : part + 2], truth[part : part + 2])
    values = metric.compute()
    each = [alone(found, truth, label) for label in range(4)]
    assert 0.05 < min(each) and max(each) <= 1
    assert values["ap50_novel"] == pytest.approx((each[1] + each[3]) / 2)
    assert values["ap50_base"] == pytest.approx((each[0] + each[2]) / 2)
    assert values["ap50"] == pytest.approx(sum(each) / 4)
    assert {m.name for m in metric.described} >= values.keys()


def test_a_kind_without_objects_has_no_number():
    found, truth = scenes()
    truth[..., 4] = torch.where(truth[..., 4] == 1, -1, truth[..., 4])
    truth[..., 4] = torch.where(truth[..., 4] == 3, -1, truth[..., 4])
    metric = GeneralisedPrecision(NAMES, NOVEL)
    metric.update(found, truth)
    assert "ap50_novel" not in metric.compute() and "ap50_base" in metric.compute()


def test_nearest_class_counts_regions_with_a_class():
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert [int(n) for n in nearest_class(logits, torch.tensor([0, 2, -1]))] == [1, 2]
