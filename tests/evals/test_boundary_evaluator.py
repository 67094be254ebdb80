"""MagSim and AngSim of linear networks, whose boundaries are planes."""

import math

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.evals.boundary import Boundary
from kdx.models.attack import BoundaryAttack
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import Classes

CPU = torch.device("cpu")


class Plane(nn.Module):
    """Two classes, parted by the plane `w x + b = 0`."""

    def __init__(self, w: list[float], b: float):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.tensor(w)), b

    def forward(self, x: torch.Tensor) -> Outputs:
        z = x @ self.w + self.b
        return Outputs(torch.stack([z, -z], 1))


def measured(student: nn.Module, teacher: nn.Module, batch_size: int = 7, steps: int = 300) -> dict[str, float]:
    torch.manual_seed(0)
    x = torch.cat([torch.rand(20, 2) + torch.tensor([1.0, 0.0]), -torch.rand(20, 2) - torch.tensor([1.0, 0.0])])
    y = torch.tensor([0] * 20 + [1] * 20)
    batches = [
        Batch.of_classes(x[i : i + batch_size], y[i : i + batch_size], y[i : i + batch_size])
        for i in range(0, 40, batch_size)
    ]
    attack = BoundaryAttack(steps=steps, step_size=0.02, margin=1e-3, low=-10.0, high=10.0)
    with torch.no_grad():
        return Boundary(
            loaders={"test": batches},
            device=CPU,
            task=Classes(2),
            split="test",
            attack=attack,
            targets=None,
            every=None,
        ).run({"student": student.eval(), "teacher": Frozen(teacher, None, None)})


def test_the_same_boundary_whatever_the_scale_of_the_logits():
    found = measured(Plane([3.0, 0.0], 0.0), Plane([1.0, 0.0], 0.0))
    assert found["boundary/test/magsim"] == pytest.approx(1, abs=0.01)
    assert found["boundary/test/angsim"] == pytest.approx(1, abs=1e-6)
    assert found["boundary/test/reached"] == 1


def test_a_turned_boundary():
    turn = 0.4
    found = measured(Plane([math.cos(turn), math.sin(turn)], 0.0), Plane([1.0, 0.0], 0.0))
    assert found["boundary/test/angsim"] == pytest.approx(math.cos(turn), abs=1e-5)
    # distances of the points to the two planes
    torch.manual_seed(0)
    x = torch.cat([torch.rand(20, 2) + torch.tensor([1.0, 0.0]), -torch.rand(20, 2) - torch.tensor([1.0, 0.0])])
    a, b = (x @ torch.tensor([math.cos(turn), math.sin(turn)])).abs(), x[:, 0].abs()
    expected = (torch.minimum(a, b) / torch.maximum(a, b)).mean().item()
    assert found["boundary/test/magsim"] == pytest.approx(expected, abs=0.01)


def test_a_moved_boundary_counts_by_the_lengths_and_the_batches_do_not():
    student, teacher = Plane([1.0, 0.0], 0.5), Plane([1.0, 0.0], 0.0)
    found = measured(student, teacher)
    torch.manual_seed(0)
    x = torch.cat([torch.rand(20, 2) + torch.tensor([1.0, 0.0]), -torch.rand(20, 2) - torch.tensor([1.0, 0.0])])[:, 0]
    a, b = (x + 0.5).abs(), x.abs()
    assert found["boundary/test/magsim"] == pytest.approx(
        (torch.minimum(a, b) / torch.maximum(a, b)).mean().item(), abs=0.01
    )
    assert found["boundary/test/angsim"] == pytest.approx(1, abs=1e-6)
    again = measured(student, teacher, batch_size=40)
    assert again == pytest.approx(found, rel=1e-9)


def test_only_what_both_have_right_counts():
    teacher = Plane([1.0, 0.0], 0.0)
    # the student has class 1 wrong throughout, and its boundary is elsewhere there
    found = measured(Plane([1.0, 0.0], 50.0), teacher, steps=1)
    assert found == {"boundary/test/reached": 0.0}
    wrong = measured(Plane([-1.0, 0.0], 0.0), teacher)
    assert wrong == {"boundary/test/reached": 0.0}


def test_targets_are_the_teachers_most_likely_others():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 4, bias=False)

        def forward(self, x: torch.Tensor) -> Outputs:
            return Outputs(self.fc(x))

    torch.manual_seed(0)
    student, teacher = Table(), Table()
    student.load_state_dict(teacher.state_dict())
    x = torch.randn(10, 2)
    y = teacher(x).logits.argmax(1)
    seen = []

    class Look(BoundaryAttack):
        def __call__(self, network, inputs, targets):
            seen.append((inputs.clone(), targets.clone()))
            return super().__call__(network, inputs, targets)

    attack = Look(steps=2, step_size=0.1, margin=1e-3, low=-9.0, high=9.0)
    for count, expected in ((2, 2), (None, 3)):
        seen.clear()
        Boundary(
            loaders={"test": [Batch.of_classes(x, y, y)]},
            device=CPU,
            task=Classes(2),
            split="test",
            attack=attack,
            targets=count,
            every=None,
        ).run({"student": student, "teacher": teacher})
        inputs, targets = seen[0]
        assert len(inputs) == 10 * expected
        order = teacher(x).logits.argsort(1, descending=True)[:, 1 : 1 + expected]
        assert torch.equal(targets.view(10, expected), order)
        assert torch.equal(inputs.view(10, expected, 2), x[:, None].expand(-1, expected, -1))
