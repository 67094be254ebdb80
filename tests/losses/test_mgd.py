import pytest
import torch
from law_case import CLASSES, SPEC, START
from loss_references import random_outputs
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Shapes
from kdx.losses.features.mgd import MGD


class Spy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.detach()
        return x


def masks(masked, fraction: float, size: int = 64) -> torch.Tensor:
    """1 where the student's map came through, 0 where it was masked."""
    shapes = Shapes((CLASSES,), {"stage1": (8, 4, 4)})
    term = MGD("stage1", "stage1", masked, fraction)
    term.build(shapes, shapes, SPEC)
    term.generate = spy = Spy()
    outputs = random_outputs(size, CLASSES, dict(shapes.features), torch.float32)
    labels = torch.zeros(size, dtype=torch.int64)
    term(outputs, outputs, Batch.of_classes(torch.zeros(size, 1), labels, labels), START)
    return spy.seen / outputs.feature("stage1")


def test_whole_channels_are_masked_for_each_example_on_its_own():
    torch.manual_seed(0)
    kept = masks("channels", 0.25)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(kept, kept[:, :, :1, :1].expand_as(kept))
    assert len({tuple(row.tolist()) for row in kept[:, :, 0, 0]}) > 30
    assert kept.mean().item() == pytest.approx(0.75, abs=0.06)  # three standard errors of 512 draws


def test_whole_positions_are_masked():
    torch.manual_seed(0)
    kept = masks("positions", 0.65)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert kept.mean().item() == pytest.approx(0.35, abs=0.05)


def test_nothing_is_masked_at_zero_and_a_seed_decides_the_masks():
    assert masks("channels", 0.0).min() == 1
    torch.manual_seed(3)
    once = masks("channels", 0.5)
    torch.manual_seed(3)
    assert torch.equal(once, masks("channels", 0.5))


def test_refuses_another_kind_of_mask():
    with pytest.raises(ValueError, match="masked must be"):
        MGD("last", "last", "examples", 0.1)  # pyright: ignore[reportArgumentType]
