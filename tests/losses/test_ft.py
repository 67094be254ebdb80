import copy

import pytest
import torch
from law_case import CLASSES, SPEC
from loss_references import random_outputs

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.features.ft import FT, factor_distance

STUDENT, TEACHER = Shapes((CLASSES,), {"last": (4, 4, 4)}), Shapes((CLASSES,), {"last": (6, 2, 2)})
LABELS = torch.zeros(3, dtype=torch.int64)
BATCH = Batch.of_classes(torch.zeros(3, 1), LABELS, LABELS)


def built() -> FT:
    term = FT("last", "last", 0.5, "attention", 30)
    term.build(STUDENT, TEACHER, SPEC)
    return term


def learning(term: FT, epoch: int) -> tuple[set[str], bool]:
    """Names of the parts that get a gradient in a schedule epoch, and whether the student does."""
    outputs = random_outputs(3, CLASSES, dict(STUDENT.features), torch.float32)
    student = Outputs(outputs.logits, {"last": outputs.features["last"].requires_grad_()})
    teacher = random_outputs(3, CLASSES, dict(TEACHER.features), torch.float32)
    term.zero_grad(set_to_none=True)
    term(student, teacher, BATCH, Progress(epoch, 100, 100)).mean().backward()
    named = {name.split(".")[0] for name, p in term.named_parameters() if p.grad is not None}
    return named, student.features["last"].grad is not None


def test_first_the_paraphraser_learns_then_the_student():
    term = built()
    assert learning(term, 0) == ({"encoder", "decoder"}, False)
    assert learning(term, 29) == ({"encoder", "decoder"}, False)
    assert learning(term, 30) == ({"translator"}, True)


def test_the_first_stage_is_the_reconstruction_error():
    torch.manual_seed(0)
    term = built()
    student, teacher = (random_outputs(3, CLASSES, dict(s.features), torch.float32) for s in (STUDENT, TEACHER))
    maps = teacher.feature("last")
    expected = (term.decoder(term.encoder(maps)) - maps).square().mean((1, 2, 3))
    torch.testing.assert_close(term(student, teacher, BATCH, Progress(0, 100, 100)), expected)


def test_a_rate_of_a_fifth_is_not_a_weight_of_a_fifth():
    """Weight decay included: the first stage by `schedule=first_stage` is a run at 0.01."""
    torch.manual_seed(0)
    student, teacher = (random_outputs(3, CLASSES, dict(s.features), torch.float32) for s in (STUDENT, TEACHER))
    start = built()
    ends = {}
    for name, rate, weight in (("alone", 0.01, 1.0), ("schedule", 0.05 * 0.2, 1.0), ("weight", 0.05, 0.2)):
        term = copy.deepcopy(start)
        optimizer = torch.optim.SGD(term.parameters(), lr=rate, momentum=0.9, weight_decay=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            (weight * term(student, teacher, BATCH, Progress(0, 240, 240)).mean()).backward()
            optimizer.step()
        ends[name] = torch.cat([p.detach().flatten() for p in term.encoder.parameters()])
    torch.testing.assert_close(ends["schedule"], ends["alone"])
    assert (ends["weight"] - ends["alone"]).abs().max() > 0.01


@pytest.mark.parametrize("compared", ["attention", "whole"])
def test_the_size_of_a_factor_does_not_matter(compared):
    mine, theirs = torch.randn(3, 4, 4, 4).double(), torch.randn(3, 4, 2, 2).double()
    expected = factor_distance(mine, theirs, compared)
    torch.testing.assert_close(factor_distance(3 * mine, 5 * theirs, compared), expected)


def test_factors_have_a_share_of_the_teachers_channels():
    term = built()
    assert term.encoder(torch.randn(1, 6, 2, 2)).shape == (1, 3, 2, 2)
    assert term.translator(torch.randn(2, 4, 4, 4)).shape == (2, 3, 4, 4)


def test_refuses_another_comparison():
    with pytest.raises(ValueError, match="compared must be"):
        FT("last", "last", 0.5, "parts", 0)  # pyright: ignore[reportArgumentType]
