"""BYOT's hint against a loop."""

import pytest
import torch

from kdx.losses.features.byot import active_difference


def test_only_places_where_either_is_active_count():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    teacher.requires_grad_()
    found = active_difference(student, teacher)
    for b in range(3):
        pairs = zip(student[b].flatten().tolist(), teacher[b].flatten().tolist(), strict=True)
        assert found[b].item() == pytest.approx(sum((s - t) ** 2 for s, t in pairs if s > 0 or t > 0), rel=1e-12)
    found.sum().backward()
    assert teacher.grad is None and student.grad is not None
    both = (student <= 0) & (teacher <= 0)
    assert both.any() and (student.grad[both] == 0).all() and (student.grad[~both] != 0).all()
