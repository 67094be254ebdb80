import pytest
import torch
from law_case import CLASSES, SPEC, STUDENT
from loss_references import random_outputs
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.base.term import Term
from kdx.losses.features.fitnet import FitNet
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.wrappers.staged import Staged

LABELS = torch.zeros(3, dtype=torch.int64)
BATCH = Batch.of_classes(torch.zeros(3, 1), LABELS, LABELS)


class Loud(Term):
    def forward(self, *_) -> torch.Tensor:
        raise AssertionError("runs")


def test_takes_part_from_an_epoch_up_to_another():
    outputs = random_outputs(3, CLASSES, STUDENT, torch.float32)
    term, plain = Staged(CrossEntropy(0.0), 2, 5), CrossEntropy(0.0)
    for epoch in range(8):
        progress = Progress(epoch, 10, 10)
        expected = plain(outputs, outputs, BATCH, progress) if 2 <= epoch < 5 else torch.zeros(3)
        assert torch.equal(term(outputs, outputs, BATCH, progress), expected)


def test_costs_nothing_and_leaves_no_graph_outside():
    outputs = random_outputs(3, CLASSES, STUDENT, torch.float32)
    leaf = Outputs(outputs.logits.requires_grad_(), outputs.features)
    rows = Staged(Loud(), 1, None)(leaf, leaf, BATCH, Progress(0, 10, 10))
    assert not rows.requires_grad
    with pytest.raises(AssertionError, match="runs"):
        Staged(Loud(), 1, None)(leaf, leaf, BATCH, Progress(9, 10, 10))


def test_what_only_an_absent_term_reaches_is_left_alone_by_decay_and_momentum():
    torch.manual_seed(0)
    shapes = Shapes((CLASSES,), STUDENT)
    hint, net = Staged(FitNet("pooled", "pooled"), 0, 1), nn.Linear(4, CLASSES)
    hint.build(shapes, shapes, SPEC)
    optimizer = torch.optim.SGD([*net.parameters(), *hint.parameters()], lr=0.1, momentum=0.9, weight_decay=0.1)
    after = []
    for epoch in range(3):
        outputs = random_outputs(3, CLASSES, STUDENT, torch.float32)
        student = Outputs(net(outputs.feature("pooled")), outputs.features)
        progress = Progress(epoch, 10, 10)
        loss = CrossEntropy(0.0)(student, student, BATCH, progress) + hint(student, outputs, BATCH, progress)
        optimizer.zero_grad(set_to_none=True)
        loss.mean().backward()
        optimizer.step()
        after.append([p.detach().clone() for p in hint.parameters()])
    assert all(torch.equal(a, b) and torch.equal(b, c) for a, b, c in zip(*after, strict=True))


def test_asks_what_its_term_asks():
    term = Staged(FitNet("stage1", "stage2"), 0, 1)
    assert (term.student_roles(), term.teacher_roles(), term.needs_teacher) == (("stage1",), ("stage2",), True)
    assert not Staged(CrossEntropy(0.0), 0, 1).needs_teacher


def test_refuses_a_span_that_ends_before_it_begins():
    with pytest.raises(ValueError, match="since 5, until 5"):
        Staged(CrossEntropy(0.0), 5, 5)
