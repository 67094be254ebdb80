from typing import Any

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.losses.features.input_gradient import InputGradient
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.methods.input_gradients import InputGradients
from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (1, 2, 2), 50, (0.0,), (1.0,), torch.arange(50) % 3)
START = Progress(0, 10, 10)


def built(quantity: Any = "cross_entropy", normalised: bool = False, own: Any = None) -> InputGradients:
    torch.manual_seed(0)
    nets = [MLP([7], 0.0, "tanh", 3, (1, 2, 2)).double() for _ in range(2)]
    teacher = Frozen(nets[1], own, ([0.0], [1.0]) if own else None)
    terms = {"ce": CrossEntropy(0.0), "gradient": InputGradient(normalised)}
    probed = [net.float() for net in nets]
    own = dict(student=probed[0], teacher=teacher, spec=SPEC, terms=terms, weights={"ce": 1.0, "gradient": 1.0})
    method = InputGradients(quantity, temperature=None, **own)
    return method.double()


def batch(size: int = 4) -> Batch:
    index = torch.arange(size)
    return Batch.of_classes(torch.randn(size, 1, 2, 2).double(), index % 3, index)


def numeric(network: nn.Module, inputs: torch.Tensor, number) -> torch.Tensor:
    """Central differences of a number for each example."""
    gradient, step = torch.zeros_like(inputs), 1e-6
    for place in range(4):
        shift = torch.zeros(4).double()
        shift[place] = step
        with torch.no_grad():
            above, below = (number(network(inputs + s * shift.view(1, 2, 2)).logits) for s in (1, -1))
        gradient.view(len(inputs), 4)[:, place] = (above - below) / (2 * step)
    return gradient


def test_cross_entropy_is_differentiated_as_finite_differences_are():
    method, examples = built(), batch()
    student, teacher = method.outputs(examples)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, examples.labels, reduction="none")

    for outputs, network in ((student, method.student), (teacher, method.teacher)):
        expected = numeric(network, examples.inputs, loss)
        torch.testing.assert_close(outputs.feature("input_gradient").detach(), expected, rtol=1e-5, atol=1e-7)


def test_the_top_logit_is_the_teachers_for_both():
    method, examples = built("top_logit"), batch(8)
    student, teacher = method.outputs(examples)
    top = teacher.logits.argmax(1)
    assert not torch.equal(top, student.logits.argmax(1))
    for outputs, network in ((student, method.student), (teacher, method.teacher)):
        expected = numeric(network, examples.inputs, lambda logits: logits.gather(1, top[:, None])[:, 0])
        torch.testing.assert_close(outputs.feature("input_gradient").detach(), expected, rtol=1e-5, atol=1e-7)


def test_the_labels_logit_is_that_of_each_example():
    method, examples = built("label_logit"), batch(8)
    student, teacher = method.outputs(examples)
    assert not torch.equal(examples.labels, teacher.logits.argmax(1))
    for outputs, network in ((student, method.student), (teacher, method.teacher)):
        expected = numeric(network, examples.inputs, lambda logits: logits.gather(1, examples.labels[:, None])[:, 0])
        torch.testing.assert_close(outputs.feature("input_gradient").detach(), expected, rtol=1e-5, atol=1e-7)


def test_the_teachers_own_normalisation_is_part_of_its_derivative():
    method, examples = built(own=([0.5], [0.25])), batch()
    _, teacher = method.outputs(examples)
    expected = numeric(
        method.teacher,
        examples.inputs,
        lambda logits: nn.functional.cross_entropy(logits, examples.labels, reduction="none"),
    )
    torch.testing.assert_close(teacher.feature("input_gradient"), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_second_backward_pass_is_the_derivative_of_the_first(normalised: bool):
    method, examples = built(normalised=normalised), batch()
    weight = dict(method.student.named_parameters())["layers.0.weight"]
    value = method(examples, START).terms["gradient"]
    (gradient,) = torch.autograd.grad(value, weight)
    for row, column in ((0, 0), (3, 2)):
        found = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[row, column] += step
            found.append(method(examples, START).terms["gradient"].item())
            with torch.no_grad():
                weight[row, column] -= step
        assert (found[0] - found[1]) / 2e-6 == pytest.approx(gradient[row, column].item(), rel=1e-4, abs=1e-8)


def test_nothing_reaches_the_teacher_and_the_inputs_are_left_alone():
    method, examples = built(), batch()
    step = method(examples, START)
    sum(step.terms.values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert not examples.inputs.requires_grad and examples.inputs.grad is None
    assert step.outputs is not None and not step.outputs.logits.requires_grad


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    method = built()
    method.student.load_state_dict(method.teacher.net.state_dict())  # pyright: ignore
    value = method(batch(), START).terms["gradient"]
    assert value.item() == 0
    assert all(
        g.abs().max() == 0
        for g in torch.autograd.grad(value, list(method.student.parameters()), allow_unused=True)
        if g is not None
    )


def test_refuses_a_teacher_without_derivatives():
    nets = [MLP([7], 0.0, "tanh", 3, (1, 2, 2)) for _ in range(2)]
    with pytest.raises(UserError, match="matching derivatives needs the teacher's derivatives, and a MLP has none"):
        own = dict(student=nets[0], teacher=nets[1], spec=SPEC, terms={}, weights={}, temperature=None)
        InputGradients("top_logit", **own)
