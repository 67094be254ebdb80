"""The case, the pair of networks and the data set on which the laws of terms are tested."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import loss_references as reference
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.core.tree import Tree
from kdx.losses.base.term import Term
from kdx.tasks.classes import image_classes

CLASSES = 5
STUDENT = {"stage1": (3, 4, 4), "stage2": (4, 4, 4), "stage3": (4, 2, 2), "final": (4, 4, 4), "pooled": (4,)}
TEACHER = {"stage1": (5, 4, 4), "stage2": (6, 2, 2), "stage3": (6, 2, 2), "final": (6, 4, 4), "pooled": (6,)}
SPEC = image_classes(CLASSES, (3, 8, 8), 100, (0.0,) * 3, (1.0,) * 3, torch.arange(100) % CLASSES)
START = Progress(step=0, steps=10, epochs=10)


@dataclass(frozen=True)
class Case:
    """A term, its loop, and what the maths says of a student that equals its teacher.

    "zero": value and gradient are 0. "minimal": the gradient is 0. "value": the value is 0 (a constant inside
    a logarithm moves the minimum a little). "": nothing.

    A term that holds a part of its value constant in the backward pass has a gradient that is not the
    derivative of its value; it says so by `differentiable`, and its own file tests the gradient. One whose
    equation goes by the order of the batch says so by `permutes`. A term on other inputs than images gives the
    features of the two networks, the data set and the inputs.
    """

    make: Callable[[], Term]
    loop: reference.Reference
    at_equal: str
    differentiable: bool = True
    permutes: bool = True
    student: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: STUDENT)
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: TEACHER)
    spec: DataSpec = SPEC
    inputs: Callable[[int], Tree] = lambda size: torch.zeros(size, 1)


class Headed(nn.Module):
    """As much of a network as a term may ask for: a classifier of the pooled feature, the same for each width."""

    def __init__(self, width: int, classes: int, dtype: torch.dtype):
        super().__init__()
        self.head = nn.Linear(width, classes)
        drawn = torch.randn(classes, width + 1, generator=torch.Generator().manual_seed(width))
        self.head.weight.data, self.head.bias.data = drawn[:, :-1].to(dtype), drawn[:, -1].to(dtype)


def pair(case: Case, size: int = 6) -> tuple[Outputs, Outputs, Batch]:
    """Random outputs of the two networks for a batch that has every kind of target."""
    labels = torch.arange(size) % CLASSES
    drawn = torch.Generator().manual_seed(size)
    values, presence = (make(size, CLASSES, generator=drawn).double() for make in (torch.randn, torch.rand))
    outputs = (reference.random_outputs(size, CLASSES, shapes) for shapes in (case.student, case.teacher))
    batch = Batch.of_classes(case.inputs(size), labels, torch.arange(size))
    return *outputs, batch.with_targets(values=values, presence=presence)


def build(
    case: Case,
    student: Mapping[str, tuple[int, ...]],
    teacher: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype = torch.float64,
    spec: DataSpec | None = None,
) -> Term:
    """The case's term for networks with these features, as a method builds it."""
    spec = spec or case.spec
    term, classes = case.make(), spec.num_classes
    nets = (Headed(shapes["pooled"][0], classes, dtype) for shapes in (student, teacher))
    term.attach(*nets)
    term.build(Shapes((classes,), student), Shapes((classes,), teacher), spec)
    return term.to(dtype)
