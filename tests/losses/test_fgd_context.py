"""FGD's global part: maps with the context of their image."""

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec, Scenes
from kdx.losses.detection.context import ContextBlock, context_distance
from kdx.losses.detection.fgd import FGD
from kdx.tasks.boxes import Boxes

START = Progress(0, 8, 8.0)


def turned(block: ContextBlock) -> ContextBlock:
    """The block with a last layer that is no longer zero."""
    torch.nn.init.normal_(block.add[-1].weight)  # pyright: ignore[reportArgumentType]
    return block.double()


def test_each_cell_gets_the_same_vector_of_the_weighted_mean_of_all():
    torch.manual_seed(0)
    block, maps = turned(ContextBlock(4)), torch.randn(2, 4, 3, 5, dtype=torch.float64)
    found = block(maps)
    for b in range(2):
        scores = {(y, x): float(block.place(maps[b : b + 1])[0, 0, y, x].detach()) for y in range(3) for x in range(5)}
        total = sum(torch.tensor(s).double().exp() for s in scores.values())
        mean = sum(torch.tensor(s).double().exp() / total * maps[b, :, y, x] for (y, x), s in scores.items())
        wanted = maps[b] + block.add(mean)[:, None, None]
        torch.testing.assert_close(found[b], wanted, rtol=1e-6, atol=1e-6)


def test_the_distance_is_a_sum_of_squares_of_each_example():
    a, b = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    for i, value in enumerate(context_distance(a, b)):
        assert float(value) == pytest.approx(float(((a[i] - b[i]) ** 2).sum()), rel=1e-5)


def term(context_weight: float) -> FGD:
    torch.manual_seed(1)
    found = FGD(["fpn2"], 0.5, 1.0, 0.5, 1.0, context_weight)
    spec = DataSpec(Boxes(("a",)), Scenes((3, 32, 32), (0.5,) * 3, (0.5,) * 3), 4)
    found.build(Shapes((2,), {"fpn2": (3, 4, 4)}), Shapes((2,), {"fpn2": (4, 4, 4)}), spec)
    return found


def scene() -> tuple[Outputs, Outputs, Batch]:
    torch.manual_seed(2)
    student = Outputs(torch.zeros(2, 2), {"fpn2": torch.randn(2, 3, 4, 4, requires_grad=True)})
    teacher = Outputs(torch.zeros(2, 2), {"fpn2": torch.randn(2, 4, 4, 4, requires_grad=True)})
    boxes = {"boxes": torch.tensor([[[0.0, 0, 16, 16]]] * 2), "box_labels": torch.zeros(2, 1, dtype=torch.int64)}
    return student, teacher, Batch(torch.zeros(2, 3, 32, 32), boxes, torch.arange(2))


def test_the_global_part_adds_its_weight_times_the_distance_and_0_adds_nothing():
    student, teacher, batch = scene()
    without, with_it = term(0.0), term(2.0)
    with_it.align.load_state_dict(without.align.state_dict())
    assert not list(without.contexts.parameters())
    more = with_it(student, teacher, batch, START) - without(student, teacher, batch, START)
    # blocks start as the identity
    own = with_it.align[0](student.feature("fpn2"))
    torch.testing.assert_close(more, 2 * context_distance(own, teacher.feature("fpn2")), rtol=1e-4, atol=1e-4)


def test_both_blocks_learn_and_the_teacher_does_not():
    student, teacher, batch = scene()
    fgd = term(1.0)
    fgd(student, teacher, batch, START).sum().backward()
    for block in fgd.contexts[0]:  # pyright: ignore[reportGeneralTypeIssues]
        assert float(block.add[-1].bias.grad.abs().sum()) > 0
    assert teacher.feature("fpn2").grad is None and student.feature("fpn2").grad is not None
