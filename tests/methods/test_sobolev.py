"""Sobolev training: what is estimated, what it costs the weights, and what ties examples together."""

from typing import Any

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.features.jacobian import JacobianDistance
from kdx.losses.logits.logit_mse import LogitMSE
from kdx.methods.sobolev import Sobolev
from kdx.models.small import MLP, SmallCNN
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (1, 2, 2), 50, (0.0,), (1.0,), torch.arange(50) % 3)
START = Progress(0, 10, 10)


class Linear(nn.Module):
    """Logits that are linear in the input."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs(self.fc(x.flatten(1)))


def built(
    derivative: Any,
    quantity: Any = "logits",
    directions: int = 1,
    unbiased: bool = True,
    networks: Any = lambda: MLP([7], 0.0, "softplus", 3, (1, 2, 2)),
    spec: DataSpec = SPEC,
) -> Sobolev:
    torch.manual_seed(0)
    student, teacher = networks(), networks()
    terms = {"mse": LogitMSE("mean"), "jacobian": JacobianDistance()}
    weights = {"mse": 1.0, "jacobian": 1.0}
    own = dict(student=student, teacher=Frozen(teacher, None, None), spec=spec, terms=terms, weights=weights)
    return Sobolev(derivative, quantity, directions, unbiased, temperature=None, **own)


def batch(size: int = 4) -> Batch:
    torch.manual_seed(1)
    index = torch.arange(size)
    return Batch.of_classes(torch.randn(size, 1, 2, 2), index % 3, index)


def value(method: Sobolev, examples: Batch) -> torch.Tensor:
    return method(examples, START).terms["jacobian"]


def test_two_linear_networks_differ_by_their_matrices():
    method, examples = built("full", networks=Linear), batch()
    weights = [method.student.fc.weight, method.teacher.net.fc.weight]  # pyright: ignore
    expected = (weights[0] - weights[1]).square().sum()
    torch.testing.assert_close(value(method, examples), expected)
    (gradient,) = torch.autograd.grad(value(method, examples), weights[0])
    torch.testing.assert_close(gradient, 2 * (weights[0] - weights[1]).detach())


@pytest.mark.parametrize(("quantity", "rank"), [("log_probs", 0), ("probs", 1), ("logits", 2)])
def test_the_whole_jacobian_by_differences(quantity: Any, rank: int):
    method, examples = built("full", quantity).double(), batch()
    inputs = examples.inputs.double()

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        z = net(x).logits
        return (z - z.logsumexp(1, keepdim=True), z.exp() / z.exp().sum(1, keepdim=True), z)[rank]

    expected = torch.zeros(4).double()
    for place in range(4):
        shift = torch.zeros(4).double()
        shift[place] = 1e-5
        moved = shift.view(1, 2, 2)
        with torch.no_grad():
            columns = [
                (function(net, inputs + moved) - function(net, inputs - moved)) / 2e-5
                for net in (method.student, method.teacher)
            ]
        expected += (columns[0] - columns[1]).square().sum(1)
    found = value(method, Batch.of_classes(inputs, examples.labels, examples.index))
    assert found.item() == pytest.approx(expected.mean().item(), rel=1e-6)


@pytest.mark.parametrize(("derivative", "share"), [("projected", 3), ("forward", 4)])
@pytest.mark.parametrize("quantity", ["log_probs", "logits"])
def test_the_mean_over_directions_is_the_whole_jacobian(derivative: Any, share: int, quantity: Any):
    one = batch(1)
    expected = value(built("full", quantity), one).item()
    many = Batch.of_classes(one.inputs.repeat(4000, 1, 1, 1), torch.zeros(4000).long(), torch.arange(4000))
    # one direction for each of many copies, and several for each of fewer
    assert value(built(derivative, quantity), many).item() == pytest.approx(expected, rel=0.06)
    assert value(built(derivative, quantity, directions=3), many).item() == pytest.approx(expected, rel=0.04)
    short = value(built(derivative, quantity, unbiased=False), many).item()
    assert short == pytest.approx(expected / share, rel=0.06)


@pytest.mark.parametrize("derivative", ["full", "projected", "forward"])
def test_the_gradient_to_the_weights_is_the_derivative_of_the_value(derivative: Any):
    method, examples = built(derivative, "log_probs", directions=2).double(), batch()
    examples = Batch.of_classes(examples.inputs.double(), examples.labels, examples.index)
    weight = dict(method.student.named_parameters())["layers.0.weight"]

    def seeded() -> torch.Tensor:
        torch.manual_seed(7)
        return value(method, examples)

    (gradient,) = torch.autograd.grad(seeded(), weight)
    assert gradient.abs().sum() > 0
    for row, column in ((0, 0), (3, 2)):
        found = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                weight[row, column] += step
            found.append(seeded().item())
            with torch.no_grad():
                weight[row, column] -= step
        expected = gradient[row, column].item()
        assert (found[0] - found[1]) / 2e-4 == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("derivative", ["full", "projected", "forward"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(derivative: Any):
    method = built(derivative, "log_probs")
    method.student.load_state_dict(method.teacher.net.state_dict())  # pyright: ignore
    assert value(method, batch()).item() == 0


@pytest.mark.parametrize("derivative", ["full", "projected", "forward"])
def test_batch_norms_do_not_tie_examples_together(derivative: Any):
    spec = image_classes(3, (1, 4, 4), 50, (0.0,), (1.0,), torch.arange(50) % 3)
    method = built(derivative, networks=lambda: SmallCNN([3, 3], 4, 0.0, 3, (1, 4, 4)), spec=spec).train()
    x = torch.randn(6, 1, 4, 4)
    y = torch.arange(6)
    before = method.student.state_dict()["convs.0.1.num_batches_tracked"].item()
    torch.manual_seed(3)
    outputs, _ = method.outputs(Batch.of_classes(x, y, y))
    assert method.student.state_dict()["convs.0.1.num_batches_tracked"].item() == before + 1
    if derivative == "full":
        # with its running statistics as they are after the step's one pass in training mode
        method.student.eval()
        found = method.outputs(Batch.of_classes(x[:2], y[:2], y[:2]))[0].feature("jacobian")
        torch.testing.assert_close(found, outputs.feature("jacobian")[:2], rtol=1e-4, atol=1e-6)
    assert sum(p.grad is not None for p in method.teacher.parameters()) == 0


def test_the_inputs_are_left_alone_and_the_step_carries_no_graph():
    for derivative in ("full", "projected", "forward"):
        method, examples = built(derivative), batch()
        step = method(examples, START)
        sum(step.terms.values()).backward()
        assert not examples.inputs.requires_grad and examples.inputs.grad is None
        assert step.outputs is not None and not step.outputs.logits.requires_grad
        assert all(p.grad is None for p in method.teacher.parameters())


def test_refusals():
    with pytest.raises(UserError, match="derivative must be one of full, projected, forward"):
        built("Full")
    with pytest.raises(UserError, match="quantity must be one of log_probs"):
        built("full", "logit")
    nets = [MLP([7], 0.0, "tanh", 3, (1, 2, 2)) for _ in range(2)]
    with pytest.raises(UserError, match="matching derivatives needs the teacher's derivatives, and a MLP has none"):
        own = dict(student=nets[0], teacher=nets[1], spec=SPEC, terms={}, weights={}, temperature=None)
        Sobolev("full", "logits", 1, True, **own)
